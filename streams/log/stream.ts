// One stream of a gateway's log: seals what is appended into frames, and removes frames only behind the mark or
// for a skip.
//
//   table `frames:<stream>`   first offset → frame or skip, without a hole from tail to head
//   table `streams`           name → where the epoch began, what was trimmed, the last mark
//
// `durable` is what is on disk. `working` is that plus the group being committed; a failed commit takes it back.

import { BehaviorSubject, Observable } from 'rxjs'
import type { SkipCause } from '../../schemas/frame.ts'
import {
  FRAME_BODY_BYTES_MAX, FRAME_RECORDS_MAX, RECORD_BYTES_MAX, type Codec, readHeader, restampFrame, sealFrame, sealSkip, shortenSkip,
} from '../../schemas/frame.ts'
import { CHAIN_ZERO, ORIGIN, type Chain, type Offset, type StreamName, epochOf } from '../../schemas/ids.ts'
import type { TakenRecord } from '../../schemas/records.ts'
import { type Clock, type Random, stampOf } from '../run/clock.ts'
import { fault } from '../run/fault.ts'
import type { Committer, Job } from './commit.ts'
import type { ChainAt, Entry, Patience, Position, Range, StreamLog, StreamState } from './log.ts'
import { replayPages } from './replay.ts'
import { type Store, type Write, keyNumber, numberKey } from './store.ts'
import { STREAMS_TABLE, type StreamMeta, encodeMeta, framesTable, readMeta } from './meta.ts'

export interface StreamLimits {
  /** Quota in bytes of the file's pages. */
  readonly bytesMax: number
  readonly onFull: 'refuse' | 'dropOldest'
  /** May use the reserve and the ballast. */
  readonly reserved: boolean
}

export interface StreamOptions {
  readonly name: StreamName
  readonly store: Store
  readonly clock: Clock
  readonly random: Random
  readonly limits: StreamLimits
  readonly codec: Codec
}

/** A drop frees at least this share of the quota, so that a full stream does not drop at each append. */
const DROP_SHARE = 1 / 16
/** Frames in one transaction of a trim, drop or fork: bounds its memory and its time to about 50 ms. */
const FRAMES_PER_STEP = 512

interface Cursor {
  readonly meta: StreamMeta
  /** The description is on disk: it has to be before the first frame is, or the next start draws another epoch. */
  readonly described: boolean
  readonly tail: Offset
  readonly head: Offset
  readonly chain: Chain
}

export interface StreamControl {
  readonly log: StreamLog
  /** After each group commit. */
  settle(durable: boolean): void
}

/** `committer` is asked at the first use, since it is made from the streams that it serves. */
export const openStream = (options: StreamOptions, committer: () => Committer): StreamControl => {
  const { name, store, clock, random, limits, codec } = options
  const table = framesTable(name)
  let durable = openCursor(options)
  let working = durable
  let bytes = store.tableBytes(table)
  let mark: Position = durable.meta.mark
  const head$ = new BehaviorSubject<Offset>(durable.head)

  const settle = (ok: boolean): void => {
    if (working === durable) return
    if (ok) durable = working
    else working = durable
    bytes = store.tableBytes(table)
    if (durable.head !== head$.value) head$.next(durable.head)
  }

  const submit = <T>(patience: Patience, reserved: boolean, prepare: () => readonly Write[], result: () => T): Observable<T> =>
    new Observable<T>(subscriber => {
      const job: Job = {
        prepare,
        reserved,
        done: () => {
          subscriber.next(result())
          subscriber.complete()
        },
        failed: thrown => subscriber.error(thrown),
      }
      committer().submit(job, patience)
    })

  const describe = (meta: StreamMeta): Write => ({ table: STREAMS_TABLE, key: Buffer.from(name), value: encodeMeta(meta) })

  const append: StreamLog['append'] = (batch, { alongside = [], patience = 'now' } = {}) => {
    let range: Range = { first: ORIGIN, last: ORIGIN }
    const prepare = (): readonly Write[] => {
      const writes: Write[] = [...alongside]
      if (!working.described) writes.push(describe(working.meta))
      if (bytes >= limits.bytesMax) writes.push(...makeRoom())
      const stamp = stampOf(clock)
      const first = (working.head + 1) as Offset
      for (const records of cut(batch)) {
        const at = { stream: name, epoch: working.meta.epoch, first: (working.head + 1) as Offset, previous: working.chain }
        const frame = sealFrame(records, at, stamp, codec)
        writes.push({ table, key: numberKey(at.first), value: frame })
        const header = readHeader(frame)
        working = { ...working, head: header.last, chain: header.chain, described: true }
      }
      range = { first, last: working.head }
      return writes
    }
    return submit(patience, limits.reserved, prepare, () => range)
  }

  /** Drops the oldest frames for a skip, or refuses. */
  const makeRoom = (): readonly Write[] => {
    if (limits.onFull === 'refuse' || working.meta.restamp !== undefined) {
      throw fault('stream_full', { stream: name, bytes, bytesMax: limits.bytesMax })
    }
    const wanted = limits.bytesMax * DROP_SHARE
    let freed = 0
    let through: Offset | undefined
    for (const { header } of entries(working.tail, FRAMES_PER_STEP)) {
      if (header.last >= working.head || freed >= wanted) break
      freed += header.kind === 'skip' ? 0 : header.length
      through = header.last
    }
    if (through === undefined) throw fault('stream_full', { stream: name, bytes, bytesMax: limits.bytesMax })
    return dropThrough(through, 'quota')
  }

  const entries = (from: Offset, limit: number): Entry[] =>
    store.scan(table, { from: numberKey(from), limit }).map(([, frame]) => ({ header: readHeader(frame), bytes: frame }))

  const dropThrough = (through: Offset, cause: SkipCause): readonly Write[] => {
    const writes: Write[] = []
    let first = working.tail
    let end: Entry | undefined
    let skipHead: Entry | undefined
    for (const entry of entries(working.tail, FRAMES_PER_STEP + 1)) {
      if (entry.header.last > through) break
      // A skip of another cause stands where it is: what follows it gets a skip of its own.
      if (entry.header.kind === 'skip' && entry.header.cause !== cause) {
        if (end !== undefined) break
        first = (entry.header.last + 1) as Offset
        continue
      }
      skipHead ??= entry
      writes.push({ table, key: numberKey(entry.header.first), value: undefined })
      end = entry
    }
    if (end === undefined || skipHead === undefined) return []
    const { epoch } = working.meta
    const skip = sealSkip({ stream: name, epoch, first, count: end.header.last - first + 1, cause, chain: end.header.chain }, stampOf(clock))
    return [...writes, { table, key: numberKey(first), value: skip }]
  }

  const trim: StreamLog['trim'] = through => {
    const prepare = (): readonly Write[] => {
      const writes: Write[] = []
      let trimmed = working.meta.trimmed
      for (const { header } of entries(working.tail, FRAMES_PER_STEP)) {
        if (header.last > through) break
        writes.push({ table, key: numberKey(header.first), value: undefined })
        trimmed = { offset: header.last, chain: header.chain }
      }
      const noted = mark.offset > working.meta.mark.offset ? mark : working.meta.mark
      working = { ...working, described: true, tail: (trimmed.offset + 1) as Offset, meta: { ...working.meta, trimmed, mark: noted } }
      return [...writes, describe(working.meta)]
    }
    return submit('wait', true, prepare, () => durable.meta.trimmed.offset)
  }

  const drop: StreamLog['drop'] = (through, cause) =>
    submit('now', true, () => dropThrough(through, cause), () => through)

  const fork: StreamLog['fork'] = () =>
    new Observable<StreamState>(subscriber => {
      const step = (): void => {
        subscriber.add(submit('now', true, restampSome, () => durable.meta.restamp === undefined).subscribe({
          next: finished => {
            if (!finished) return step()
            subscriber.next(state())
            subscriber.complete()
          },
          error: thrown => subscriber.error(thrown),
        }))
      }
      step()
    })

  /** One step of a fork; the last one switches the epoch. A crash between steps resumes with the next call. */
  const restampSome = (): readonly Write[] => {
    const { meta } = working
    const proven = meta.restamp === undefined && mark.offset > meta.mark.offset ? mark : meta.mark
    const restamp = meta.restamp ?? { epoch: epochOf(random.bytes(8)), next: (proven.offset + 1) as Offset, chain: proven.chain }
    const writes: Write[] = meta.restamp === undefined ? removeProven(proven.offset) : []
    let { next, chain } = restamp
    for (const { header, bytes: old } of entries(next, FRAMES_PER_STEP)) {
      const frame = restampFrame(old, restamp.epoch, chain)
      writes.push({ table, key: numberKey(header.first), value: frame })
      chain = readHeader(frame).chain
      next = (header.last + 1) as Offset
    }
    const finished = next > working.head
    const changed: StreamMeta = finished
      ? { epoch: restamp.epoch, origin: proven, parent: meta.epoch, trimmed: proven, mark: proven, restamp: undefined }
      : { ...meta, trimmed: proven, mark: proven, restamp: { epoch: restamp.epoch, next, chain } }
    working = { ...working, described: true, meta: changed, tail: (proven.offset + 1) as Offset, chain: finished ? chain : working.chain }
    return [...writes, describe(changed)]
  }

  /** What is marked was delivered under the old epoch and is not part of the new one; a skip may reach across. */
  const removeProven = (through: Offset): Write[] => {
    const writes: Write[] = []
    for (const { header, bytes: old } of allFrom(working.tail)) {
      if (header.first > through) break
      writes.push({ table, key: numberKey(header.first), value: undefined })
      if (header.last <= through) continue
      if (header.kind === 'data') throw fault('log_gap', { file: store.file, expected: through + 1, found: header.first })
      writes.push({ table, key: numberKey(through + 1), value: shortenSkip(old, (through + 1) as Offset) })
    }
    return writes
  }

  function* allFrom(from: Offset): Generator<Entry> {
    for (let next = from; ; ) {
      const page = entries(next, FRAMES_PER_STEP)
      yield* page
      const end = page.at(-1)
      if (end === undefined) return
      next = (end.header.last + 1) as Offset
    }
  }

  const state = (): StreamState => ({
    name,
    epoch: durable.meta.epoch,
    origin: durable.meta.origin,
    parent: durable.meta.parent,
    tail: durable.tail,
    head: durable.head,
    chain: durable.chain,
    mark: durable.meta.mark,
    forking: durable.meta.restamp !== undefined,
    bytes,
  })

  const chainAt = (offset: Offset): ChainAt => {
    const { trimmed, origin } = durable.meta
    if (offset === trimmed.offset) return { kind: 'known', chain: trimmed.chain }
    if (offset === origin.offset) return { kind: 'known', chain: origin.chain }
    if (offset > durable.head) return { kind: 'beyond' }
    const [row] = store.scan(table, { from: numberKey(offset), limit: 1, reverse: true })
    if (row === undefined) return { kind: 'gone' }
    const header = readHeader(row[1])
    if (header.last === offset) return { kind: 'known', chain: header.chain }
    return { kind: header.kind === 'skip' ? 'gone' : 'inside' }
  }

  const expiredThrough = (ms: number): Offset | undefined => {
    let through: Offset | undefined
    for (const { header } of entries(durable.tail, FRAMES_PER_STEP)) {
      if (header.kind === 'skip') continue
      if (header.sealedAtMs >= ms) break
      through = header.last
    }
    return through
  }

  const log: StreamLog = {
    name,
    head$: head$.asObservable(),
    append: (batch, how) => {
      const over = batch.find(record => record.payload.length + record.topic.length > RECORD_BYTES_MAX)
      if (over === undefined) return append(batch, how)
      throw fault('record_too_large', { bytes: over.payload.length + over.topic.length, bytesMax: RECORD_BYTES_MAX })
    },
    replay: options => replayPages({ scan: scan => store.scan(table, scan), head$, file: store.file }, options),
    trim,
    state,
    chainAt,
    noteMark: position => {
      if (position.offset > mark.offset) mark = position
    },
    marked: () => mark,
    fork,
    drop,
    expiredThrough,
  }
  return { log, settle }
}

/** Records into frames: at most 500 records or 64 KB each, in order. */
export function* cut(batch: readonly TakenRecord[]): Generator<readonly TakenRecord[]> {
  let from = 0
  let bodyBytes = 0
  for (const [i, { topic, payload }] of batch.entries()) {
    // The topic counts each time: it may be new to the frame, and finding out costs more than it saves.
    const recordBytes = payload.length + topic.length + 16
    if (i > from && (i - from >= FRAME_RECORDS_MAX || bodyBytes + recordBytes > FRAME_BODY_BYTES_MAX)) {
      yield batch.slice(from, i)
      from = i
      bodyBytes = 0
    }
    bodyBytes += recordBytes
  }
  yield from === 0 ? batch : batch.slice(from)
}

const openCursor = ({ name, store, random }: StreamOptions): Cursor => {
  const start: Position = { offset: ORIGIN, chain: CHAIN_ZERO }
  const stored = readMeta(store, name)
  const described = stored !== undefined
  const meta = stored ?? {
    epoch: epochOf(random.bytes(8)), origin: start, parent: undefined, trimmed: start, mark: start, restamp: undefined,
  }
  const table = framesTable(name)
  const [last] = store.scan(table, { limit: 1, reverse: true })
  const [first] = store.scan(table, { limit: 1 })
  const tail = (meta.trimmed.offset + 1) as Offset
  if (first !== undefined && keyNumber(first[0]) !== tail) {
    throw fault('log_gap', { file: store.file, expected: tail, found: keyNumber(first[0]) })
  }
  if (last === undefined) return { meta, described, tail, head: meta.trimmed.offset, chain: meta.trimmed.chain }
  const header = readHeader(last[1])
  return { meta, described, tail, head: header.last, chain: header.chain }
}
