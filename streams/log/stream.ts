// One stream of a gateway's log: seals what is appended into frames, and removes frames only behind the mark or
// for a skip.
//
//   table `frames:<stream>`   first offset → frame or skip, without a hole from tail to head
//   table `streams`           name → where the epoch began, what was trimmed, the last mark
//
// `durable` is what is on disk. `working` is that plus the group being committed; a failed commit takes it back.

import { BehaviorSubject, Observable, throwError } from 'rxjs'
import { type Codec, RECORD_BYTES_MAX, readHeader, sealFrame } from '../../schemas/frame.ts'
import { CHAIN_ZERO, epochOf, type Offset, ORIGIN, type StreamName } from '../../schemas/ids.ts'
import { type Clock, type Random, stampOf } from '../run/clock.ts'
import { fault } from '../run/fault.ts'
import type { Committer, Job } from './commit.ts'
import { cut } from './cut.ts'
import { storedHeader } from './lmdbfile.ts'
import type { ChainAt, Patience, Position, Range, StreamLog, StreamState } from './log.ts'
import { encodeMeta, framesTable, readMeta, STREAMS_TABLE, type StreamMeta } from './meta.ts'
import { replayPages } from './replay.ts'
import {
  type Cursor,
  entriesFrom,
  type Frames,
  planDrop,
  planRestamp,
  planTrim,
  type Rewrite,
  roomThrough,
} from './rewrite.ts'
import { keyNumber, numberKey, type Store, type Write } from './store.ts'

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
export interface StreamControl {
  readonly log: StreamLog
  /** After each group commit. */
  settle(durable: boolean): void
  /** For the first commit: an empty stream keeps its epoch over restarts as well. */
  introduce(): Job | undefined
}

/** `committer` is asked at the first use, since it is made from the streams that it serves. */
export const openStream = (options: StreamOptions, committer: () => Committer): StreamControl => {
  const { name, store, clock, random, limits, codec } = options
  const table = framesTable(name)
  const frames: Frames = { name, table, file: store.file, scan: scan => store.scan(table, scan) }
  let durable = openCursor(options)
  let working = durable
  let bytes = store.tableBytes(table)
  let mark: Position = durable.meta.mark
  const head$ = new BehaviorSubject<Offset>(durable.head)

  const settle = (ok: boolean): void => {
    if (working === durable) return
    if (ok) durable = { ...working, rewritten: false }
    working = durable
    bytes = store.tableBytes(table)
    if (durable.head !== head$.value) head$.next(durable.head)
  }

  const submit = <T>(
    patience: Patience,
    reserved: boolean,
    prepare: Job['prepare'],
    result: () => T,
  ): Observable<T> =>
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

  const describe = (meta: StreamMeta): Write => ({
    table: STREAMS_TABLE,
    key: Buffer.from(name),
    value: encodeMeta(meta),
  })

  const append: StreamLog['append'] = (batch, { alongside = [], patience = 'now' } = {}) => {
    let range: Range = { first: ORIGIN, last: ORIGIN }
    const prepare = (): readonly Write[] => {
      const before = working
      const writes: Write[] = [...alongside]
      try {
        seal(writes)
      } catch (thrown) {
        working = before
        throw thrown
      }
      return writes
    }
    const seal = (writes: Write[]): void => {
      if (!working.described) writes.push(describe(working.meta))
      if (bytes >= limits.bytesMax) writes.push(...makeRoom())
      const stamp = stampOf(clock)
      const first = (working.head + 1) as Offset
      for (const records of cut(batch)) {
        const at = {
          stream: name,
          epoch: working.meta.epoch,
          first: (working.head + 1) as Offset,
          previous: working.chain,
        }
        const frame = sealFrame(records, at, stamp, codec)
        writes.push({ table, key: numberKey(at.first), value: frame })
        const header = readHeader(frame)
        working = { ...working, head: header.last, chain: header.chain, described: true }
      }
      range = { first, last: working.head }
    }
    return submit(patience, limits.reserved, prepare, () => range)
  }

  /** Drops the oldest frames for a skip, or refuses. */
  const makeRoom = (): readonly Write[] => {
    // A group changes what is there once: what an earlier job of it did is not to be seen in the store yet.
    if (working.rewritten) return []
    const through =
      limits.onFull === 'refuse' || working.meta.restamp !== undefined
        ? undefined
        : roomThrough(frames, working, limits.bytesMax * DROP_SHARE)
    if (through === undefined) throw fault('stream_full', { stream: name, bytes, bytesMax: limits.bytesMax })
    return rewrite(() => planDrop(frames, working, { through, cause: 'quota', stamp: stampOf(clock) }))
  }

  const rewrite = (plan: () => Rewrite): readonly Write[] => {
    const { writes, ...changed } = plan()
    working = { ...working, ...changed, rewritten: true }
    return changed.meta === undefined ? writes : [...writes, describe(changed.meta)]
  }
  /** At most one in a group, for the reason above. */
  const alone = (plan: () => Rewrite) => (): readonly Write[] | 'later' =>
    working.rewritten ? 'later' : rewrite(plan)

  const newestMark = (): Position => (mark.offset > working.meta.mark.offset ? mark : working.meta.mark)

  const trim: StreamLog['trim'] = (through, patience = 'wait') =>
    submit(
      patience,
      true,
      alone(() => planTrim(frames, working, { through, mark: newestMark() })),
      () => durable.meta.trimmed.offset,
    )

  const drop: StreamLog['drop'] = (through, cause) =>
    submit(
      'now',
      true,
      alone(() => planDrop(frames, working, { through, cause, stamp: stampOf(clock) })),
      () => through,
    )

  const fork: StreamLog['fork'] = () =>
    new Observable<StreamState>(subscriber => {
      const restamp = alone(() =>
        planRestamp(frames, working, { epoch: epochOf(random.bytes(8)), proven: newestMark() }),
      )
      const step = (): void => {
        subscriber.add(
          submit('now', true, restamp, () => durable.meta.restamp === undefined).subscribe({
            next: finished => {
              if (!finished) return step()
              subscriber.next(state())
              subscriber.complete()
            },
            error: thrown => subscriber.error(thrown),
          }),
        )
      }
      step()
    })

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
    const header = storedHeader(store.file, row[1])
    if (header.last === offset) return { kind: 'known', chain: header.chain }
    return { kind: header.kind === 'skip' ? 'gone' : 'inside' }
  }

  const expiredThrough = (ms: number): Offset | undefined => {
    let through: Offset | undefined
    for (const { header } of entriesFrom(frames, durable.tail)) {
      if (header.kind === 'skip') continue
      // Sealed before the clock was set: its wall time says nothing of its age.
      if (header.clock === 'unknown' || header.sealedAtMs >= ms) break
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
      const bytes = over.payload.length + over.topic.length
      return throwError(() => fault('record_too_large', { bytes, bytesMax: RECORD_BYTES_MAX }))
    },
    replay: options =>
      replayPages({ scan: scan => store.scan(table, scan), head$, file: store.file }, options),
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
  const introduce = (): Job | undefined => {
    if (durable.described) return undefined
    const prepare = (): readonly Write[] => {
      working = { ...working, described: true }
      return [describe(working.meta)]
    }
    // On a full disk the first record brings it along.
    return { prepare, reserved: limits.reserved, done: () => undefined, failed: () => undefined }
  }
  return { log, settle, introduce }
}

const openCursor = ({ name, store, random }: StreamOptions): Cursor => {
  const start: Position = { offset: ORIGIN, chain: CHAIN_ZERO }
  const stored = readMeta(store, name)
  const described = stored !== undefined
  const meta = stored ?? {
    epoch: epochOf(random.bytes(8)),
    origin: start,
    parent: undefined,
    trimmed: start,
    mark: start,
    restamp: undefined,
  }
  const table = framesTable(name)
  const [last] = store.scan(table, { limit: 1, reverse: true })
  const [first] = store.scan(table, { limit: 1 })
  const tail = (meta.trimmed.offset + 1) as Offset
  if (first !== undefined && keyNumber(first[0]) !== tail) {
    throw fault('log_gap', { file: store.file, expected: tail, found: keyNumber(first[0]) })
  }
  if (last === undefined)
    return { meta, described, tail, head: meta.trimmed.offset, chain: meta.trimmed.chain, rewritten: false }
  const header = storedHeader(store.file, last[1])
  return { meta, described, tail, head: header.last, chain: header.chain, rewritten: false }
}
