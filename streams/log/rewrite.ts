// What trims, drops and forks change in a stream's frames: planned here, committed by the stream.
//
// A plan reads the store, so it must not follow another plan of the same group. Each takes a bounded number of frames.

import {
  readHeader,
  restampFrame,
  type SkipCause,
  type Stamp,
  sealSkip,
  shortenSkip,
} from '../../schemas/frame.ts'
import type { Chain, Epoch, Offset, StreamName } from '../../schemas/ids.ts'
import { fault } from '../run/fault.ts'
import { storedHeader } from './lmdbfile.ts'
import type { Entry, Position } from './log.ts'
import type { StreamMeta } from './meta.ts'
import { numberKey, type Row, type Scan, type Write } from './store.ts'

/** Frames in one transaction: bounds its memory, and its time to about 50 ms. */
const FRAMES_PER_STEP = 512
const STEP_BYTES_MAX = 4 * 1024 * 1024

export interface Frames {
  readonly name: StreamName
  readonly table: string
  readonly file: string
  readonly scan: (scan: Scan) => Row[]
}

/** Where a stream stands, in memory. */
export interface Cursor {
  readonly meta: StreamMeta
  /** The description is on disk: it has to be before the first frame is, or the next start draws another epoch. */
  readonly described: boolean
  readonly tail: Offset
  readonly head: Offset
  readonly chain: Chain
  /** A job of the group that is being prepared has changed frames. */
  readonly rewritten: boolean
}

export interface Rewrite {
  readonly writes: readonly Write[]
  readonly meta?: StreamMeta
  readonly described?: true
  readonly tail?: Offset
  readonly chain?: Chain
}

export const entriesFrom = ({ scan, file }: Frames, from: Offset): Entry[] =>
  scan({ from: numberKey(from), limit: FRAMES_PER_STEP, bytesMax: STEP_BYTES_MAX }).map(([, bytes]) => ({
    header: storedHeader(file, bytes),
    bytes,
  }))

/** Removes whole frames through `through` and stores the newest mark. */
export const planTrim = (
  frames: Frames,
  at: Cursor,
  { through, mark }: { readonly through: Offset; readonly mark: Position },
): Rewrite => {
  const writes: Write[] = []
  let { trimmed } = at.meta
  for (const { header } of entriesFrom(frames, at.tail)) {
    if (header.last > through) break
    writes.push(remove(frames, header.first))
    trimmed = { offset: header.last, chain: header.chain }
  }
  return {
    writes,
    meta: { ...at.meta, trimmed, mark },
    described: true,
    tail: (trimmed.offset + 1) as Offset,
  }
}

/** The end of the oldest frames that together hold `bytes`; never the newest frame. */
export const roomThrough = (frames: Frames, at: Cursor, bytes: number): Offset | undefined => {
  let freed = 0
  let through: Offset | undefined
  for (const { header } of entriesFrom(frames, at.tail)) {
    if (header.last >= at.head || freed >= bytes) break
    freed += header.kind === 'skip' ? 0 : header.length
    through = header.last
  }
  return through
}

export interface Drop {
  readonly through: Offset
  readonly cause: SkipCause
  readonly stamp: Stamp
}

/** One skip in the place of the frames from the tail; it takes in a skip of the same cause that stands before. */
export const planDrop = (frames: Frames, at: Cursor, { through, cause, stamp }: Drop): Rewrite => {
  // While a fork restamps, both epochs are in the table: what is dropped then would break the chain between them.
  if (at.meta.restamp !== undefined) return { writes: [] }
  const writes: Write[] = []
  let first = at.tail
  let end: Entry | undefined
  for (const entry of entriesFrom(frames, at.tail)) {
    if (entry.header.last > through) break
    // A skip of another cause stands where it is: what follows it gets a skip of its own.
    if (entry.header.kind === 'skip' && entry.header.cause !== cause) {
      if (end?.header.kind === 'data' || writes.length > 1) break
      // All that was taken is a skip of this cause: it stands as it is.
      writes.length = 0
      end = undefined
      first = (entry.header.last + 1) as Offset
      continue
    }
    writes.push(remove(frames, entry.header.first))
    end = entry
  }
  if (end === undefined) return { writes: [] }
  const { last, chain } = end.header
  const skip = sealSkip(
    { stream: frames.name, epoch: at.meta.epoch, first, count: last - first + 1, cause, chain },
    stamp,
  )
  return { writes: [...writes, put(frames, first, skip)] }
}

/**
 * One step of a fork: restamps what is not proven delivered; the last step switches the epoch. A crash between steps
 * goes on with the next call, since the new epoch is part of the description.
 */
export const planRestamp = (
  frames: Frames,
  at: Cursor,
  start: { readonly epoch: Epoch; readonly proven: Position },
): Rewrite => {
  const { meta } = at
  const proven = meta.restamp === undefined ? start.proven : meta.mark
  const restamp = meta.restamp ?? {
    epoch: start.epoch,
    next: (proven.offset + 1) as Offset,
    chain: proven.chain,
  }
  const cleared =
    meta.restamp === undefined
      ? clearProven(frames, at.tail, proven.offset)
      : { writes: [], crossing: undefined }
  const writes: Write[] = [...cleared.writes]
  let { next, chain } = restamp
  const found = entriesFrom(frames, next)
  for (const { bytes } of cleared.crossing === undefined ? found : [cleared.crossing, ...found]) {
    const frame = restampFrame(bytes, restamp.epoch, chain)
    const header = readHeader(frame)
    writes.push(put(frames, header.first, frame))
    chain = header.chain
    next = (header.last + 1) as Offset
  }
  const finished = next > at.head
  const changed: StreamMeta = finished
    ? {
        epoch: restamp.epoch,
        origin: proven,
        parent: meta.epoch,
        trimmed: proven,
        mark: proven,
        restamp: undefined,
      }
    : { ...meta, trimmed: proven, mark: proven, restamp: { epoch: restamp.epoch, next, chain } }
  return {
    writes,
    meta: changed,
    described: true,
    tail: (proven.offset + 1) as Offset,
    chain: finished ? chain : at.chain,
  }
}

/** What is marked was delivered under the old epoch and is no part of the new one; a skip may reach across. */
const clearProven = (
  frames: Frames,
  tail: Offset,
  through: Offset,
): { writes: Write[]; crossing: { bytes: Buffer } | undefined } => {
  const writes: Write[] = []
  for (let from = tail; ; ) {
    const page = entriesFrom(frames, from)
    for (const { header, bytes } of page) {
      if (header.first > through) return { writes, crossing: undefined }
      writes.push(remove(frames, header.first))
      if (header.last <= through) continue
      if (header.kind === 'data')
        throw fault('log_gap', { file: frames.file, expected: through + 1, found: header.first })
      return { writes, crossing: { bytes: shortenSkip(bytes, (through + 1) as Offset) } }
    }
    const end = page.at(-1)
    if (end === undefined) return { writes, crossing: undefined }
    from = (end.header.last + 1) as Offset
  }
}

const remove = ({ table }: Frames, first: Offset): Write => ({
  table,
  key: numberKey(first),
  value: undefined,
})
const put = ({ table }: Frames, first: Offset, frame: Buffer): Write => ({
  table,
  key: numberKey(first),
  value: frame,
})
