// The body of a frame: records laid out by column, so that it compresses well and can be read in one pass.
//
//   u16 topics, then each: u16 length, UTF-8
//   count × u16  topic index
//   count × u8   bits 0-1 QoS, bit 2 retain
//   count × u32  milliseconds between the previous record's receipt and this one's (the first: 0)
//   count × u32  payload length
//   payloads, end to end, untouched
//
// The last record was received `lastReceivedBeforeSealMs` before sealing: the first u32 of the body.

import type { EpochMs } from './ids.ts'

export type Qos = 0 | 1 | 2

/** What ingest took from a device or another concern. */
export interface TakenRecord {
  readonly topic: string
  readonly payload: Uint8Array
  readonly qos: Qos
  readonly retain: boolean
  /** Monotonic milliseconds since the program's or machine's start. */
  readonly receivedMonoMs: number
}

/** A record as read back from a frame. */
export interface SealedRecord {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: Qos
  readonly retain: boolean
  /** Wall time by the clock that was valid at sealing. */
  readonly receivedAtMs: EpochMs
}

const PER_RECORD = 2 + 1 + 4 + 4
const U32_MAX = 0xffff_ffff

/** Bytes of `records` laid out as a body, before compression. */
export const bodyBytes = (records: readonly TakenRecord[]): number => {
  const topics = new Set<string>()
  let bytes = 4 + 2 + records.length * PER_RECORD
  for (const { topic, payload } of records) {
    bytes += payload.length
    if (topics.has(topic)) continue
    topics.add(topic)
    bytes += 2 + Buffer.byteLength(topic)
  }
  return bytes
}

/** Writes a body for `records` (at most 65,535, in the order of receipt), sealed at `sealedMonoMs`. */
export const writeBody = (records: readonly TakenRecord[], sealedMonoMs: number): Buffer => {
  const out = Buffer.allocUnsafe(bodyBytes(records))
  const last = records.at(-1)
  out.writeUInt32LE(last === undefined ? 0 : elapsed(last.receivedMonoMs, sealedMonoMs), 0)
  const indexes = new Map<string, number>()
  let at = 6
  let lastTopic: string | undefined
  let lastIndex = 0
  const topicIndexes = new Uint16Array(records.length)
  for (const [i, { topic }] of records.entries()) {
    if (topic !== lastTopic) {
      const known = indexes.get(topic)
      lastIndex = known ?? indexes.size
      lastTopic = topic
      if (known === undefined) {
        indexes.set(topic, lastIndex)
        const bytes = out.write(topic, at + 2)
        out.writeUInt16LE(bytes, at)
        at += 2 + bytes
      }
    }
    topicIndexes[i] = lastIndex
  }
  out.writeUInt16LE(indexes.size, 4)
  const count = records.length
  let topicAt = at
  let flagsAt = topicAt + count * 2
  let elapsedAt = flagsAt + count
  let lengthAt = elapsedAt + count * 4
  let payloadAt = lengthAt + count * 4
  let previousMs = records[0]?.receivedMonoMs ?? 0
  for (const [i, { payload, qos, retain, receivedMonoMs }] of records.entries()) {
    const index = topicIndexes[i] ?? 0
    out[topicAt] = index & 0xff
    out[topicAt + 1] = index >>> 8
    out[flagsAt] = qos | (retain ? 4 : 0)
    const ms = elapsed(previousMs, receivedMonoMs)
    if (ms === 0) out.fill(0, elapsedAt, elapsedAt + 4)
    else out.writeUInt32LE(ms, elapsedAt)
    out.writeUInt32LE(payload.length, lengthAt)
    out.set(payload, payloadAt)
    previousMs = Math.max(previousMs, receivedMonoMs)
    topicAt += 2
    flagsAt += 1
    elapsedAt += 4
    lengthAt += 4
    payloadAt += payload.length
  }
  return out
}

const elapsed = (fromMs: number, toMs: number): number =>
  Math.min(U32_MAX, Math.max(0, Math.round(toMs - fromMs)))

export interface BodyContext {
  readonly count: number
  readonly sealedAtMs: EpochMs
}

/** Reads a whole body. Throws RangeError when it is cut short, overlong or inconsistent. */
export const readBody = (body: Buffer, { count, sealedAtMs }: BodyContext): SealedRecord[] => {
  const topics: string[] = []
  let at = 6
  for (let left = body.readUInt16LE(4); left > 0; left--) {
    const length = body.readUInt16LE(at)
    if (at + 2 + length > body.length) throw new RangeError('topic beyond the end')
    topics.push(body.toString('utf8', at + 2, at + 2 + length))
    at += 2 + length
  }
  const topicsEnd = at
  const flagsStart = topicsEnd + count * 2
  const elapsedStart = flagsStart + count
  const lengthStart = elapsedStart + count * 4
  let payloadAt = lengthStart + count * 4
  if (payloadAt > body.length) throw new RangeError('columns beyond the end')

  let totalMs = 0
  for (let i = 1; i < count; i++) totalMs += body.readUInt32LE(elapsedStart + i * 4)
  let receivedAtMs = sealedAtMs - body.readUInt32LE(0) - totalMs

  const records: SealedRecord[] = new Array(count)
  for (let i = 0; i < count; i++) {
    const topic = topics[body.readUInt16LE(topicsEnd + i * 2)]
    if (topic === undefined) throw new RangeError('topic index beyond the dictionary')
    const flags = body[flagsStart + i] ?? 0
    const length = body.readUInt32LE(lengthStart + i * 4)
    if (payloadAt + length > body.length) throw new RangeError('payload beyond the end')
    if (i > 0) receivedAtMs += body.readUInt32LE(elapsedStart + i * 4)
    records[i] = {
      topic,
      payload: body.subarray(payloadAt, payloadAt + length),
      qos: qosOf(flags & 3),
      retain: (flags & 4) !== 0,
      receivedAtMs,
    }
    payloadAt += length
  }
  if (payloadAt !== body.length) throw new RangeError('bytes behind the last payload')
  return records
}

const qosOf = (bits: number): Qos => {
  if (bits === 0 || bits === 1 || bits === 2) return bits
  throw new RangeError(`QoS ${bits}`)
}
