// What every file of LMDB's needs around lmdb-js: a look before it is opened, and words for what it throws.

import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs'
import { FrameError, type FrameHeader, readHeader } from '../../schemas/frame.ts'
import { fault, isFault, reasonOf } from '../run/fault.ts'

/** Of LMDB's first meta page; where exactly depends on the width of pointers. */
const MAGIC = Buffer.from('dec0efbe', 'hex')
const MAGIC_WITHIN_BYTES = 32

/**
 * lmdb 3.5.6 crashes the process on a file that is not its own, and on one that was cut short. A file that is not
 * there is fine, and so is an empty one. Errors: log_unreadable.
 */
export const requireLmdbFile = (file: string): void => {
  if (statSync(file, { throwIfNoEntry: false }) === undefined) return
  // Another thread may be making it: its first two pages are not written in one step.
  if (whyUnusable(readStart(file)) !== undefined)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, MAKING_MS)
  const because = whyUnusable(readStart(file))
  if (because !== undefined) throw fault('log_unreadable', { file, because })
}

const MAKING_MS = 20

interface Start {
  readonly start: Buffer
  readonly bytes: number
}

/** The length is taken behind the bytes: a writer in another thread may be at work, and a file only grows. */
const readStart = (file: string): Start => {
  try {
    const handle = openSync(file, 'r')
    try {
      const start = Buffer.alloc(2 * PAGE_BYTES_LARGEST)
      const read = readSync(handle, start)
      return { start: start.subarray(0, read), bytes: fstatSync(handle).size }
    } finally {
      closeSync(handle)
    }
  } catch (thrown) {
    throw fault('log_unreadable', { file, because: reasonOf(thrown) }, thrown)
  }
}

const PAGE_BYTES_LEAST = 4_096
const PAGE_BYTES_LARGEST = 65_536
/** Of a meta page with pointers of 64 bits: what LMDB calls psize, the roots of both trees, the transaction. */
const META = { pageBytes: 48, freeRoot: 88, mainRoot: 136, transaction: 152, end: 160 } as const
const NO_PAGE = 2n ** 64n - 1n

const whyUnusable = ({ start, bytes }: Start): string | undefined => {
  if (bytes === 0) return undefined
  if (!start.subarray(0, MAGIC_WITHIN_BYTES).includes(MAGIC)) return 'it is not an LMDB file'
  if (bytes < 2 * PAGE_BYTES_LEAST) return `it was cut short: ${bytes} bytes`
  const pageBytes = start.readUInt32LE(META.pageBytes)
  const isKnown =
    pageBytes >= PAGE_BYTES_LEAST && pageBytes <= PAGE_BYTES_LARGEST && (pageBytes & (pageBytes - 1)) === 0
  if (!isKnown || start.length < pageBytes + META.end) return undefined // Pointers of 32 bits lie elsewhere.
  const [one, other] = [start, start.subarray(pageBytes)]
  const newest = other.readBigUInt64LE(META.transaction) > one.readBigUInt64LE(META.transaction) ? other : one
  const pages = BigInt(Math.floor(bytes / pageBytes))
  const missing = [META.freeRoot, META.mainRoot]
    .map(at => newest.readBigUInt64LE(at))
    .find(root => root !== NO_PAGE && root >= pages)
  return missing === undefined ? undefined : `it was cut short: ${pages} pages, and page ${missing} is needed`
}

/** What LMDB throws at a damaged page is about the file. Errors: disk_full, log_unreadable. */
export const aboutFile = <T>(file: string, read: () => T): T => {
  try {
    return read()
  } catch (thrown) {
    if (isFault(thrown)) throw thrown
    if (isDiskFull(thrown)) throw fault('disk_full', { file }, thrown)
    throw fault('log_unreadable', { file, because: reasonOf(thrown) }, thrown)
  }
}

/** The header of a stored frame. Errors: log_unreadable. */
export const storedHeader = (file: string, frame: Buffer): FrameHeader => {
  try {
    return readHeader(frame)
  } catch (thrown) {
    if (!(thrown instanceof FrameError)) throw thrown
    throw fault('log_unreadable', { file, because: `a frame in it is damaged: ${thrown.message}` }, thrown)
  }
}

/** ENOSPC, and the EIO that LMDB makes of the short write that a full disk gives it first. */
const DISK_FULL_CODES: readonly unknown[] = [28, 5, 'ENOSPC', 'EIO']

export const isDiskFull = (thrown: unknown): boolean =>
  thrown instanceof Error && 'code' in thrown && DISK_FULL_CODES.includes(thrown.code)

/** disk_full or commit_failed, from what a write rejected with. */
export const commitFault = (file: string, thrown: unknown): Error => {
  if (isDiskFull(thrown)) return fault('disk_full', { file }, thrown)
  return fault('commit_failed', { file, because: reasonOf(thrown) }, thrown)
}

/** lmdb-js hides the reason behind `commitError`; left alone, that promise would end the process. */
export const explainCommit = async (thrown: unknown): Promise<never> => {
  if (thrown instanceof Error && 'commitError' in thrown) await thrown.commitError
  throw thrown
}
