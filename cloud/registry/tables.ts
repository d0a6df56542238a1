// The registry's LMDB file: tables, and atomic, durable writes to them. Several processes may have it open.
//
// In a transaction everything is decided before the first put: lmdb commits what was put before a throw.

import { dirname } from 'node:path'
import { type Key, open, type RootDatabase } from 'lmdb'
import { catchError, defer, from, mergeMap, type Observable, throwError } from 'rxjs'
import { z } from 'zod'
import {
  type GatewayRecord,
  gatewayRecordSchema,
  type RegistryEntry,
  registryEntrySchema,
} from '../../schemas/registry.ts'
import { commitFault, requireLmdbFile } from '../../streams/log/lmdbfile.ts'
import { fault, isFault, reasonOf } from '../../streams/run/fault.ts'

const FORMAT = 1
/** Address space, not disk: a hundred thousand gateways with their events of some years. */
const MAP_BYTES = 1024 ** 3

/** What a token's hash leads to; the certificate is kept so that a lost reply can be repeated. */
const tokenRowSchema = z.strictObject({ gateway: z.string(), certificate: z.string().optional() })
export type TokenRow = z.output<typeof tokenRowSchema>

export interface Table<K, V> {
  get(key: K): V | undefined
  /** Only inside `transact`. */
  put(key: K, value: V): void
  remove(key: K): void
  range(options: { after?: K; limit?: number; reverse?: boolean }): V[]
  /** The greatest key. */
  last(): K | undefined
}

export interface Tables {
  readonly events: Table<number, RegistryEntry>
  readonly gateways: Table<string, GatewayRecord>
  /** Lower-case name → gateway. */
  readonly names: Table<string, string>
  /** Hash of a token's secret → its gateway. */
  readonly tokens: Table<string, TokenRow>
  /** Emits once durable. Errors: what `action` throws before its first put, disk_full, commit_failed. */
  transact<T>(action: () => T): Observable<T>
  /** Lets the reads that follow see what other processes have committed. */
  refresh(): void
  close(): Observable<void>
}

/** Throws folder_unwritable, log_version, log_unreadable. */
export const openTables = (file: string): Tables => {
  try {
    requireLmdbFile(file)
    return tablesIn(openRoot(file), file)
  } catch (thrown) {
    if (isFault(thrown)) throw thrown
    const because = reasonOf(thrown)
    throw /MDB_|invalid|corrupt/i.test(because)
      ? fault('log_unreadable', { file, because }, thrown)
      : fault('folder_unwritable', { folder: dirname(file), because }, thrown)
  }
}

const openRoot = (file: string): RootDatabase<unknown, Key> =>
  open<unknown, Key>({
    path: file,
    noSubdir: true,
    encoding: 'json',
    overlappingSync: false,
    // On a full disk its hidden batch rejects where nobody can listen, and that ends the process.
    eventTurnBatching: false,
    maxDbs: 8,
    mapSize: MAP_BYTES,
  })

const tablesIn = (root: RootDatabase<unknown, Key>, file: string): Tables => {
  const meta = root.openDB<unknown, string>({ name: 'meta', encoding: 'json' })
  const found = meta.get('format')
  if (found !== undefined && found !== FORMAT) {
    void root.close()
    throw fault('log_version', { file, found, known: FORMAT })
  }
  return {
    events: tableOf<number, RegistryEntry>(root, 'events', registryEntrySchema),
    gateways: tableOf<string, GatewayRecord>(root, 'gateways', gatewayRecordSchema),
    names: tableOf<string, string>(root, 'names', z.string()),
    tokens: tableOf<string, TokenRow>(root, 'tokens', tokenRowSchema),
    transact: action =>
      defer(() =>
        root.transaction(() => {
          const result = action()
          if (meta.get('format') === undefined) void meta.put('format', FORMAT)
          return result
        }),
      ).pipe(
        catchError((thrown: unknown) =>
          from(faultOf(thrown, file)).pipe(mergeMap(error => throwError(() => error))),
        ),
      ),
    refresh: () => root.resetReadTxn(),
    close: () => defer(() => root.close()),
  }
}

const tableOf = <K extends string | number, V>(
  root: RootDatabase<unknown, Key>,
  name: string,
  schema: z.ZodType<V>,
): Table<K, V> => {
  const rows = root.openDB<unknown, K>({ name, encoding: 'json' })
  return {
    get: key => {
      const value = rows.get(key)
      return value === undefined ? undefined : schema.parse(value)
    },
    // Inside a transaction both take effect at once, and their promises say nothing.
    put: (key, value) => void rows.put(key, value),
    remove: key => void rows.remove(key),
    range: ({ after, limit, reverse }) => [
      ...rows
        .getRange({
          ...(after === undefined ? {} : { start: after, exclusiveStart: true }),
          ...(limit === undefined ? {} : { limit }),
          reverse: reverse ?? false,
        })
        .map(({ value }) => schema.parse(value)),
    ],
    last: () => [...rows.getKeys({ reverse: true, limit: 1 })][0],
  }
}

const faultOf = async (thrown: unknown, file: string): Promise<unknown> => {
  if (isFault(thrown)) return thrown
  // lmdb rejects with a promise that rejects as well: left alone, that one ends the process.
  const cause = await commitErrorOf(thrown)
  if (cause === undefined) return thrown
  return commitFault(file, cause)
}

const commitErrorOf = async (thrown: unknown): Promise<unknown> => {
  if (!(thrown instanceof Error)) return undefined
  if (!('commitError' in thrown)) return codeOf(thrown) === undefined ? undefined : thrown
  try {
    await thrown.commitError
    return thrown
  } catch (cause) {
    return cause
  }
}

const codeOf = (thrown: unknown): unknown =>
  thrown instanceof Error && 'code' in thrown ? thrown.code : undefined
