// A program of Headgate as the demo runs it: in a process group of its own, so that a terminal's Ctrl-C reaches the demo
// alone, and with its log in a file.
//
//   killed   by SIGKILL: somebody pulled the plug, and it is started again, as systemd would
//   died     ended in any other way without being asked: that is the end of the demo

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, statSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

export interface ProgramOptions {
  readonly name: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly logFile: string
  readonly onKilled: () => void
  readonly onStartedAgain: (pid: number) => void
}

export interface Program {
  readonly name: string
  /** Undefined while none runs. */
  pid(): number | undefined
  /** Resolves when it died, with why and its last lines. */
  readonly died: Promise<string>
  /** Resolves when it is gone: after SIGTERM, or SIGKILL when it takes too long. */
  stop(): Promise<'clean' | 'killed'>
}

/** Long enough to see what waits meanwhile. */
export const RESTART_MS = 10_000
/** What a program gives its own work in flight (`stopMsMax`, 5 s), and time to close its files. */
const STOP_MS_MAX = 10_000
/** A log that is longer than this at a start begins anew. */
const LOG_BYTES_MAX = 10 * 1024 * 1024
const LAST_LINES = 8

export const runProgram = ({
  name,
  args,
  env,
  logFile,
  onKilled,
  onStartedAgain,
}: ProgramOptions): Program => {
  const stopping = new AbortController()
  const launch = (): ChildProcess => {
    const log = openSync(logFile, isLong(logFile) ? 'w' : 'a', 0o600)
    const launched = spawn(process.execPath, ['--enable-source-maps', ...args], {
      env,
      detached: true,
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    return launched
  }
  let child: ChildProcess | undefined = launch()

  /** Resolves with the reason when it died; never after a stop. */
  const watch = async (): Promise<string> => {
    for (let running = child; running !== undefined; running = child) {
      const [code, signal] = (await once(running, 'exit')) as [number | null, string | null]
      child = undefined
      if (stopping.signal.aborted) break
      if (signal !== 'SIGKILL') return signal ?? `exit code ${code}`
      onKilled()
      const isStopped = await sleep(RESTART_MS, false, { signal: stopping.signal }).catch(() => true)
      if (isStopped) break
      child = launch()
      onStartedAgain(child.pid ?? 0)
    }
    return await new Promise<never>(() => undefined)
  }

  return {
    name,
    pid: () => child?.pid,
    died: watch().then(
      why => `The ${name} ended by itself (${why}). Its last lines, from ${logFile}:\n${lastLines(logFile)}`,
    ),
    stop: async () => {
      stopping.abort()
      const running = child
      if (running === undefined) return 'clean'
      const ended = once(running, 'exit')
      running.kill('SIGTERM')
      // One that somebody stopped with SIGSTOP would not hear of it.
      running.kill('SIGCONT')
      const late = Symbol('late')
      const timer = new AbortController()
      const first = await Promise.race([ended, sleep(STOP_MS_MAX, late, { signal: timer.signal })])
      timer.abort()
      if (first !== late) return 'clean'
      running.kill('SIGKILL')
      await ended
      return 'killed'
    },
  }
}

const isLong = (file: string): boolean =>
  (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > LOG_BYTES_MAX

const lastLines = (file: string): string =>
  readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .slice(-LAST_LINES)
    .map(line => `  ${line}`)
    .join('\n')
