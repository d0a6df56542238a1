// How the cloud's log lies on disk: one LMDB file a day and class, `<folder>/<class>/<first seq>-<day>.mdb`.
//
//   table `entries`   seq → u8 kind, u48 received at, u8 n, n bytes gateway, then the frame; or the event as JSON
//   table `index`     gateway, stream, epoch, first offset → seq
//   table `marks`     gateway, stream, epoch → offset, chain; every segment begins with a copy of all of them
//   table `begun`     set by the first commit: a segment without it holds nothing

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type CloudEvent, cloudEventSchema } from '../../schemas/events.ts'
import type { Chain, Epoch, EpochMs, GatewayId, Offset, StreamName } from '../../schemas/ids.ts'
import { fault, reasonOf } from '../run/fault.ts'
import type { CloudBody, CloudEntry, LogClass, StoredMark } from './cloudlog.ts'
import type { Store, Write } from './store.ts'

export const ENTRIES = 'entries'
export const INDEX = 'index'
export const MARKS = 'marks'
export const BEGUN = 'begun'
export const BEGUN_KEY = Buffer.from('begun')
export const SEGMENT_TABLES = [ENTRIES, INDEX, MARKS, BEGUN]

export interface SegmentName {
  readonly file: string
  readonly first: number
  /** UTC, as 2026-11-22. */
  readonly day: string
}

export const dayOf = (ms: EpochMs): string => new Date(ms).toISOString().slice(0, 10)

export const segmentFile = (folder: string, logClass: LogClass, first: number, day: string): string =>
  join(folder, logClass, `${String(first).padStart(15, '0')}-${day}.mdb`)

/** In the order of their entries. */
export const listSegments = (folder: string, logClass: LogClass): SegmentName[] => {
  const inside = join(folder, logClass)
  if (!existsSync(inside)) return []
  return readdirSync(inside)
    .flatMap(name => {
      const [, first, day] = /^(\d{15})-(\d{4}-\d{2}-\d{2})\.mdb$/.exec(name) ?? []
      return first === undefined || day === undefined
        ? []
        : [{ file: join(inside, name), first: Number(first), day }]
    })
    .sort((a, b) => a.first - b.first || (a.day < b.day ? -1 : 1))
}

const KIND_FRAME = 1
const KIND_EVENT = 2

export const encodeEntry = (body: CloudBody, receivedAtMs: EpochMs): Buffer => {
  const name = body.kind === 'frame' ? body.gateway : ''
  const content = body.kind === 'frame' ? body.frame : Buffer.from(JSON.stringify(body.event))
  const bytes = Buffer.allocUnsafe(8 + name.length + content.length)
  bytes[0] = body.kind === 'frame' ? KIND_FRAME : KIND_EVENT
  bytes.writeUIntBE(Math.max(0, receivedAtMs), 1, 6)
  bytes[7] = name.length
  bytes.write(name, 8, 'latin1')
  bytes.set(content, 8 + name.length)
  return bytes
}

/** Trusts frames, which were checked on the way in; parses events. Errors: log_unreadable. */
export const decodeEntry = (file: string, seq: number, bytes: Buffer): CloudEntry => {
  const receivedAtMs = bytes.readUIntBE(1, 6)
  const at = 8 + (bytes[7] ?? 0)
  const content = bytes.subarray(at)
  if (bytes[0] === KIND_FRAME) {
    return {
      seq,
      receivedAtMs,
      kind: 'frame',
      gateway: bytes.toString('latin1', 8, at) as GatewayId,
      frame: content,
    }
  }
  return { seq, receivedAtMs, kind: 'event', event: decodeEvent(file, seq, content) }
}

const decodeEvent = (file: string, seq: number, content: Buffer): CloudEvent => {
  try {
    return cloudEventSchema.parse(JSON.parse(content.toString()))
  } catch (thrown) {
    throw fault('log_unreadable', { file, because: `entry ${seq} is no event: ${reasonOf(thrown)}` }, thrown)
  }
}

export interface FramePlace {
  readonly gateway: GatewayId
  readonly stream: StreamName
  readonly epoch: Epoch
  readonly offset: Offset
}

const streamPrefix = ({ gateway, stream, epoch }: Omit<FramePlace, 'offset'>): Buffer =>
  Buffer.concat([Buffer.from(`${gateway}\0${stream}\0`, 'latin1'), Buffer.from(epoch, 'hex')])

export const indexKey = (place: FramePlace): Buffer => {
  const offset = Buffer.allocUnsafe(6)
  offset.writeUIntBE(place.offset, 0, 6)
  return Buffer.concat([streamPrefix(place), offset])
}

/** The seq of the entry that holds `place`, if this segment does. */
export const findInSegment = (store: Store, place: FramePlace): number | undefined => {
  const [row] = store.scan(INDEX, { from: indexKey(place), limit: 1, reverse: true })
  if (row === undefined) return undefined
  const prefix = streamPrefix(place)
  return row[0].subarray(0, prefix.length).equals(prefix) ? row[1].readUIntBE(0, 6) : undefined
}

export const markWrite = (mark: StoredMark): Write => {
  const value = Buffer.allocUnsafe(22)
  value.writeUIntBE(mark.offset, 0, 6)
  value.write(mark.chain, 6, 'hex')
  return { table: MARKS, key: streamPrefix(mark), value }
}

export const readMarks = (store: Store): StoredMark[] => {
  const marks: StoredMark[] = []
  const pageRows = 1_000
  for (let from: Buffer | undefined; ; ) {
    const rows = store.scan(MARKS, { limit: pageRows, ...(from === undefined ? {} : { from }) })
    for (const [key, value] of rows) {
      const [gateway, stream] = key.toString('latin1', 0, key.length - 8).split('\0')
      marks.push({
        gateway: gateway as GatewayId,
        stream: stream as StreamName,
        epoch: key.toString('hex', key.length - 8) as Epoch,
        offset: value.readUIntBE(0, 6) as Offset,
        chain: value.toString('hex', 6) as Chain,
      })
    }
    const last = rows.at(-1)
    if (last === undefined || rows.length < pageRows) return marks
    from = Buffer.concat([last[0], Buffer.of(0)])
  }
}
