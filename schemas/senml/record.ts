// SenML (RFC 8428): what a record may hold, and the rules of a whole pack that types cannot say.
//
// A pack that passed `checkPack` resolves without any error: every name is legal, every sum finite, every
// record either has its value or sum, or only sets base fields. The last is against the letter of section 4.2
// and needed for the example of section 5.1.7.

export interface SenmlRecord {
  readonly bn?: string
  readonly bt?: number
  readonly bu?: string
  readonly bv?: number
  readonly bs?: number
  readonly bver?: number
  readonly n?: string
  readonly u?: string
  readonly v?: number
  readonly vs?: string
  readonly vb?: boolean
  readonly vd?: Uint8Array
  readonly s?: number
  readonly t?: number
  readonly ut?: number
}

export type SenmlPack = readonly SenmlRecord[]

/** The version that RFC 8428 defines, and the default. Lower ones are of its drafts, with the same fields. */
export const SENML_VERSION = 10
/** What one MQTT message may hold: as large as the largest record that an edge takes. */
export const PACK_BYTES_MAX = 1024 * 1024
/**
 * A pack unfolds into one resolved record each, about 100 bytes: bounds the work of one message to some 10
 * ms.
 */
export const PACK_RECORDS_MAX = 20_000
/** Base name and name together. Without it, a long base name would be repeated 20,000 times. */
export const NAME_CHARS_MAX = 1_024

/** What is wrong with the pack, in words; undefined when nothing is. Fields have their types already. */
export const checkPack = (pack: SenmlPack): string | undefined => {
  if (pack.length === 0) return 'a pack without records'
  if (pack.length > PACK_RECORDS_MAX) return `${pack.length} records, at most ${PACK_RECORDS_MAX}`
  const version = pack[0]?.bver ?? SENML_VERSION
  let baseName = ''
  let baseTime = 0
  let baseValue = 0
  let baseSum = 0
  for (let i = 0; i < pack.length; i++) {
    const record = pack[i]
    if (record === undefined) return `record ${i} is missing`
    if (record.bver !== undefined) {
      const wrong = checkVersion(record.bver, version)
      if (wrong !== undefined) return `record ${i}: ${wrong}`
    }
    if (record.bn !== undefined) {
      if (!hasLegalCharacters(record.bn))
        return `record ${i}: a base name with a character that is not allowed`
      baseName = record.bn
    }
    if (record.bt !== undefined) baseTime = record.bt
    if (record.bv !== undefined) baseValue = record.bv
    if (record.bs !== undefined) baseSum = record.bs

    const values = countValues(record)
    if (values > 1) return `record ${i} has ${values} values, exactly one is allowed`
    if (values === 0 && record.s === undefined) {
      if (setsOnlyBases(record)) continue
      return `record ${i} has neither a value nor a sum`
    }
    const wrong = checkName(baseName, record.n ?? '')
    if (wrong !== undefined) return `record ${i}: ${wrong}`
    if (!Number.isFinite(baseTime + (record.t ?? 0))) return `record ${i}: a time that is no number`
    if (!Number.isFinite(baseValue + (record.v ?? 0))) return `record ${i}: a value that is no number`
    if (!Number.isFinite(baseSum + (record.s ?? 0))) return `record ${i}: a sum that is no number`
  }
  return undefined
}

/** Section 4.4: one version for a pack, none above the reader's. */
const checkVersion = (found: number, version: number): string | undefined => {
  if (!Number.isInteger(found) || found < 1) return `version ${found} is no positive integer`
  if (found > SENML_VERSION) return `version ${found}, only ${SENML_VERSION} and below are understood`
  return found === version ? undefined : `version ${found} in a pack of version ${version}`
}

const countValues = ({ v, vs, vb, vd }: SenmlRecord): number =>
  (v === undefined ? 0 : 1) +
  (vs === undefined ? 0 : 1) +
  (vb === undefined ? 0 : 1) +
  (vd === undefined ? 0 : 1)

const setsOnlyBases = (record: SenmlRecord): boolean =>
  record.n === undefined &&
  record.u === undefined &&
  record.t === undefined &&
  record.ut === undefined &&
  (record.bn !== undefined ||
    record.bt !== undefined ||
    record.bu !== undefined ||
    record.bv !== undefined ||
    record.bs !== undefined ||
    record.bver !== undefined)

/** Section 4.5.1, on the parts: joining them for every record would cost more than the rest of the check. */
const checkName = (base: string, name: string): string | undefined => {
  if (!hasLegalCharacters(name)) return 'a name with a character that is not allowed'
  const length = base.length + name.length
  if (length === 0) return 'no name and no base name'
  if (length > NAME_CHARS_MAX) return `a name of ${length} characters, at most ${NAME_CHARS_MAX}`
  const first = base === '' ? name.charCodeAt(0) : base.charCodeAt(0)
  return LEGAL[first] === STARTS ? undefined : 'a name that does not start with a letter or digit'
}

const STARTS = 2
const LEGAL = new Uint8Array(128)
for (const character of '-:./_') LEGAL[character.charCodeAt(0)] = 1
for (const character of 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789') {
  LEGAL[character.charCodeAt(0)] = STARTS
}

const hasLegalCharacters = (text: string): boolean => {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code > 127 || LEGAL[code] === 0) return false
  }
  return true
}

/** The types of the fields, by label. */
export const TEXT_LABELS = ['bn', 'bu', 'n', 'u', 'vs'] as const
export const NUMBER_LABELS = ['bt', 'bv', 'bs', 'bver', 'v', 's', 't', 'ut'] as const
/** A record while it is being read. */
export type SenmlDraft = { -readonly [Label in keyof SenmlRecord]: SenmlRecord[Label] }

const texts: ReadonlySet<string> = new Set(TEXT_LABELS)
const numbers: ReadonlySet<string> = new Set(NUMBER_LABELS)
export const isTextLabel = (label: string): label is (typeof TEXT_LABELS)[number] => texts.has(label)
export const isNumberLabel = (label: string): label is (typeof NUMBER_LABELS)[number] => numbers.has(label)
/** Section 4.4: what must be understood and is not; any other unknown field is passed over. */
export const isMandatory = (label: string): boolean => label.endsWith('_')
