// What the local broker keeps for clients that are away, in the tables of the log's file.
//
//   `retained`   SHA-256 of the topic → the message: a topic may be longer than a key
//   `sessions`   SHA-256 of the client id → its subscriptions
//   `queued`     sequence → a message for one client
//
// A row is a version, the length of its head, the head as JSON, then the payload as it came.

import { createHash } from 'node:crypto'
import { defer, EMPTY, type Observable } from 'rxjs'
import { z } from 'zod'
import { numberKey, type Row, type Store, type Write } from '../../streams/log/store.ts'
import type { Streams } from '../../streams/log/streams.ts'
import type { MemoryChange, SessionMemory } from '../../streams/mqtt/session.ts'
import { fault, unreachable } from '../../streams/run/fault.ts'

export const RETAINED_TABLE = 'retained'
export const SESSIONS_TABLE = 'sessions'
export const QUEUED_TABLE = 'queued'
export const MEMORY_TABLES: readonly string[] = [RETAINED_TABLE, SESSIONS_TABLE, QUEUED_TABLE]

const VERSION = 1
const HEAD_AT = 5
/** Each page is a short read transaction; a payload has up to 2 MB. */
const PAGE_ROWS = 100

const qos = z.union([z.literal(0), z.literal(1), z.literal(2)])
const retainedHead = z.strictObject({ topic: z.string(), qos })
const sessionHead = z.strictObject({
  clientId: z.string(),
  left: z.int().min(0),
  subscriptions: z.array(z.strictObject({ topic: z.string(), qos })),
})
const queuedHead = z.strictObject({
  clientId: z.string(),
  sequence: z.int().min(1),
  topic: z.string(),
  qos,
  messageId: z.int().min(1).max(65_535).optional(),
  isReleased: z.boolean(),
})

/** The changes as rows of one transaction. */
export const rowsOf = (changes: readonly MemoryChange[]): Write[] => changes.map(rowOf)

/** Errors of `load`: log_unreadable. Errors of `save`: disk_full, commit_failed, log_closed. */
export const openMemory = ({ store, put }: Pick<Streams, 'store' | 'put'>): SessionMemory => ({
  load: () => ({
    retained: read(store, RETAINED_TABLE, ({ head, payload }) => ({ ...retainedHead.parse(head), payload })),
    sessions: read(store, SESSIONS_TABLE, ({ head }) => sessionHead.parse(head)),
    queued: read(store, QUEUED_TABLE, ({ head, payload }) => {
      const { messageId, ...rest } = queuedHead.parse(head)
      return { ...rest, messageId, payload }
    }),
  }),
  save: (changes): Observable<void> =>
    // What only removes waits for the next commit: nobody waits for it.
    defer(() => (changes.length === 0 ? EMPTY : put(rowsOf(changes), isRemoval(changes) ? 'wait' : 'now'))),
})

const isRemoval = (changes: readonly MemoryChange[]): boolean =>
  changes.every(change => change.kind === 'queued' && change.message === undefined)

const rowOf = (change: MemoryChange): Write => {
  switch (change.kind) {
    case 'retained': {
      const { topic, message } = change
      const value = message === undefined ? undefined : encode({ topic, qos: message.qos }, message.payload)
      return { table: RETAINED_TABLE, key: hashOf(topic), value }
    }
    case 'session': {
      const { clientId, session } = change
      return {
        table: SESSIONS_TABLE,
        key: hashOf(clientId),
        value: session === undefined ? undefined : encode(session),
      }
    }
    case 'queued': {
      const key = numberKey(change.sequence)
      if (change.message === undefined) return { table: QUEUED_TABLE, key, value: undefined }
      const { payload, ...head } = change.message
      return { table: QUEUED_TABLE, key, value: encode(head, payload) }
    }
    default:
      return unreachable(change)
  }
}

const hashOf = (name: string): Buffer => createHash('sha256').update(name).digest()

const encode = (head: object, payload: Buffer = Buffer.alloc(0)): Buffer => {
  const text = Buffer.from(JSON.stringify(head))
  const start = Buffer.alloc(HEAD_AT)
  start.writeUInt8(VERSION, 0)
  start.writeUInt32BE(text.length, 1)
  return Buffer.concat([start, text, payload])
}

interface Decoded {
  readonly head: unknown
  readonly payload: Buffer
}

const decode = (bytes: Buffer): Decoded => {
  if (bytes.readUInt8(0) !== VERSION) throw new RangeError(`version ${bytes[0]}`)
  const end = HEAD_AT + bytes.readUInt32BE(1)
  return { head: JSON.parse(bytes.toString('utf8', HEAD_AT, end)), payload: Buffer.from(bytes.subarray(end)) }
}

const read = <T>(store: Store, table: string, parse: (row: Decoded) => T): T[] => {
  const found: T[] = []
  for (let from: Buffer | undefined; ; ) {
    const rows: Row[] = store.scan(table, { limit: PAGE_ROWS, ...(from === undefined ? {} : { from }) })
    for (const [, bytes] of rows) {
      try {
        found.push(parse(decode(bytes)))
      } catch (thrown) {
        throw fault('log_unreadable', { file: store.file, because: `a row of ${table} is damaged` }, thrown)
      }
    }
    const last = rows.at(-1)
    if (last === undefined || rows.length < PAGE_ROWS) return found
    from = Buffer.concat([last[0], Buffer.of(0)])
  }
}
