// SenML as CBOR (RFC 8428, section 6): an array of maps with integer labels.
//
// Definite and indefinite lengths are read, tags passed over, decimal fractions understood. What is written
// has definite lengths, and of each number the shortest form that keeps its value.

import type { Parsed } from '../hello.ts'
import {
  type Cursor,
  readBoolean,
  readBytes,
  readElements,
  readHead,
  readNumber,
  readText,
  readTextBody,
  SenmlError,
  skipItem,
} from './items.ts'
import {
  checkPack,
  isMandatory,
  isNumberLabel,
  isTextLabel,
  PACK_BYTES_MAX,
  PACK_RECORDS_MAX,
  type SenmlDraft,
  type SenmlPack,
  type SenmlRecord,
} from './record.ts'

/** Table 4, in the order in which fields are written: that of the RFC's example. */
const LABELS = [
  ['bn', -2],
  ['bt', -3],
  ['bu', -4],
  ['bv', -5],
  ['bs', -6],
  ['bver', -1],
  ['n', 0],
  ['u', 1],
  ['t', 6],
  ['ut', 7],
  ['v', 2],
  ['vs', 3],
  ['vb', 4],
  ['vd', 8],
  ['s', 5],
] as const satisfies readonly (readonly [keyof SenmlRecord, number])[]

const labelOf: ReadonlyMap<number, string> = new Map(LABELS.map(([label, key]) => [key, label]))

/** Never throws. */
export const parseSenmlCbor = (payload: Uint8Array): Parsed<SenmlPack> => {
  if (payload.length > PACK_BYTES_MAX) {
    return { ok: false, because: `${payload.length} bytes, at most ${PACK_BYTES_MAX}` }
  }
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength)
  try {
    const pack = readPack({ bytes, at: 0 })
    const wrong = checkPack(pack)
    return wrong === undefined ? { ok: true, value: pack } : { ok: false, because: wrong }
  } catch (thrown) {
    if (thrown instanceof SenmlError) return { ok: false, because: thrown.message }
    throw thrown
  }
}

const readPack = (cursor: Cursor): SenmlPack => {
  const head = readHead(cursor)
  if (head.major !== 4) throw new SenmlError('not an array of records')
  const pack: SenmlRecord[] = []
  readElements(cursor, head, i => {
    if (i === PACK_RECORDS_MAX) throw new SenmlError(`more than ${PACK_RECORDS_MAX} records`)
    pack.push(readRecord(cursor, i))
  })
  if (cursor.at !== cursor.bytes.length) throw new SenmlError('bytes behind the pack')
  return pack
}

const readRecord = (cursor: Cursor, index: number): SenmlRecord => {
  const head = readHead(cursor)
  if (head.major !== 5) throw new SenmlError(`record ${index} is not a map`)
  const draft: SenmlDraft = {}
  readElements(cursor, head, () => {
    const label = readLabel(cursor, index)
    try {
      readField(cursor, label, draft)
    } catch (thrown) {
      if (thrown instanceof SenmlError)
        thrown.message = `record ${index}: ${label ?? 'a field'} is ${thrown.message}`
      throw thrown
    }
  })
  return draft
}

/**
 * Known labels are integers; text ones are of extensions, and undefined stands for any that may be passed
 * over.
 */
const readLabel = (cursor: Cursor, index: number): string | undefined => {
  const head = readHead(cursor)
  switch (head.major) {
    case 0:
      return labelOf.get(head.argument)
    case 1:
      return labelOf.get(-1 - head.argument)
    case 3: {
      const text = readTextBody(cursor, head)
      if (isMandatory(text)) {
        const shown = JSON.stringify(text.slice(0, 64))
        throw new SenmlError(`record ${index}: field ${shown} must be understood, and is not`)
      }
      return undefined
    }
    default:
      throw new SenmlError(`record ${index}: a label that is neither integer nor text`)
  }
}

const readField = (cursor: Cursor, label: string | undefined, draft: SenmlDraft): void => {
  if (label === undefined) skipItem(cursor)
  else if (isTextLabel(label)) draft[label] = readText(cursor)
  else if (isNumberLabel(label)) draft[label] = readNumber(cursor)
  else if (label === 'vb') draft.vb = readBoolean(cursor)
  else draft.vd = readBytes(cursor)
}

/** Records as one CBOR pack. */
export const encodeSenmlCbor = (records: SenmlPack): Buffer =>
  Buffer.concat([headOf(4, records.length), ...records.flatMap(recordParts)])

const recordParts = (record: SenmlRecord): Uint8Array[] => {
  const parts: Uint8Array[] = []
  let fields = 0
  for (const [label, key] of LABELS) {
    const value = record[label]
    if (value === undefined) continue
    fields += 1
    parts.push(integerOf(key), ...valueParts(value))
  }
  return [headOf(5, fields), ...parts]
}

const valueParts = (value: string | number | boolean | Uint8Array): readonly Uint8Array[] => {
  switch (typeof value) {
    case 'string': {
      const text = Buffer.from(value)
      return [headOf(3, text.length), text]
    }
    case 'number':
      return [Number.isSafeInteger(value) && !Object.is(value, -0) ? integerOf(value) : floatOf(value)]
    case 'boolean':
      return [Buffer.of(value ? 0xf5 : 0xf4)]
    default:
      return [headOf(2, value.length), value]
  }
}

const integerOf = (value: number): Buffer => (value < 0 ? headOf(1, -1 - value) : headOf(0, value))

const headOf = (major: number, argument: number): Buffer => {
  const top = major << 5
  if (argument < 24) return Buffer.of(top | argument)
  if (argument < 0x100) return Buffer.of(top | 24, argument)
  const head = Buffer.alloc(9)
  if (argument < 0x1_0000) {
    head[0] = top | 25
    return head.subarray(0, head.writeUInt16BE(argument, 1))
  }
  if (argument < 0x1_0000_0000) {
    head[0] = top | 26
    return head.subarray(0, head.writeUInt32BE(argument, 1))
  }
  head[0] = top | 27
  return head.subarray(0, head.writeBigUInt64BE(BigInt(argument), 1))
}

const floatOf = (value: number): Buffer => {
  const double = Buffer.alloc(9)
  double[0] = 0xfb
  double.writeDoubleBE(value, 1)
  if (Math.fround(value) !== value) return double
  const single = Buffer.alloc(5)
  single[0] = 0xfa
  single.writeFloatBE(value, 1)
  const bits = single.readUInt32BE(1)
  const exponent = ((bits >>> 23) & 255) - 127 + 15
  if ((bits & 0x1fff) !== 0 || exponent < 1 || exponent > 30) return single
  const half = ((bits >>> 16) & 0x8000) | (exponent << 10) | ((bits >>> 13) & 1023)
  return Buffer.of(0xf9, half >>> 8, half & 255)
}
