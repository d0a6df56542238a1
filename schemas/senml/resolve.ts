// SenML from bytes to facts: parse either form, then apply the base fields (RFC 8428, section 4.6).
//
// Resolved records stand for themselves: full name, absolute time, in chronological order.

import type { Parsed } from '../hello.ts'
import { parseSenmlCbor } from './cbor.ts'
import { parseSenmlJson } from './json.ts'
import type { SenmlPack } from './record.ts'

export interface ResolvedRecord {
  readonly name: string
  readonly unit: string | undefined
  /** Seconds since 1970-01-01 UTC, with fractions. */
  readonly time: number
  /** Undefined where the record has a sum only. */
  readonly value: number | string | boolean | Uint8Array | undefined
  /** Integral of the value over time, in unit × seconds. */
  readonly sum: number | undefined
  /** Seconds within which the next reading is promised. */
  readonly updateTime: number | undefined
}

/** Section 4.5.3: below this a time is relative to now, from here on it is absolute. */
export const RELATIVE_BELOW_S = 2 ** 28

/** Reads a pack in the given format, or the one its first byte tells. Never throws. */
export const parseSenml = (payload: Uint8Array, format?: 'json' | 'cbor'): Parsed<SenmlPack> => {
  switch (format ?? formatOf(payload)) {
    case 'json':
      return parseSenmlJson(payload)
    case 'cbor':
      return parseSenmlCbor(payload)
    default:
      return { ok: false, because: 'neither a JSON nor a CBOR array' }
  }
}

/** Undefined when it can be neither: most payloads that are no SenML cost no more than this look. */
export const formatOf = (payload: Uint8Array): 'json' | 'cbor' | undefined => {
  let at = 0
  while (isSpace(payload[at])) at += 1
  if (payload[at] === OPENING_BRACKET) return 'json'
  const first = payload[0] ?? 0
  const major = first >>> 5
  return major === 4 || (major === 6 && first <= LAST_TAG) ? 'cbor' : undefined
}

const OPENING_BRACKET = 0x5b
const LAST_TAG = 0xdb
const isSpace = (byte: number | undefined): boolean =>
  byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09

/**
 * Applies the base fields of a pack that `parseSenml` returned. `nowMs`: what relative times relate to, usually
 * when the pack was received. A record that only sets base fields gives none.
 */
export const resolveSenml = (pack: SenmlPack, nowMs: number): ResolvedRecord[] => {
  const nowS = nowMs / 1_000
  const resolved: ResolvedRecord[] = []
  let baseName = ''
  let baseUnit: string | undefined
  let baseTime = 0
  let baseValue = 0
  let baseSum: number | undefined
  let ordered = true
  let newest = Number.NEGATIVE_INFINITY
  for (const record of pack) {
    if (record.bn !== undefined) baseName = record.bn
    if (record.bu !== undefined) baseUnit = record.bu
    if (record.bt !== undefined) baseTime = record.bt
    if (record.bv !== undefined) baseValue = record.bv
    if (record.bs !== undefined) baseSum = record.bs
    const { n, u, v, s, t } = record
    const value = v === undefined ? (record.vs ?? record.vb ?? record.vd) : baseValue + v
    if (value === undefined && s === undefined) continue

    const given = t === undefined ? baseTime : baseTime + t
    const time = given < RELATIVE_BELOW_S ? nowS + given : given
    if (time < newest) ordered = false
    newest = time
    resolved.push({
      name: n === undefined ? baseName : baseName + n,
      unit: u ?? baseUnit,
      time,
      value,
      sum: s === undefined ? baseSum : (baseSum ?? 0) + s,
      updateTime: record.ut,
    })
  }
  return ordered ? resolved : resolved.sort((one, other) => one.time - other.time)
}
