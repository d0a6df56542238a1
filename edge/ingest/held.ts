// QoS 2 ids that are held: the message is in the log, its PUBREL has not come. They are stored in the transaction of
// their message and removed before PUBCOMP, so that a resent message is stored once also over a restart.

import { defer, EMPTY, ignoreElements, map, type Observable, tap } from 'rxjs'
import type { Store, Write } from '../../streams/log/store.ts'
import type { Streams } from '../../streams/log/streams.ts'

export const HELD_TABLE = 'qos2'

export interface HeldIds {
  has(clientId: string, messageId: number): boolean
  /** For the transaction of the message. `noteHeld` once it is durable. */
  write(clientId: string, messageId: number): Write
  noteHeld(clientId: string, messageId: number): void
  release(clientId: string, messageId: number): Observable<void>
  /** A client began a clean session. */
  discard(clientId: string): Observable<void>
}

const keyOf = (clientId: string, messageId: number): Buffer => {
  const id = Buffer.allocUnsafe(2)
  id.writeUInt16BE(messageId)
  return Buffer.concat([Buffer.from(clientId), Buffer.of(0), id])
}

export const openHeldIds = ({ store, put }: Streams): HeldIds => {
  const held = load(store)
  const remove = (clientId: string, ids: readonly number[]): Observable<void> =>
    put(
      ids.map(id => ({ table: HELD_TABLE, key: keyOf(clientId, id), value: undefined })),
      'now',
    ).pipe(
      tap(() => {
        const own = held.get(clientId)
        for (const id of ids) own?.delete(id)
        if (own?.size === 0) held.delete(clientId)
      }),
      ignoreElements(),
      map((nothing: never) => nothing),
    )

  return {
    has: (clientId, messageId) => held.get(clientId)?.has(messageId) ?? false,
    write: (clientId, messageId) => ({
      table: HELD_TABLE,
      key: keyOf(clientId, messageId),
      value: Buffer.of(1),
    }),
    noteHeld: (clientId, messageId) => {
      const own = held.get(clientId) ?? new Set()
      own.add(messageId)
      held.set(clientId, own)
    },
    release: (clientId, messageId) =>
      defer(() => (held.get(clientId)?.has(messageId) ? remove(clientId, [messageId]) : EMPTY)),
    discard: clientId =>
      defer(() => {
        const own = held.get(clientId)
        return own === undefined ? EMPTY : remove(clientId, [...own])
      }),
  }
}

const load = (store: Store): Map<string, Set<number>> => {
  const held = new Map<string, Set<number>>()
  const pageRows = 1_000
  for (let from: Buffer | undefined; ; ) {
    const rows = store.scan(HELD_TABLE, { limit: pageRows, ...(from === undefined ? {} : { from }) })
    for (const [key] of rows) {
      const clientId = key.toString('utf8', 0, key.length - 3)
      const own = held.get(clientId) ?? new Set()
      own.add(key.readUInt16BE(key.length - 2))
      held.set(clientId, own)
    }
    const last = rows.at(-1)
    if (last === undefined || rows.length < pageRows) return held
    from = Buffer.concat([last[0], Buffer.of(0)])
  }
}
