// Named cursors: how far a program has acknowledged the log, kept for it. Durable before the answer, bounded in number.

import { concatMap, defer, finalize, map, Observable, of, throwError } from 'rxjs'
import { z } from 'zod'
import type { EpochMs } from '../../schemas/ids.ts'
import type { Store, Write } from '../../streams/log/store.ts'
import { fault } from '../../streams/run/fault.ts'

/** The table that the store needs. */
export const CURSORS_TABLE = 'cursors'
/** One a program that reads; a thousand take 100 KB. */
export const NAMED_CURSORS_MAX = 1_000
export const cursorNameSchema = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'must be lower-case letters, digits, dots, dashes, at most 63')

const storedSchema = z.strictObject({ cursor: z.string(), acknowledgedAtMs: z.int() })

export interface NamedCursor {
  readonly name: string
  readonly cursor: string
  readonly acknowledgedAtMs: EpochMs
}

export interface NamedCursors {
  list(): NamedCursor[]
  get(name: string): NamedCursor | undefined
  /** Cold; emits once durable. Errors: limit_reached, disk_full, commit_failed. */
  put(cursor: NamedCursor): Observable<NamedCursor>
  remove(name: string): Observable<void>
}

export const namedCursors = (store: Store): NamedCursors => {
  const all = new Map<string, NamedCursor>()
  for (const [key, value] of store.scan(CURSORS_TABLE, { limit: NAMED_CURSORS_MAX })) {
    const name = key.toString()
    all.set(name, { name, ...storedSchema.parse(JSON.parse(value.toString())) })
  }
  const commit = oneAtATime(store)

  return {
    list: () => [...all.values()],
    get: name => all.get(name),
    put: named =>
      defer(() => {
        const { name, cursor, acknowledgedAtMs } = named
        if (!all.has(name) && all.size >= NAMED_CURSORS_MAX) {
          const mend = 'DELETE a named cursor that nobody uses any more'
          return throwError(() =>
            fault('limit_reached', { limit: 'namedCursorsMax', max: NAMED_CURSORS_MAX, mend }),
          )
        }
        const value = Buffer.from(JSON.stringify({ cursor, acknowledgedAtMs }))
        return commit({ table: CURSORS_TABLE, key: Buffer.from(name), value }).pipe(
          map(() => {
            all.set(name, named)
            return named
          }),
        )
      }),
    remove: name =>
      commit({ table: CURSORS_TABLE, key: Buffer.from(name), value: undefined }).pipe(
        map(() => {
          all.delete(name)
        }),
      ),
  }
}

/** The store's rule: one commit at a time. Requests wait for their turn in the order of arrival. */
const oneAtATime = (store: Store): ((write: Write) => Observable<void>) => {
  const waiting: (() => void)[] = []
  let busy = false
  const turn$ = new Observable<void>(subscriber => {
    const go = () => {
      subscriber.next()
      subscriber.complete()
    }
    if (busy) waiting.push(go)
    else {
      busy = true
      go()
    }
  })
  const leave = () => {
    const next = waiting.shift()
    if (next === undefined) busy = false
    else next()
  }
  return write =>
    turn$.pipe(
      concatMap(() => store.commit([write]).pipe(finalize(leave))),
      concatMap(() => of(undefined)),
    )
}
