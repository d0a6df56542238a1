// The durable store: one LMDB file, a named database for each table.
//
// A commit is one LMDB transaction and one fdatasync; lmdb-js runs it on a thread of its own.

import { accessSync, constants, statfsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Database, open, type RootDatabase } from 'lmdb'
import { catchError, concatMap, defer, from, map, throwError } from 'rxjs'
import { fault, reasonOf } from '../run/fault.ts'
import { aboutFile, commitFault, explainCommit, requireLmdbFile } from './lmdbfile.ts'
import type { Row, Scan, Store, Write } from './store.ts'

/** Raised when the layout of any table changes; an older folder is migrated or refused, never guessed at. */
export const FORMAT_VERSION = 1
const META = 'meta'
const FORMAT_KEY = Buffer.from('format')
/** Address space only: the file takes what it holds. LMDB cannot grow a map that another thread reads. */
const MAP_BYTES_64 = 2 ** 40
const MAP_BYTES_32 = 2 ** 30

export interface LmdbOptions {
  readonly file: string
  /** Tables that will be written; others read as empty. */
  readonly tables: readonly string[]
  readonly access?: 'write' | 'read'
  readonly is32Bit?: boolean
}

/**
 * Opens or creates the file. Errors: folder_unwritable, log_version, log_unreadable.
 * Measured: 16 frames of 7.5 KB and a mark in 0.8 ms, of which fdatasync 0.3.
 */
export const openLmdb = ({ file, tables, access = 'write', is32Bit = false }: LmdbOptions): Store => {
  if (access === 'write') requireWritable(dirname(file))
  const root = openRoot(file, access, is32Bit)
  const readonly = access === 'read'
  const databases = new Map<string, Database<Buffer, Buffer>>()
  // Undefined: a reader came before the writer made the table. It looks again at the next call.
  const table = (name: string): Database<Buffer, Buffer> | undefined => {
    const known = databases.get(name)
    if (known !== undefined) return known
    const opened: Database<Buffer, Buffer> | undefined = root.openDB({
      name,
      encoding: 'binary',
      keyEncoding: 'binary',
    })
    if (opened !== undefined) databases.set(name, opened)
    return opened
  }
  aboutFile(file, () => {
    if (!readonly) for (const name of [META, ...tables]) table(name)
    checkFormat(file, table(META), readonly)
  })

  // lmdb-js keeps a read transaction until its next timer, and only the writer's own thread ends it with a commit: a
  // reader that is told twice in one turn would look for the second commit in a snapshot from before it.
  const fresh = (name: string): Database<Buffer, Buffer> | undefined => {
    if (readonly) root.resetReadTxn()
    return table(name)
  }

  let inFlight: Promise<unknown> = Promise.resolve()

  const write = async (writes: readonly Write[]): Promise<void> => {
    const committed = root.batch(() => {
      for (const { table: name, key, value } of writes) {
        const database = table(name)
        if (database === undefined) throw new Error(`no table ${name}`)
        // Each operation's promise rejects with the batch's; only the batch's is of use.
        const done = value === undefined ? database.remove(key) : database.put(key, value)
        done.catch(() => undefined)
      }
    })
    inFlight = committed.catch(() => undefined)
    await committed.catch(explainCommit)
  }

  return {
    file,
    commit: writes =>
      defer(() => from(write(writes))).pipe(
        catchError(thrown => throwError(() => commitFault(file, thrown))),
      ),
    read: (name, key) => aboutFile(file, () => fresh(name)?.get(key)),
    scan: (name, scan) => aboutFile(file, () => scanRows(fresh(name), scan)),
    allocatedBytes: () => statSync(file).blocks * 512,
    tableBytes: name => bytesOf(table(name)?.getStats() as TablePages | undefined),
    freeBytes: () => {
      const { bavail, bsize } = statfsSync(dirname(file))
      return bavail * bsize + reusableBytes(root, databases.values())
    },
    close: () =>
      defer(() => from(inFlight)).pipe(
        concatMap(() => from(root.close())),
        map(() => undefined),
      ),
  }
}

/** What LMDB counts for each table; lmdb-js leaves it untyped. */
interface TablePages {
  readonly pageSize: number
  readonly treeBranchPageCount: number
  readonly treeLeafPageCount: number
  readonly overflowPages: number
}

interface FilePages {
  readonly pageSize: number
  readonly lastPageNumber: number
  readonly root: TablePages
  readonly free: TablePages
}

const bytesOf = (pages: TablePages | undefined): number =>
  pages === undefined
    ? 0
    : pages.pageSize * (pages.treeBranchPageCount + pages.treeLeafPageCount + pages.overflowPages)

const META_PAGES = 2

/** Pages of the file that hold nothing: it never shrinks, and what was trimmed is written to again. */
const reusableBytes = (
  root: RootDatabase<Buffer, Buffer>,
  databases: Iterable<Database<Buffer, Buffer>>,
): number => {
  const file = root.getStats() as FilePages
  let bytes = (file.lastPageNumber + 1 - META_PAGES) * file.pageSize - bytesOf(file.root) - bytesOf(file.free)
  for (const database of databases) bytes -= bytesOf(database.getStats() as TablePages)
  return Math.max(0, bytes)
}

const scanRows = (database: Database<Buffer, Buffer> | undefined, scan: Scan): Row[] => {
  if (database === undefined) return []
  const { from: start, limit, reverse = false, bytesMax = Number.POSITIVE_INFINITY } = scan
  const rows: Row[] = []
  let bytes = 0
  const range = database.getRange({ ...(start === undefined ? {} : { start }), limit, reverse })
  for (const { key, value } of range) {
    rows.push([key, value])
    bytes += value.length
    if (bytes >= bytesMax) break
  }
  return rows
}

const requireWritable = (folder: string): void => {
  try {
    accessSync(folder, constants.W_OK | constants.X_OK)
  } catch (thrown) {
    throw fault('folder_unwritable', { folder, because: reasonOf(thrown) }, thrown)
  }
}

const openRoot = (file: string, access: 'write' | 'read', is32Bit: boolean): RootDatabase<Buffer, Buffer> => {
  requireLmdbFile(file)
  return aboutFile(file, () =>
    open<Buffer, Buffer>({
      path: file,
      noSubdir: true,
      // With overlapping sync a resolved put is visible, not durable.
      overlappingSync: false,
      // On a full disk its hidden batch rejects where nobody can listen, and that ends the process.
      eventTurnBatching: false,
      maxDbs: 64,
      mapSize: is32Bit ? MAP_BYTES_32 : MAP_BYTES_64,
      readOnly: access === 'read',
      encoding: 'binary',
      keyEncoding: 'binary',
    }),
  )
}

const checkFormat = (file: string, meta: Database<Buffer, Buffer> | undefined, readonly: boolean): void => {
  const found = meta?.get(FORMAT_KEY)
  if (found === undefined) {
    // Written at creation, before anything is acknowledged; a failure shows at the first commit as well.
    if (!readonly) void meta?.put(FORMAT_KEY, Buffer.of(FORMAT_VERSION)).catch(() => undefined)
    return
  }
  if (found[0] !== FORMAT_VERSION)
    throw fault('log_version', { file, found: found[0], known: FORMAT_VERSION })
}
