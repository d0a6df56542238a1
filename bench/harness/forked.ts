// A part of the harness in a process of its own, so that its clock is not held up by what else the harness does:
// started with messages between, ended with the scenario.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { atEnd } from './process.ts'

interface Message {
  readonly kind: string
}

export interface Forked<Said extends Message> {
  readonly pid: number
  tell(message: Message): void
  /** The first message of this kind that was not read yet. Rejects when the process ends or `withinMs` pass. */
  heard<K extends Said['kind']>(kind: K, withinMs: number): Promise<Extract<Said, { readonly kind: K }>>
  /** Ends it, if it is still there. */
  end(): Promise<void>
}

export interface Fork {
  readonly url: URL
  readonly args: readonly string[]
  /** Network namespace to run in. */
  readonly namespace?: string | undefined
}

const OUTPUT_CHARACTERS_MAX = 4_000

/** `./child` beside the caller: `.ts` where the caller runs as TypeScript, `.js` in a build. */
export const partUrl = (importMetaUrl: string, path: string): URL =>
  new URL(`${path}.${importMetaUrl.endsWith('.ts') ? 'ts' : 'js'}`, importMetaUrl)

export const forkPart = <Said extends Message>({ url, args, namespace }: Fork): Forked<Said> => {
  const file = fileURLToPath(url)
  const node = [
    process.execPath,
    ...(file.endsWith('.ts') ? ['--import', 'tsx'] : ['--enable-source-maps']),
    file,
    ...args,
  ]
  // `ip netns exec` becomes the program: process id and message channel stay.
  const [command = '', ...rest] = namespace === undefined ? node : ['ip', 'netns', 'exec', namespace, ...node]
  const child: ChildProcess = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
  const undo = atEnd(() => child.kill('SIGKILL'))
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', chunk => {
      output = `${output}${String(chunk)}`.slice(-OUTPUT_CHARACTERS_MAX)
    })
  const said: Said[] = []
  const waiting = new Set<() => void>()
  const look = (): void => {
    for (const check of waiting) check()
  }
  const isOver = (): boolean => child.exitCode !== null || child.signalCode !== null
  child.on('message', message => {
    said.push(message as Said)
    look()
  })
  child.on('error', thrown => {
    output += thrown.message
  })
  child.on('close', look)
  return {
    pid: child.pid ?? 0,
    tell: message => void child.send(message),
    heard: <K extends Said['kind']>(kind: K, withinMs: number) =>
      new Promise<Extract<Said, { readonly kind: K }>>((resolve, reject) => {
        const stop = (): void => {
          clearTimeout(limit)
          waiting.delete(check)
        }
        const check = (): void => {
          const at = said.findIndex(message => message.kind === kind)
          if (at < 0 && !isOver()) return
          stop()
          if (at < 0) reject(new Error(`${file} ended before it said "${kind}": ${output}`))
          else resolve(said.splice(at, 1)[0] as Extract<Said, { readonly kind: K }>)
        }
        const limit = setTimeout(() => {
          stop()
          reject(new Error(`${file} did not say "${kind}" within ${withinMs} ms: ${output}`))
        }, withinMs)
        waiting.add(check)
        check()
      }),
    end: async () => {
      undo()
      if (isOver() || child.pid === undefined) return
      const exited = once(child, 'exit')
      child.kill('SIGKILL')
      await exited
    },
  }
}
