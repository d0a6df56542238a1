// What a running program asks of the kernel, as strace saw it.
//
// A thread that strace watches stops before and after each call until strace has written it down. So if one call had
// to end before another began, their lines are in that order.

import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Started, start } from '../../bench/harness/process.ts'

export interface Call {
  readonly name: string
  readonly fd: number
  /** What the descriptor is: a file's path, or `TCP:[own address->other address]`. */
  readonly on: string
  /** Arguments as strace shows them; text in buffers is readable. */
  readonly text: string
  readonly result: number
  /** Lines of the trace. */
  readonly began: number
  readonly ended: number
}

export interface Trace {
  /** Ends the watching; the calls that were complete, in the order of their ends. */
  stop(): Promise<Call[]>
}

const CALLS = 'fdatasync,fsync,pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,setsockopt'
/** Whole pages of the log: a message is looked for in them. */
const SHOWN_BYTES = 65_536
/** fdatasync takes so much longer: what does not wait for it is then seen before its end, and not by luck behind it. */
const SYNC_DELAY_US = 15_000

export const traced = async (program: Started): Promise<Trace> => {
  const folder = mkdtempSync(join(tmpdir(), 'headgate-trace-'))
  const file = join(folder, 'calls')
  const watcher = start({
    command: 'strace',
    args: [
      '-f',
      '-yy',
      '-s',
      String(SHOWN_BYTES),
      '-e',
      `trace=${CALLS}`,
      '-e',
      `inject=fdatasync:delay_enter=${SYNC_DELAY_US}`,
      '-o',
      file,
      '-p',
      String(program.pid),
    ],
  })
  await watcher.saying(/attached/)
  return {
    stop: async () => {
      watcher.kill('SIGTERM')
      await watcher.ended
      const calls = parse(readFileSync(file, 'latin1'))
      rmSync(folder, { recursive: true })
      return calls
    },
  }
}

const parse = (text: string): Call[] => {
  const open = new Map<string, { readonly text: string; readonly began: number }>()
  return text.split('\n').flatMap((line, at) => {
    const [, thread = '', said = ''] = /^(\d+)\s+(.*)$/.exec(line) ?? []
    const cut = /^(.*) <unfinished \.\.\.>$/.exec(said)
    if (cut !== null) {
      open.set(thread, { text: cut[1] ?? '', began: at })
      return []
    }
    const [, rest] = /^<\.\.\. \w+ resumed>(.*)$/.exec(said) ?? []
    const before = rest === undefined ? undefined : open.get(thread)
    const call = callOf((before?.text ?? '') + (rest ?? said), before?.began ?? at, at)
    return call === undefined ? [] : [call]
  })
}

const callOf = (said: string, began: number, ended: number): Call | undefined => {
  const [, name = '', fd = '', on = '', text = '', result = ''] =
    /^(\w+)\((\d+)<((?:TCP[^:]*:\[[^\]]*\])|[^>]*)>(.*)\)\s+= (-?\d+)/.exec(said) ?? []
  return name === '' ? undefined : { name, fd: Number(fd), on, text, result: Number(result), began, ended }
}

/** O_DSYNC, as /proc shows flags: in octal. */
const O_DSYNC = 0o10_000

/** Descriptors of a process whose every write is durable when it returns. */
export const durableDescriptors = (pid: number): Set<number> =>
  new Set(
    readdirSync(`/proc/${pid}/fd`)
      .map(Number)
      .filter(fd => {
        try {
          if (!readlinkSync(`/proc/${pid}/fd/${fd}`).includes('.mdb')) return false
          const [, flags = '0'] =
            /^flags:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8')) ?? []
          return (Number.parseInt(flags, 8) & O_DSYNC) !== 0
        } catch {
          return false // Closed in between.
        }
      }),
  )

const WRITES = new Set(['pwrite64', 'pwritev', 'pwritev2', 'write', 'writev'])
export const isWrite = ({ name }: Call): boolean =>
  WRITES.has(name) || name === 'sendto' || name === 'sendmsg'

/**
 * Line at which a commit to `file` that holds `marker` was durable, or why it never was: its pages written, fdatasync
 * begun after the last of them and ended well, then the page that makes them valid, through a descriptor with O_DSYNC.
 */
export const durableAt = (
  calls: readonly Call[],
  { file, marker, after, meta }: { file: RegExp; marker: string; after: number; meta: ReadonlySet<number> },
): number | string => {
  const own = calls.filter(call => file.test(call.on) && call.began > after)
  const page = own.find(call => WRITES.has(call.name) && call.text.includes(marker))
  if (page === undefined) return 'its pages were never written'
  const valid = own.find(call => WRITES.has(call.name) && meta.has(call.fd) && call.began > page.ended)
  if (valid === undefined) return 'no page made the commit valid'
  const pages = own.filter(call => WRITES.has(call.name) && !meta.has(call.fd) && call.began < valid.began)
  const lastPage = Math.max(...pages.map(({ ended }) => ended))
  const synced = own.find(
    call =>
      call.name === 'fdatasync' &&
      call.fd === page.fd &&
      call.result === 0 &&
      call.began > lastPage &&
      call.ended < valid.began,
  )
  return synced === undefined
    ? 'no fdatasync between its pages and the page that makes them valid'
    : valid.ended
}
