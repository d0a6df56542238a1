// A program that the harness started: its output, its memory, its end. Ended by its id, never by its name.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** Of this file, whether it runs as TypeScript or built into `dist`. */
export const PROJECT = join(import.meta.dirname, import.meta.filename.endsWith('.ts') ? '../..' : '../../..')

export interface Started {
  readonly pid: number
  /** Everything it said so far, standard output and error together. */
  said(): string
  /** Waits until it has said something that matches. Throws when it ends or `withinMs` pass. */
  saying(pattern: RegExp, withinMs?: number): Promise<void>
  kill(signal: 'SIGKILL' | 'SIGTERM' | 'SIGSTOP' | 'SIGCONT'): void
  /** Resolves with the exit code, or the signal's name. */
  readonly ended: Promise<number | string>
  /** RssAnon + RssShmem in MB: what the process cannot give back. The LMDB map is RssFile. */
  rssMb(): number
  /** Physical bytes written since its start. */
  writtenBytes(): number
}

export interface Start {
  readonly command: string
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly stdin?: string
}

const procField = (pid: number, file: string, field: string): number =>
  Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(readFileSync(`/proc/${pid}/${file}`, 'utf8'))?.[1] ?? 0)

export const start = ({ command, args, env = {}, stdin }: Start): Started => {
  const child: ChildProcess = spawn(command, [...args], {
    env: { ...process.env, ...env },
    stdio: [stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  })
  let text = ''
  child.stdout?.on('data', chunk => {
    text += String(chunk)
  })
  child.stderr?.on('data', chunk => {
    text += String(chunk)
  })
  if (stdin !== undefined) child.stdin?.end(stdin)
  const ended = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | string)
  const pid = child.pid ?? 0
  return {
    pid,
    said: () => text,
    saying: async (pattern, withinMs = 20_000) => {
      const until = performance.now() + withinMs
      while (!pattern.test(text)) {
        if (child.exitCode !== null || child.signalCode !== null)
          throw new Error(`${command} ${args.join(' ')} ended: ${text.slice(-2_000)}`)
        if (performance.now() > until)
          throw new Error(
            `${command} ${args.join(' ')} did not say ${pattern} within ${withinMs} ms: ${text.slice(-2_000)}`,
          )
        await sleep(10)
      }
    },
    kill: signal => {
      child.kill(signal)
    },
    ended,
    rssMb: () => (procField(pid, 'status', 'RssAnon') + procField(pid, 'status', 'RssShmem')) / 1024,
    writtenBytes: () => procField(pid, 'io', 'write_bytes'),
  }
}

/** Runs to the end; throws unless it exits 0. */
export const run = async (what: Start): Promise<string> => {
  const started = start(what)
  const code = await started.ended
  if (code !== 0) throw new Error(`${what.command} ${what.args.join(' ')} exited ${code}: ${started.said()}`)
  return started.said()
}
