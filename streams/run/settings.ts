// The configuration of a program: a TOML text, environment variables over it, checked by a schema.
//
// Pure: file and environment are handed in. Whatever is wrong is one fault that names the file, every wrong
// key with its line or variable, and what mends it. An unknown key or variable is an error: a typing mistake
// must not leave a default in force.

import { parse, TomlError, type TomlTable } from 'smol-toml'
import type { z } from 'zod'
import { fault } from './fault.ts'
import { nearest } from './nearest.ts'
import { lineOf } from './toml-lines.ts'
import { keysAt, settingOf, upperSnake, variablesOf } from './variables.ts'

export interface SettingsSource<T> {
  /** Where the text came from, for messages. */
  readonly file: string
  /** Undefined: no file, every setting has its default or comes from the environment. */
  readonly text: string | undefined
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly prefix: 'EDGE' | 'CLOUD'
  /** Strict objects; tables with defaults inside carry `.prefault({})`. */
  readonly schema: z.ZodType<T>
  /** Variables with this prefix that the program reads itself, such as EDGE_CONFIG. */
  readonly reserved?: readonly string[]
}

/** Errors: config_invalid. How variables are named: variables.ts. */
export const loadSettings = <T>(source: SettingsSource<T>): T => {
  const { file, text = '', schema } = source
  const table = parseToml(file, text)
  const { problems, setBy } = override(table, source)
  const parsed = schema.safeParse(table)
  if (!parsed.success) {
    for (const issue of parsed.error.issues) problems.push(...describe(issue, text, schema, setBy))
  }
  if (!parsed.success || problems.length > 0)
    throw fault('config_invalid', { file, because: listed(problems) })
  return parsed.data
}

const listed = (problems: readonly string[]): string =>
  problems.length === 1 ? (problems[0] ?? '') : problems.map(problem => `\n  ${problem}`).join('')

const parseToml = (file: string, text: string): TomlTable => {
  try {
    return parse(text)
  } catch (thrown) {
    if (!(thrown instanceof TomlError)) throw thrown
    const [what = 'not TOML'] = thrown.message.replace('Invalid TOML document: ', '').split('\n')
    const because = `line ${thrown.line}, column ${thrown.column}: ${what}: correct this line`
    throw fault('config_invalid', { file, because }, thrown)
  }
}

/** Puts variables into the table. `setBy`: the variable behind a key, by the key's dotted name. */
const override = <T>(table: TomlTable, { environment, prefix, schema, reserved = [] }: SettingsSource<T>) => {
  const problems: string[] = []
  const setBy = new Map<string, string>()
  for (const [variable, text] of Object.entries(environment)) {
    if (text === undefined || !variable.startsWith(`${prefix}_`) || reserved.includes(variable)) continue
    const setting = settingOf(schema, variable.slice(prefix.length + 1), text, table)
    if (setting === undefined) {
      // CLOUD_SDK_VERSION is somebody else's; CLOUD_API_PROT is a mistake.
      if (!belongsHere(schema, variable.slice(prefix.length + 1))) continue
      const names = [...variablesOf(schema).map(name => `${prefix}_${name}`), ...reserved]
      problems.push(
        `environment variable ${variable} is no setting: ${meant(nearest(variable, names), 'unset it')}`,
      )
    } else if (!put(table, setting.path, setting.value)) {
      problems.push(
        `environment variable ${variable}: ${dotted(setting.path.slice(0, -1))} is no table in the file`,
      )
    } else {
      setBy.set(dotted(setting.path), variable)
    }
  }
  return { problems, setBy }
}

/** Its first word is one of our tables or settings. */
const belongsHere = (schema: z.ZodType, name: string): boolean =>
  keysAt(schema, []).some(key => name === upperSnake(key) || name.startsWith(`${upperSnake(key)}_`))

const isTable = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const put = (table: Record<string, unknown>, [key, ...rest]: readonly string[], value: unknown): boolean => {
  if (key === undefined) return false
  if (rest.length === 0) {
    table[key] = value
    return true
  }
  const inner = table[key] ?? {}
  table[key] = inner
  return isTable(inner) && put(inner, rest, value)
}

const describe = (
  issue: z.core.$ZodIssue,
  text: string,
  schema: z.ZodType,
  setBy: ReadonlyMap<string, string>,
): string[] => {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map(key => {
      const path = [...issue.path, key]
      const known = keysAt(schema, issue.path)
      const mend = meant(
        nearest(key, known),
        known.length === 0 ? 'remove it' : `known here: ${known.join(', ')}`,
      )
      return `${placeOf(path, text, setBy)}unknown key "${dotted(path)}": ${mend}`
    })
  }
  const what = issue.message.replace(/^Invalid input: /, '')
  const missing = issue.code === 'invalid_type' && /received undefined$/.test(issue.message)
  const key = dotted(issue.path)
  if (missing) return [`"${key}" is missing: set it (${what.replace(/, received undefined$/, '')})`]
  return [`${placeOf(issue.path, text, setBy)}"${key}": ${what}`]
}

const dotted = (path: readonly PropertyKey[]): string => path.map(String).join('.')

const placeOf = (path: readonly PropertyKey[], text: string, setBy: ReadonlyMap<string, string>): string => {
  const variable = setBy.get(dotted(path))
  if (variable !== undefined) return `environment variable ${variable}: `
  const line = lineOf(text, path)
  return line === undefined ? '' : `line ${line}: `
}

const meant = (name: string | undefined, otherwise: string): string =>
  name === undefined ? otherwise : `did you mean ${name}?`
