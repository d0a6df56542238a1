// What the local broker keeps for clients that are away, in the log's own file: over a real LMDB store.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { firstValueFrom, lastValueFrom } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { HELD_TABLE } from '../../../edge/ingest/held.ts'
import {
  MEMORY_TABLES,
  openMemory,
  QUEUED_TABLE,
  RETAINED_TABLE,
  rowsOf,
  SESSIONS_TABLE,
} from '../../../edge/ingest/memory.ts'
import { openLmdb } from '../../../streams/log/lmdb.ts'
import { numberKey } from '../../../streams/log/store.ts'
import { type Streams, tablesOf } from '../../../streams/log/streams.ts'
import type {
  KeptSession,
  MemoryChange,
  QueuedMessage,
  SessionMemory,
} from '../../../streams/mqtt/session.ts'
import { isFault } from '../../../streams/run/fault.ts'
import { DATA, EVENTS, record, withStreams } from '../../support/logs.ts'

const folder = mkdtempSync(join(tmpdir(), 'headgate-memory-'))
test.after(() => rmSync(folder, { recursive: true, force: true }))

/** Opens the file, uses it and closes it, as one run of the program. */
const running = async <T>(
  file: string,
  use: (memory: SessionMemory, streams: Streams) => Promise<T>,
): Promise<T> => {
  const store = openLmdb({
    file: join(folder, file),
    tables: [...tablesOf([DATA, EVENTS]), HELD_TABLE, ...MEMORY_TABLES],
  })
  try {
    return await withStreams(store, streams => use(openMemory(streams), streams))
  } finally {
    await lastValueFrom(store.close())
  }
}
const save = (memory: SessionMemory, ...changes: MemoryChange[]) =>
  lastValueFrom(memory.save(changes), { defaultValue: undefined })

const retained = (topic: string, payload: string | Buffer | undefined): MemoryChange => ({
  kind: 'retained',
  topic,
  message: payload === undefined ? undefined : { topic, payload: Buffer.from(payload), qos: 1 },
})
const session = (clientId: string, topics: readonly string[], left = 0): KeptSession => ({
  clientId,
  left,
  subscriptions: topics.map(topic => ({ topic, qos: 1 })),
})
const kept = (one: KeptSession): MemoryChange => ({ kind: 'session', clientId: one.clientId, session: one })
const message = (sequence: number, rest: Partial<QueuedMessage> = {}): QueuedMessage => ({
  clientId: 'reader',
  sequence,
  topic: 'a',
  payload: Buffer.from(`${sequence}`),
  qos: 1,
  messageId: undefined,
  isReleased: false,
  ...rest,
})
const queued = (one: QueuedMessage): MemoryChange => ({
  kind: 'queued',
  sequence: one.sequence,
  message: one,
})

test('what was saved is loaded by the next run, byte for byte, the queue in order', async () => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
  // Over what a key of LMDB's holds.
  const deep = 'ü'.repeat(1_024)
  const device = '設'.repeat(700)
  const messages = [1, 2, 10, 11, 255, 256, 70_000].map(sequence => message(sequence))
  const released = message(70_001, { qos: 2, messageId: 65_535, isReleased: true, payload: Buffer.alloc(0) })
  await running('roundtrip.mdb', async memory => {
    assert.equal(memory.load(), { retained: [], sessions: [], queued: [] })
    await save(memory, retained('a', bytes), retained(deep, 'x'), retained('gone', 'x'))
    await save(memory, kept(session('reader', ['a/#', '+'], 7)), kept(session(device, [deep])))
    await save(memory, ...[...messages, released].toReversed().map(queued))
    await save(memory, retained('gone', undefined), retained('a', Buffer.concat([bytes, bytes])))
  })
  await running('roundtrip.mdb', async memory => {
    const found = memory.load()
    assert.equal(
      found.retained.toSorted((a, b) => a.topic.length - b.topic.length),
      [
        { topic: 'a', payload: Buffer.concat([bytes, bytes]), qos: 1 },
        { topic: deep, payload: Buffer.from('x'), qos: 1 },
      ],
    )
    assert.equal(
      found.sessions.toSorted((a, b) => b.left - a.left),
      [session('reader', ['a/#', '+'], 7), session(device, [deep])],
    )
    assert.equal(found.queued, [...messages, released])
    await save(
      memory,
      { kind: 'session', clientId: 'reader', session: undefined },
      ...messages.map(({ sequence }): MemoryChange => ({ kind: 'queued', sequence, message: undefined })),
    )
  })
  await running('roundtrip.mdb', async memory => {
    const { sessions, queued: left } = memory.load()
    assert.equal([sessions.map(({ clientId }) => clientId), left], [[device], [released]])
  })
})

test('more rows than one page are all loaded', async () => {
  const count = 250
  await running('pages.mdb', memory =>
    save(
      memory,
      ...Array.from({ length: count }, (_, i) => retained(`t/${i}`, `${i}`)),
      ...Array.from({ length: count }, (_, i) => queued(message(i + 1))),
    ),
  )
  await running('pages.mdb', async memory => {
    const found = memory.load()
    assert.is(new Set(found.retained.map(({ topic }) => topic)).size, count)
    assert.equal(
      found.queued.map(({ sequence }) => sequence),
      Array.from({ length: count }, (_, i) => i + 1),
    )
  })
})

test('rows that go along with a record are there with it, or not at all', async () => {
  await running('along.mdb', async (_, streams) => {
    await firstValueFrom(
      streams
        .stream(DATA)
        .append([record('x', 'a')], { alongside: rowsOf([retained('a', 'x'), queued(message(1))]) }),
    )
    assert.is(streams.stream(DATA).state().head, 1)
  })
  const full = new Map([[DATA, { bytesMax: 1, onFull: 'refuse', reserved: false } as const]])
  await running('along.mdb', async (memory, { store }) => {
    await withStreams(
      store,
      async streams => {
        const refused = await firstValueFrom(
          streams.stream(DATA).append([record('y', 'a')], { alongside: rowsOf([retained('a', 'y')]) }),
        ).catch((thrown: unknown) => thrown)
        assert.ok(isFault(refused) && refused.code === 'stream_full')
      },
      full,
    )
    const found = memory.load()
    assert.equal([found.retained[0]?.payload.toString(), found.queued.length], ['x', 1])
  })
})

test('a damaged row is a coded fault that names the file and the table', async () => {
  for (const [table, value] of [
    [RETAINED_TABLE, Buffer.from('no')],
    [SESSIONS_TABLE, Buffer.from([9, 0, 0, 0, 2, 0x7b, 0x7d])],
    [QUEUED_TABLE, Buffer.from([1, 0, 0, 0, 2, 0x7b, 0x7d])],
  ] as const) {
    await running(`${table}.mdb`, async (memory, { put }) => {
      await lastValueFrom(put([{ table, key: numberKey(1), value }], 'now'))
      try {
        memory.load()
        assert.unreachable()
      } catch (thrown) {
        assert.ok(isFault(thrown) && thrown.code === 'log_unreadable', String(thrown))
        assert.match(thrown.message, `a row of ${table} is damaged`)
      }
    })
  }
})

test.run()
