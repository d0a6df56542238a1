// A projection with its state, as the fold runner holds it: the state's type stays inside.
//
// A key is dirty from its change until `takeWrites`, which hands over its value as it is then: what changes later
// belongs to the next commit. A member serves one run of a fold; the next run loads a new one.

import type { CloudEntry, LogClass } from '../log/cloudlog.ts'
import type { Write } from '../log/store.ts'
import type { Projection, View } from './projection.ts'

/** LMDB takes keys of 1,978 bytes at a page size of 4 KB. */
export const KEY_BYTES_MAX = 1_900

export interface Member {
  readonly name: string
  readonly version: number
  readonly classes: Projection<never>['classes']
  readonly size: number
  apply(page: readonly CloudEntry[], logClass: LogClass): void
  /** Puts back what was stored; not dirty. */
  load(key: Buffer, value: Buffer): void
  /** The keys changed since the last call, as writes to the table named after the projection. */
  takeWrites(): Write[]
}

export interface Mounted<V> extends Member {
  readonly view: View<V>
}

export const mount = <V>(projection: Projection<V>): Mounted<V> => {
  const { name, version, classes } = projection
  const values = new Map<string, V>()
  const dirty = new Set<string>()

  const view: View<V> = {
    get size() {
      return values.size
    },
    get: key => values.get(key),
    set: (key, value) => {
      values.set(key, value)
      dirty.add(key)
    },
    touch: key => {
      dirty.add(key)
    },
    delete: key => {
      if (values.delete(key)) dirty.add(key)
    },
    *keys(prefix) {
      for (const key of values.keys()) if (key.startsWith(prefix)) yield key
    },
  }

  const writeOf = (key: string): Write => {
    const bytes = Buffer.from(key)
    if (bytes.length === 0 || bytes.length > KEY_BYTES_MAX || bytes[0] === 0) {
      throw new RangeError(`projection ${name}: a key of ${bytes.length} bytes, or one that starts with NUL`)
    }
    const value = values.get(key)
    return {
      table: name,
      key: bytes,
      value: value === undefined ? undefined : Buffer.from(JSON.stringify(value)),
    }
  }

  return {
    name,
    version,
    classes,
    get size() {
      return values.size
    },
    view,
    apply: (page, logClass) => projection.apply(view, page, logClass),
    // The bytes are our own, of this version: parsed, not checked again.
    load: (key, value) => {
      values.set(key.toString(), JSON.parse(value.toString()))
    },
    takeWrites: () => {
      const writes = Array.from(dirty, writeOf)
      dirty.clear()
      return writes
    },
  }
}
