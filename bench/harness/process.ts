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
  /** CPU time of all its threads since its start. */
  cpuMs(): number
  /** Physical bytes written since its start. */
  writtenBytes(): number
}

let profileFolder: string | undefined

/** From now on every program of ours leaves a CPU profile in `folder` when it ends. */
export const profileInto = (folder: string): void => {
  profileFolder = folder
}
export const isProfiled = (): boolean => profileFolder !== undefined

/** A program of ours as people start it; for a profile, Node gets what the file's first line gives it, and more. */
export const program = (file: string): Pick<Start, 'command' | 'args'> => {
  if (profileFolder === undefined) return { command: file, args: [] }
  const flags = /^#!.* node(.*)$/m.exec(readFileSync(file, 'utf8'))?.[1]?.split(' ') ?? []
  return {
    command: process.execPath,
    args: [...flags.filter(flag => flag !== ''), '--cpu-prof', `--cpu-prof-dir=${profileFolder}`, file],
  }
}

/** Linux counts in hundredths of a second; utime and stime are fields 14 and 15, behind a name in parentheses. */
const cpuMs = (pid: number): number => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * 10
}

/** What runs now, and what to do when all has to end: a harness that gives up leaves nothing behind. */
const running = new Set<ChildProcess>()
const leftovers = new Set<() => void>()

/** Called by `endAll`, unless the returned function was called before. */
export const atEnd = (undo: () => void): (() => void) => {
  leftovers.add(undo)
  return () => void leftovers.delete(undo)
}

export const endAll = async (): Promise<void> => {
  const ending = [...running]
  for (const child of ending) child.kill('SIGKILL')
  await Promise.all(ending.map(child => (child.exitCode ?? child.signalCode) === null && once(child, 'exit')))
  for (const undo of leftovers) undo()
  leftovers.clear()
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
  running.add(child)
  child.once('exit', () => running.delete(child))
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
    cpuMs: () => cpuMs(pid),
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
