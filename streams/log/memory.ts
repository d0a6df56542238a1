// A store held in memory: the twin that logs are tested and simulated against.

import { defer, of } from 'rxjs'
import type { Row, Scan, Store, Write } from './store.ts'

/** Durable for as long as the object lives. `rows` may be handed on to a next store, as a disk is to a next process. */
export const memoryStore = (rows: Map<string, Row[]> = new Map()): Store => {
  const table = (name: string): Row[] => {
    const known = rows.get(name)
    if (known !== undefined) return known
    const made: Row[] = []
    rows.set(name, made)
    return made
  }

  const apply = ({ table: name, key, value }: Write): void => {
    const sorted = table(name)
    const at = lowerBound(sorted, key)
    const taken = sorted[at]?.[0].equals(key) ? 1 : 0
    // Copies: a caller may reuse its buffers once the commit is done.
    if (value === undefined) sorted.splice(at, taken)
    else sorted.splice(at, taken, [Buffer.from(key), Buffer.from(value)])
  }

  const scan = (name: string, wanted: Scan): Row[] => upTo(rowsOf(name, wanted), wanted.bytesMax)

  const rowsOf = (name: string, { from, limit, reverse }: Scan): Row[] => {
    const sorted = table(name)
    if (!reverse) {
      const start = from === undefined ? 0 : lowerBound(sorted, from)
      return sorted.slice(start, start + limit)
    }
    let end = from === undefined ? sorted.length : lowerBound(sorted, from)
    if (from !== undefined && sorted[end]?.[0].equals(from)) end += 1
    return sorted.slice(Math.max(0, end - limit), end).reverse()
  }

  const tableBytes = (name: string): number => table(name).reduce((sum, [, value]) => sum + value.length, 0)

  return {
    file: 'memory',
    commit: writes =>
      defer(() => {
        writes.forEach(apply)
        return of(undefined)
      }),
    read: (name, key) => {
      const sorted = table(name)
      const row = sorted[lowerBound(sorted, key)]
      return row?.[0].equals(key) ? row[1] : undefined
    },
    scan,
    allocatedBytes: () => [...rows.keys()].reduce((sum, name) => sum + tableBytes(name), 0),
    tableBytes,
    freeBytes: () => Number.POSITIVE_INFINITY,
    close: () => of(undefined),
  }
}

const upTo = (found: Row[], bytesMax = Number.POSITIVE_INFINITY): Row[] => {
  let bytes = 0
  const end = found.findIndex(([, value]) => {
    bytes += value.length
    return bytes >= bytesMax
  })
  return end < 0 ? found : found.slice(0, end + 1)
}

/** Index of the first row whose key is not below `key`. */
const lowerBound = (sorted: readonly Row[], key: Buffer): number => {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const row = sorted[middle]
    if (row !== undefined && row[0].compare(key) < 0) low = middle + 1
    else high = middle
  }
  return low
}
