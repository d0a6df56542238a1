// On which line of a TOML text a key stands, for error messages. It reads headers and the starts of lines
// only: a key inside an inline table is placed on the line of the nearest key around it.

export type Path = readonly PropertyKey[]

/**
 * Line, counted from 1, of the key or of what encloses it; undefined for a key of the top level that is not
 * there.
 */
export const lineOf = (text: string, path: Path): number | undefined => {
  const lines = keyLines(text)
  for (let length = path.length; length > 0; length--) {
    const line = lines.get(joined(path.slice(0, length)))
    if (line !== undefined) return line
  }
  return undefined
}

const joined = (path: Path): string => path.map(String).join('\0')

const KEY = `(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')`
const DOTTED = String.raw`${KEY}(?:\s*\.\s*${KEY})*`
const TABLE = new RegExp(String.raw`^\s*\[\s*(${DOTTED})\s*\]`)
const TABLE_ARRAY = new RegExp(String.raw`^\s*\[\[\s*(${DOTTED})\s*\]\]`)
const PAIR = new RegExp(String.raw`^\s*(${DOTTED})\s*=`)
const LONG_QUOTE = /"""|'''/g

const keysOf = (dotted: string): string[] =>
  [...dotted.matchAll(new RegExp(KEY, 'g'))].map(([key]) => (/^["']/.test(key) ? key.slice(1, -1) : key))

const keyLines = (text: string): Map<string, number> => {
  const lines = new Map<string, number>()
  const counts = new Map<string, number>()
  /** A table of an array lies under the index of the last [[header]]. */
  const placed = (keys: readonly string[]): string[] => {
    const path: string[] = []
    for (const key of keys) {
      path.push(key)
      const count = counts.get(joined(path))
      if (count !== undefined) path.push(String(count - 1))
    }
    return path
  }
  const note = (path: readonly string[], line: number) => {
    for (let length = path.length; length > 0; length--) {
      const name = joined(path.slice(0, length))
      if (!lines.has(name)) lines.set(name, line)
    }
  }
  let table: string[] = []
  let inText = false
  for (const [i, line] of text.split('\n').entries()) {
    const startsInText = inText
    if ((line.match(LONG_QUOTE)?.length ?? 0) % 2 === 1) inText = !inText
    if (startsInText) continue
    const arrayName = TABLE_ARRAY.exec(line)?.[1]
    const tableName = TABLE.exec(line)?.[1]
    const key = PAIR.exec(line)?.[1]
    if (arrayName !== undefined) {
      const keys = keysOf(arrayName)
      const array = [...placed(keys.slice(0, -1)), ...keys.slice(-1)]
      const count = (counts.get(joined(array)) ?? 0) + 1
      counts.set(joined(array), count)
      table = [...array, String(count - 1)]
      note(table, i + 1)
    } else if (tableName !== undefined) {
      table = placed(keysOf(tableName))
      note(table, i + 1)
    } else if (key !== undefined) {
      note([...table, ...keysOf(key)], i + 1)
    }
  }
  return lines
}
