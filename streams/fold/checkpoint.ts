// Where a projection stands in each class of the log, stored beside its state and changed in the same commit.
//
// A table without a checkpoint holds nothing of worth: a reset removes the checkpoint first and the state after it,
// so that a crash in between leaves a table that is reset again.

import { concat, defer, EMPTY, ignoreElements, type Observable } from 'rxjs'
import { z } from 'zod'
import type { LogClass } from '../log/cloudlog.ts'
import { LOG_CLASSES } from '../log/cloudlog.ts'
import type { Store, Write } from '../log/store.ts'
import type { Member } from './member.ts'

/** No view key starts with NUL: this one comes first in every table. */
const CHECKPOINT_KEY = Buffer.from('\0checkpoint')
/** Rows a read transaction or a clearing commit touches: some milliseconds. */
const ROWS_MAX = 2_000

/** The last seq of each class whose effect is in the state. */
export type Through = Readonly<Partial<Record<LogClass, number>>>

const seq = z.int().min(0)
const checkpointSchema = z.strictObject({
  version: z.int(),
  through: z.partialRecord(z.enum(LOG_CLASSES), seq),
})

export const checkpointWrite = ({ name, version }: Member, through: Through): Write => ({
  table: name,
  key: CHECKPOINT_KEY,
  value: Buffer.from(JSON.stringify({ version, through })),
})

/** The stored checkpoint; undefined when there is none, when it is not readable, or when it is of another version. */
export const readCheckpoint = (store: Store, { name, version }: Member): Through | undefined => {
  const bytes = store.read(name, CHECKPOINT_KEY)
  if (bytes === undefined) return undefined
  let value: unknown
  try {
    value = JSON.parse(bytes.toString())
  } catch {
    return undefined
  }
  const parsed = checkpointSchema.safeParse(value)
  if (!parsed.success || parsed.data.version !== version) return undefined
  const through: Partial<Record<LogClass, number>> = {}
  for (const logClass of LOG_CLASSES) {
    const at = parsed.data.through[logClass]
    if (at !== undefined) through[logClass] = at
  }
  return through
}

/** Loads every key of a member's table, page by page. */
export const loadSnapshot = (store: Store, member: Member): void => {
  let from: Buffer | undefined
  for (;;) {
    const rows = store.scan(member.name, from === undefined ? { limit: ROWS_MAX } : { from, limit: ROWS_MAX })
    for (const [key, value] of rows) if (!key.equals(CHECKPOINT_KEY)) member.load(key, value)
    const last = rows.at(-1)
    if (last === undefined || rows.length < ROWS_MAX) return
    from = Buffer.concat([last[0], Buffer.of(0)])
  }
}

/** Empties a member's table, checkpoint first. Cold; completes when that is durable. */
export const clearTable = (store: Store, table: string): Observable<never> =>
  defer(() => {
    // The checkpoint's key sorts before all others: the first page removes it.
    const rows = store.scan(table, { limit: ROWS_MAX })
    if (rows.length === 0) return EMPTY
    const cleared$ = store.commit(rows.map(([key]) => ({ table, key, value: undefined })))
    return concat(cleared$.pipe(ignoreElements()), clearTable(store, table))
  })
