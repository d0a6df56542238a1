// Every setting of a program with its default, for `--help`: read from the schema, so that it cannot be out of date.

import { z } from 'zod'

interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly additionalProperties?: JsonSchema | boolean
  readonly items?: JsonSchema
  readonly default?: unknown
}

/** Lines of `key = default`; `<name>` stands for names that are free, `[]` for each of a list. */
export const settingsHelp = (schema: z.ZodType, prefix: 'EDGE' | 'CLOUD'): string => {
  const described = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as JsonSchema
  const keys = leaves(described, '').map(
    ({ key, by }) => `  ${by === undefined ? key : `${key} = ${JSON.stringify(by)}`}`,
  )
  return [
    '',
    'Settings, in TOML; those without a default are optional. A variable sets one as well: the key in upper case, as in',
    `${prefix}_LOG_LEVEL for log.level.`,
    '',
    ...keys,
  ].join('\n')
}

const leaves = (schema: JsonSchema, path: string): { key: string; by: unknown }[] => {
  const under = (name: string): string => (path === '' ? name : `${path}.${name}`)
  if (schema.properties !== undefined)
    return Object.entries(schema.properties).flatMap(([name, child]) => leaves(child, under(name)))
  if (typeof schema.additionalProperties === 'object')
    return leaves(schema.additionalProperties, under('<name>'))
  if (schema.items?.properties !== undefined) return leaves(schema.items, `${path}[]`)
  return [{ key: path, by: schema.default }]
}
