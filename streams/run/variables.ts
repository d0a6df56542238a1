// Which setting an environment variable stands for, by the schema of the settings.
//
// export.windowBytesMax is EDGE_EXPORT_WINDOW_BYTES_MAX: every key of the path in upper snake case, joined by
// `_`. Where tables have free names (streams.<name>), the name is one that the file has, or else the shortest
// for which the rest is a key; it is written in lower case with dashes: EDGE_STREAMS_SLOW_DATA_MAX_BYTES is
// streams.slow-data.maxBytes. Lists are given as TOML: EDGE_TOPICS='["a", "b"]'.

import { parse } from 'smol-toml'
import { z } from 'zod'

type Schema = z.core.$ZodType

export interface Setting {
  readonly path: readonly string[]
  /** The text as the type that the schema wants there; the text itself where that is not possible. */
  readonly value: unknown
}

export const upperSnake = (key: string): string =>
  key
    .replaceAll(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replaceAll('-', '_')
    .toUpperCase()

/** What is inside defaults, optionals and transforms. */
const coreOf = (schema: Schema): Schema => {
  if (schema instanceof z.ZodPipe) return coreOf(schema.in)
  if (schema instanceof z.ZodLazy) return coreOf(schema.unwrap())
  if (
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault ||
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodReadonly ||
    schema instanceof z.ZodCatch
  ) {
    return coreOf(schema.unwrap())
  }
  return schema
}

/** Keys of the table at `path`, for suggestions; none where names are free. */
export const keysAt = (schema: Schema, path: readonly PropertyKey[]): readonly string[] => {
  const core = coreOf(schema)
  const [key, ...rest] = path
  if (core instanceof z.ZodUnion) return core.options.flatMap(option => keysAt(option, path))
  if (core instanceof z.ZodObject) {
    if (key === undefined) return Object.keys(core.shape)
    const child = core.shape[String(key)]
    return child === undefined ? [] : keysAt(child, rest)
  }
  if (key === undefined) return []
  if (core instanceof z.ZodRecord) return keysAt(core.valueType, rest)
  return core instanceof z.ZodArray ? keysAt(core.element, rest) : []
}

/** The setting that a variable, without its prefix, stands for. `present` is what the file has. */
export const settingOf = (
  schema: Schema,
  name: string,
  text: string,
  present: unknown,
): Setting | undefined => {
  const core = coreOf(schema)
  if (core instanceof z.ZodUnion)
    return firstOf(core.options, option => settingOf(option, name, text, present))
  if (core instanceof z.ZodObject) {
    // The longest key first: `windowBytes` is not the key `bytes` of a table `window`.
    const keys = Object.keys(core.shape).toSorted((one, other) => other.length - one.length)
    return firstOf(keys, key => under(core.shape[key], key, name, text, present))
  }
  if (core instanceof z.ZodRecord) {
    return (
      firstOf(keysOf(present), key => under(core.valueType, key, name, text, present)) ??
      firstOf(namesIn(name), key => under(core.valueType, key, name, text, present))
    )
  }
  return undefined
}

const under = (
  schema: Schema | undefined,
  key: string,
  name: string,
  text: string,
  present: unknown,
): Setting | undefined => {
  if (schema === undefined) return undefined
  const start = upperSnake(key)
  if (name === start) return isTable(schema) ? undefined : { path: [key], value: coerced(schema, text) }
  if (!name.startsWith(`${start}_`)) return undefined
  const found = settingOf(schema, name.slice(start.length + 1), text, fieldOf(present, key))
  return found === undefined ? undefined : { path: [key, ...found.path], value: found.value }
}

const isTable = (schema: Schema): boolean => {
  const core = coreOf(schema)
  return core instanceof z.ZodObject || core instanceof z.ZodRecord
}

/** A_B_C may be the name a, a-b or a-b-c. */
const namesIn = (name: string): string[] => {
  const words = name.toLowerCase().split('_')
  return words.map((_, i) => words.slice(0, i + 1).join('-'))
}

const keysOf = (value: unknown): string[] =>
  typeof value === 'object' && value !== null ? Object.keys(value) : []
const fieldOf = (value: unknown, key: string): unknown =>
  typeof value === 'object' && value !== null ? new Map(Object.entries(value)).get(key) : undefined

const firstOf = <T, R>(items: readonly T[], find: (item: T) => R | undefined): R | undefined => {
  for (const item of items) {
    const found = find(item)
    if (found !== undefined) return found
  }
  return undefined
}

const coerced = (schema: Schema, text: string): unknown => {
  const core = coreOf(schema)
  if (core instanceof z.ZodNumber) return numberOf(text)
  if (core instanceof z.ZodBoolean) return text === 'true' ? true : text === 'false' ? false : text
  if (core instanceof z.ZodLiteral) return [...core.values].find(value => String(value) === text) ?? text
  if (core instanceof z.ZodArray) return tomlOf(text)
  if (core instanceof z.ZodUnion) {
    return core.options.map(option => coerced(option, text)).find(value => typeof value !== 'string') ?? text
  }
  return text
}

/** As in TOML, 1_000_000 is a number. */
const numberOf = (text: string): unknown => {
  const value = Number(text.replaceAll(/(?<=\d)_(?=\d)/g, ''))
  return text.trim() !== '' && Number.isFinite(value) ? value : text
}

const tomlOf = (text: string): unknown => {
  try {
    const { value } = parse(`value = ${text}`)
    return value
  } catch {
    return text
  }
}

/** Every variable whose name is fixed, without prefix, for suggestions. */
export const variablesOf = (schema: Schema): string[] => {
  const core = coreOf(schema)
  if (core instanceof z.ZodUnion) return core.options.flatMap(variablesOf)
  if (!(core instanceof z.ZodObject)) return []
  return Object.entries(core.shape).flatMap(([key, child]) => {
    const inner = coreOf(child)
    if (inner instanceof z.ZodRecord) return []
    const names = variablesOf(child).map(rest => `${upperSnake(key)}_${rest}`)
    return inner instanceof z.ZodObject ? names : [upperSnake(key), ...names]
  })
}
