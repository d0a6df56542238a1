// The SenML pack that devices send most: one JSON record with a scalar value. Whatever else it is, is left to the
// full parser; what this accepts, the full parser reads the same way (a property test says so).

/** One object for all calls: read it before the next call. */
export interface Lean {
  name: string
  unit: string | undefined
  /** Milliseconds; relative below 2^28 s. */
  timeMs: number
  value: number | string | boolean
}

const lean: Lean = { name: '', unit: undefined, timeMs: 0, value: 0 }

/** Text of this length is cut by the view; the full path does that. */
const TEXT_CHARS_MAX = 256
/** A longer one is no single record as devices send it. */
const LEAN_BYTES_MAX = 1_024

interface Fields {
  readonly bn?: unknown
  readonly bt?: unknown
  readonly bu?: unknown
  readonly n?: unknown
  readonly u?: unknown
  readonly t?: unknown
  readonly v?: unknown
  readonly vs?: unknown
  readonly vb?: unknown
}
const KNOWN = 'bn bt bu n u t v vs vb'.split(' ')
const isKnown: Readonly<Record<string, true | undefined>> = Object.assign(
  Object.create(null),
  Object.fromEntries(KNOWN.map(label => [label, true])),
)

/** Undefined: not the common pack. The name is not checked for its characters. */
export const readLean = (payload: Buffer): Lean | undefined => {
  if (payload.length > LEAN_BYTES_MAX) return undefined
  let pack: unknown
  try {
    // Latin-1 is read several times faster; text with other characters in it is left to the full parser.
    pack = JSON.parse(payload.toString('latin1'))
  } catch {
    return undefined
  }
  if (!Array.isArray(pack) || pack.length !== 1) return undefined
  return fill(pack[0])
}

const fill = (record: Fields): Lean | undefined => {
  if (typeof record !== 'object' || record === null) return undefined
  let values = 0
  for (const label in record) {
    if (isKnown[label] === undefined) return undefined
    if (label.charCodeAt(0) === V) values += 1
  }
  if (values !== 1) return undefined
  const { bn = '', n = '', bt = 0, t = 0, bu, u = bu } = record
  if (typeof bn !== 'string' || typeof n !== 'string' || typeof bt !== 'number' || typeof t !== 'number')
    return undefined
  if (!Number.isFinite((bt + t) * 1_000) || !isText(bu) || !isText(u)) return undefined
  const value = record.v ?? record.vs ?? record.vb
  switch (typeof value) {
    case 'number':
      if (record.v === undefined || !Number.isFinite(value)) return undefined
      break
    case 'string':
      if (record.vs === undefined || value.length > TEXT_CHARS_MAX || !isAscii(value)) return undefined
      break
    case 'boolean':
      if (record.vb === undefined) return undefined
      break
    default:
      return undefined
  }
  lean.name = bn === '' ? n : bn + n
  lean.unit = u
  lean.timeMs = (bt + t) * 1_000
  lean.value = value
  return lean
}

const V = 'v'.charCodeAt(0)
const isText = (field: unknown): field is string | undefined =>
  field === undefined || (typeof field === 'string' && isAscii(field))
const isAscii = (text: string): boolean => {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 127) return false
  return true
}
