// What a consumer received, checked against what the producers were told: by the numbers inside the payloads.
//
// Reads digits where `senmlPayload` puts them: JSON.parse would slow the consumer, and with it the rival.

import { senmlPayload } from '../harness/generator.ts'

export interface Tally {
  /** One message, whose payload begins at `at`. */
  take(bytes: Buffer, at: number): void
  /** The consumer is gone: `received` throws this from now on. */
  fail(cause: Error): void
  /** Distinct messages of all producers. */
  received(): number
  /** When the newest message came, as performance.now(); NaN before the first. */
  lastAtMs(): number
  /** When the first came since this was asked for. */
  nextAtMs(): Promise<number>
  /** `acknowledged[p]`: producer `first + p` was told that its messages 0…n−1 were taken. */
  audit(first: number, acknowledged: readonly number[]): Audited
}

export interface Audited {
  readonly lost: number
  readonly duplicated: number
  readonly disordered: number
}

interface Seen {
  marks: Uint8Array
  last: number
  duplicated: number
  disordered: number
}

const SAMPLE = senmlPayload(0, 0)
const PRODUCER_AT = SAMPLE.indexOf('fffe80') + 6
const PRODUCER_DIGITS = 4
const SEQUENCE_KEY = Buffer.from('"t":')
const SEQUENCE_AT = SAMPLE.indexOf(SEQUENCE_KEY) + SEQUENCE_KEY.length
const SEQUENCE_DIGITS = 10

const digits = (bytes: Buffer, at: number, count: number): number => {
  let value = 0
  for (let i = at; i < at + count; i++) {
    const digit = (bytes[i] ?? 0) - 48
    if (digit < 0 || digit > 9)
      throw new Error(`not a message of this bench: ${bytes.toString('latin1', i - 60, i + 60)}`)
    value = value * 10 + digit
  }
  return value
}
const SEQUENCE_BASE = digits(SAMPLE, SEQUENCE_AT, SEQUENCE_DIGITS)

const roomFor = (marks: Uint8Array, index: number): Uint8Array => {
  if (index < marks.length) return marks
  const grown = new Uint8Array(Math.max(index + 1, marks.length * 2))
  grown.set(marks)
  return grown
}

export const openTally = (): Tally => {
  const producers = new Map<number, Seen>()
  let received = 0
  let lastAtMs = Number.NaN
  let failure: Error | undefined
  let waiting: ((atMs: number) => void)[] = []
  const seenOf = (producer: number): Seen => {
    const known = producers.get(producer)
    if (known !== undefined) return known
    const fresh = { marks: new Uint8Array(1_024), last: -1, duplicated: 0, disordered: 0 }
    producers.set(producer, fresh)
    return fresh
  }
  return {
    fail: cause => {
      failure = cause
    },
    received: () => {
      if (failure !== undefined) throw failure
      return received
    },
    lastAtMs: () => lastAtMs,
    nextAtMs: () => new Promise(resolve => waiting.push(resolve)),
    take: (bytes, at) => {
      const seen = seenOf(digits(bytes, at + PRODUCER_AT, PRODUCER_DIGITS))
      const sequence = digits(bytes, at + SEQUENCE_AT, SEQUENCE_DIGITS) - SEQUENCE_BASE
      seen.marks = roomFor(seen.marks, sequence)
      if (seen.marks[sequence] === 1) seen.duplicated += 1
      else {
        if (sequence < seen.last) seen.disordered += 1
        received += 1
      }
      seen.marks[sequence] = 1
      seen.last = Math.max(seen.last, sequence)
      lastAtMs = performance.now()
      if (waiting.length > 0) {
        for (const resolve of waiting) resolve(lastAtMs)
        waiting = []
      }
    },
    audit: (first, acknowledged) => {
      const audited = { lost: 0, duplicated: 0, disordered: 0 }
      for (const [index, count] of acknowledged.entries()) {
        const { marks, duplicated, disordered } = seenOf(first + index)
        for (let sequence = 0; sequence < count; sequence++) audited.lost += marks[sequence] === 1 ? 0 : 1
        audited.duplicated += duplicated
        audited.disordered += disordered
      }
      return audited
    },
  }
}
