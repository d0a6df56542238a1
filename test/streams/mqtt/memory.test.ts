// What the broker keeps for clients that are away outlives it: by way of the memory, and within limits.

import { defer, EMPTY, type Observable, Subject, throwError } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { BrokerRules } from '../../../streams/mqtt/broker.ts'
import type { BrokerLimits } from '../../../streams/mqtt/limits.ts'
import { BROKER_LIMITS } from '../../../streams/mqtt/limits.ts'
import {
  type KeptSession,
  type MemoryChange,
  type QueuedMessage,
  type RetainedMessage,
  SESSION_LIMITS,
  type SessionLimits,
  type SessionMemory,
} from '../../../streams/mqtt/session.ts'
import { fault } from '../../../streams/run/fault.ts'
import { outcome, pause, plainAt, startBroker, until } from './harness.ts'
import { publishPacket, type Raw, rawClient } from './raw.ts'

interface Memory extends SessionMemory {
  readonly retained: Map<string, RetainedMessage>
  readonly sessions: Map<string, KeptSession>
  readonly queued: Map<number, QueuedMessage>
  /** Saves are done when this emits; undefined: at once. */
  gate: Subject<void> | undefined
  isFull: boolean
  saves: number
}

const openMemory = (): Memory => {
  const put = <K, V>(rows: Map<K, V>, key: K, value: V | undefined) =>
    value === undefined ? rows.delete(key) : rows.set(key, value)
  const apply = (change: MemoryChange) => {
    if (change.kind === 'retained') put(memory.retained, change.topic, change.message)
    else if (change.kind === 'session') put(memory.sessions, change.clientId, change.session)
    else put(memory.queued, change.sequence, change.message)
  }
  const memory: Memory = {
    retained: new Map(),
    sessions: new Map(),
    queued: new Map(),
    gate: undefined,
    isFull: false,
    saves: 0,
    load: () => ({
      retained: [...memory.retained.values()],
      sessions: [...memory.sessions.values()],
      queued: [...memory.queued.values()].toSorted((a, b) => a.sequence - b.sequence),
    }),
    save: (changes): Observable<void> =>
      defer(() => {
        memory.saves += 1
        if (memory.isFull) return throwError(() => fault('disk_full', { file: 'memory' }))
        const { gate } = memory
        if (gate === undefined) {
          changes.forEach(apply)
          return EMPTY
        }
        return new Promise<void>(resolve =>
          gate.subscribe(() => {
            changes.forEach(apply)
            resolve()
          }),
        )
      }),
  }
  return memory
}

const start = (
  memory: SessionMemory,
  sessions: Partial<SessionLimits> = {},
  rules: Partial<BrokerRules> = {},
) => {
  const limits: BrokerLimits = { ...BROKER_LIMITS, sessions: { ...SESSION_LIMITS, ...sessions } }
  return startBroker(plainAt(), rules, { memory, limits })
}
type Started = Awaited<ReturnType<typeof start>>

const subscribe = async (raw: Raw, topic: string, qos: 0 | 1 | 2 = 1): Promise<void> => {
  const nth = raw.count('suback') + 1
  raw.send({ cmd: 'subscribe', messageId: nth, subscriptions: [{ topic, qos }] })
  await raw.packet('suback', nth)
}
const gone = async (raw: Raw, { broker }: Started): Promise<void> => {
  const before = broker.clients().length
  raw.close()
  await until(() => broker.clients().length < before)
}
/** A client that subscribed and left. */
const absentee = async (
  started: Started,
  clientId: string,
  topic: string,
  qos: 0 | 1 | 2 = 1,
): Promise<void> => {
  const raw = await rawClient(started.port, { clientId, clean: false })
  await raw.packet('connack')
  await subscribe(raw, topic, qos)
  await gone(raw, started)
}
const texts = (raw: Raw): string[] =>
  raw.received.flatMap(packet => (packet.cmd === 'publish' ? [`${packet.topic} ${packet.payload}`] : []))
const retain = (topic: string, payload: string, messageId = 1) => ({
  ...publishPacket(topic, 1, messageId, payload),
  retain: true,
})
const acknowledge = (raw: Raw): void => {
  for (const packet of raw.received)
    if (packet.cmd === 'publish' && packet.qos === 1)
      raw.send({ cmd: 'puback', messageId: packet.messageId ?? 0 })
}
const sessionPresent = async (raw: Raw): Promise<boolean> => {
  const connack = await raw.packet('connack')
  return connack.cmd === 'connack' && connack.sessionPresent
}

test('a retained message is there after a restart, and a cleared one is not', async () => {
  const memory = openMemory()
  const first = await start(memory)
  const writer = await rawClient(first.port, { clientId: 'writer' })
  writer.send(
    retain('a/kept', 'old', 1),
    retain('a/kept', 'new', 2),
    retain('a/cleared', 'x', 3),
    retain('a/cleared', '', 4),
  )
  await writer.packet('puback', 4)
  writer.close()
  first.stop()

  const second = await start(memory)
  assert.equal(second.broker.stats().retained.messages, 1)
  const reader = await rawClient(second.port, { clientId: 'reader' })
  await subscribe(reader, 'a/#')
  const got = await reader.packet('publish')
  assert.ok(got.cmd === 'publish' && got.retain)
  await pause(30)
  assert.equal(texts(reader), ['a/kept new'])
  reader.close()
  second.stop()
})

test('a subscription is there after a restart without a SUBSCRIBE, and CONNACK says so', async () => {
  const memory = openMemory()
  const first = await start(memory)
  await absentee(first, 'reader', 'a/+')
  first.stop()

  const second = await start(memory)
  const reader = await rawClient(second.port, { clientId: 'reader', clean: false })
  assert.is(await sessionPresent(reader), true)
  const writer = await rawClient(second.port, { clientId: 'writer' })
  writer.send(publishPacket('a/b', 1, 1, 'live'))
  await reader.packet('publish')
  assert.equal(texts(reader), ['a/b live'])

  acknowledge(reader)
  reader.send({ cmd: 'unsubscribe', messageId: 9, unsubscriptions: ['a/+'] })
  await reader.packet('unsuback')
  await gone(reader, second)
  writer.close()
  second.stop()
  await until(() => memory.sessions.size === 0, 'a session without subscriptions is not kept')

  const third = await start(memory)
  const again = await rawClient(third.port, { clientId: 'reader', clean: false })
  assert.is(await sessionPresent(again), false)
  again.close()
  third.stop()
})

test('queued messages come in order after a restart, before what is published then, and each once', async () => {
  const memory = openMemory()
  const first = await start(memory)
  await absentee(first, 'reader', 'a/#')
  const writer = await rawClient(first.port, { clientId: 'writer' })
  const count = 200
  for (let id = 1; id <= count; id += 1) writer.send(publishPacket('a/b', 1, id, `${id}`))
  writer.send(publishPacket('a/b', 0, 0, 'QoS 0 is not queued'))
  await writer.packet('puback', count)
  writer.close()
  first.stop()

  const second = await start(memory)
  assert.is(second.broker.stats().queued.messages, count)
  const other = await rawClient(second.port, { clientId: 'other' })
  await other.packet('connack')
  const reader = await rawClient(second.port, { clientId: 'reader', clean: false })
  await reader.packet('connack')
  other.send(publishPacket('a/b', 1, 1, `${count + 1}`), publishPacket('a/b', 1, 2, `${count + 2}`))
  await reader.packet('publish', count + 2)
  await pause(50)
  assert.equal(
    texts(reader),
    Array.from({ length: count + 2 }, (_, i) => `a/b ${i + 1}`),
  )
  acknowledge(reader)
  await until(() => memory.queued.size === 0, 'what was acknowledged is forgotten')
  assert.equal(second.broker.stats().queued, { messages: 0, bytes: 0 })
  await gone(reader, second)
  other.close()
  second.stop()

  const third = await start(memory)
  const again = await rawClient(third.port, { clientId: 'reader', clean: false })
  assert.is(await sessionPresent(again), true)
  await pause(50)
  assert.equal(texts(again), [])
  again.close()
  third.stop()
})

test('what was sent and not acknowledged comes again after a restart', async () => {
  const memory = openMemory()
  const first = await start(memory)
  const reader = await rawClient(first.port, { clientId: 'reader', clean: false })
  await subscribe(reader, 'a')
  const writer = await rawClient(first.port, { clientId: 'writer' })
  writer.send(publishPacket('a', 1, 1, 'one'))
  await reader.packet('publish')
  reader.close()
  writer.close()
  first.stop()

  const second = await start(memory)
  const again = await rawClient(second.port, { clientId: 'reader', clean: false })
  await again.packet('publish')
  assert.equal(texts(again), ['a one'])
  again.close()
  second.stop()
})

test('QoS 2 to a subscriber keeps its packet id over a restart, and after PUBREC only PUBREL comes', async () => {
  const memory = openMemory()
  const first = await start(memory)
  const reader = await rawClient(first.port, { clientId: 'reader', clean: false })
  await subscribe(reader, '#', 2)
  const writer = await rawClient(first.port, { clientId: 'writer' })
  writer.send(publishPacket('a', 2, 1, 'one'), publishPacket('b', 2, 2, 'two'))
  await reader.packet('publish', 2)
  const [one, two] = reader.received.filter(packet => packet.cmd === 'publish')
  reader.send({ cmd: 'pubrec', messageId: one?.messageId ?? 0 })
  await reader.packet('pubrel')
  reader.close()
  writer.close()
  first.stop()

  const second = await start(memory)
  const again = await rawClient(second.port, { clientId: 'reader', clean: false })
  const published = await again.packet('publish')
  assert.is((await again.packet('pubrel')).messageId, one?.messageId)
  assert.ok(published.cmd === 'publish' && published.dup)
  assert.is(published.messageId, two?.messageId)
  assert.equal(texts(again), ['b two'])
  again.send({ cmd: 'pubcomp', messageId: one?.messageId ?? 0 })
  again.send({ cmd: 'pubrec', messageId: two?.messageId ?? 0 })
  await again.packet('pubrel', 2)
  again.send({ cmd: 'pubcomp', messageId: two?.messageId ?? 0 })
  await until(() => memory.queued.size === 0)
  again.close()
  second.stop()
})

test('SUBACK and PUBACK wait for the memory', async () => {
  const memory = openMemory()
  const gate = new Subject<void>()
  memory.gate = gate
  const started = await start(memory)
  const reader = await rawClient(started.port, { clientId: 'reader', clean: false })
  await reader.packet('connack')
  reader.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'a', qos: 1 }] })
  await pause(30)
  assert.is(reader.count('suback'), 0)
  gate.next()
  await reader.packet('suback')

  const writer = await rawClient(started.port, { clientId: 'writer' })
  writer.send(publishPacket('a', 1, 1), publishPacket('nobody', 1, 2))
  assert.is((await writer.packet('puback')).messageId, 2, 'what concerns nobody waits for nothing')
  await pause(30)
  assert.is(writer.count('puback'), 1)
  assert.is(reader.count('publish'), 0)
  gate.next()
  await writer.packet('puback', 2)
  await reader.packet('publish')
  reader.close()
  writer.close()
  started.stop()
})

test('what cannot be saved is not acknowledged', async () => {
  const memory = openMemory()
  const started = await start(memory)
  await absentee(started, 'reader', 'a')
  memory.isFull = true
  const writer = await rawClient(started.port, { clientId: 'writer' })
  writer.send(publishPacket('a', 1, 1))
  assert.match(
    (await started.state('disconnected', ({ peer }) => peer.clientId === 'writer')).because,
    /no space left/,
  )
  assert.is(writer.count('puback'), 0)
  assert.is(started.broker.stats().queued.messages, 0)
  const newcomer = await rawClient(started.port, { clientId: 'newcomer', clean: false })
  newcomer.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'a', qos: 1 }] })
  await until(() => newcomer.socket.destroyed)
  assert.is(newcomer.count('suback'), 0)
  started.stop()
})

test('an owner that stores the changes itself gets them with the message, and nothing is saved beside', async () => {
  const memory = openMemory()
  const changes: string[] = []
  const started = await start(
    memory,
    {},
    {
      takesChanges: true,
      take: (received, done) => {
        changes.push((received.changes ?? []).map(({ kind }) => kind).join())
        done()
      },
    },
  )
  await absentee(started, 'reader', 'a')
  await pause(20)
  const { saves } = memory
  const writer = await rawClient(started.port, { clientId: 'writer' })
  writer.send(publishPacket('b', 1, 1), publishPacket('a', 1, 2), retain('a', 'x', 3), retain('b', 'x', 4))
  await writer.packet('puback', 4)
  assert.equal(changes, ['', 'queued', 'retained,queued', 'retained'])
  assert.is(memory.saves, saves)
  writer.close()
  started.stop()
})

test('what a device publishes for nobody does not touch the memory', async () => {
  const memory = openMemory()
  const started = await start(memory)
  const device = await rawClient(started.port, { clientId: 'device', clean: false })
  device.send(publishPacket('a', 1, 1), publishPacket('a', 2, 2), publishPacket('a', 0, 0))
  await device.packet('pubrec')
  await gone(device, started)
  await pause(20)
  assert.is(memory.saves, 0)
  assert.is(started.broker.stats().sessions, 0)
  started.stop()
})

test('a clean session ends the kept one, on disk as well', async () => {
  const memory = openMemory()
  const first = await start(memory)
  await absentee(first, 'reader', 'a')
  assert.is(await outcome(first.broker.publish({ topic: 'a', payload: Buffer.from('x'), qos: 1 })), 'done')
  assert.is(memory.queued.size, 1)
  const clean = await rawClient(first.port, { clientId: 'reader' })
  assert.is(await sessionPresent(clean), false)
  assert.equal([memory.queued.size, memory.sessions.size], [0, 0])
  await pause(20)
  assert.equal(texts(clean), [])
  clean.close()
  first.stop()
})

test('for a session too many the longest absent one goes; those that are present stay', async () => {
  const memory = openMemory()
  const first = await start(memory, { sessionsMax: 2 })
  for (const clientId of ['a', 'b']) await absentee(first, clientId, 'x')
  // `a` comes once more: now `b` is the longest absent.
  const once = await rawClient(first.port, { clientId: 'a', clean: false })
  await once.packet('connack')
  await gone(once, first)
  await until(() => (memory.sessions.get('a')?.left ?? 0) > (memory.sessions.get('b')?.left ?? 9))
  first.stop()

  const second = await start(memory, { sessionsMax: 2 })
  const writer = await rawClient(second.port, { clientId: 'writer' })
  writer.send(publishPacket('x', 1, 1))
  await writer.packet('puback')
  const c = await rawClient(second.port, { clientId: 'c', clean: false })
  await subscribe(c, 'x')
  assert.equal([...memory.sessions.keys()].sort(), ['a', 'c'])
  assert.is(memory.queued.size, 1, 'its queue went with it')
  assert.is(second.broker.stats().evictedSessions, 1)
  const a = await rawClient(second.port, { clientId: 'a', clean: false })
  assert.is(await sessionPresent(a), true)

  const late = await rawClient(second.port, { clientId: 'late', clean: false })
  late.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'x', qos: 1 }] })
  const suback = await late.packet('suback')
  assert.equal(suback.cmd === 'suback' && suback.granted, [128])
  for (const raw of [writer, c, a, late]) raw.close()
  second.stop()
})

test('queues are bounded in messages and bytes, each and together, and what is lost is counted', async () => {
  const memory = openMemory()
  const started = await start(memory, {
    queuedMessagesMax: 3,
    queuedBytesMax: 1_000,
    queuedBytesTotalMax: 1_500,
  })
  await absentee(started, 'few', 'few')
  await absentee(started, 'large', 'large')
  await absentee(started, 'other', 'other')
  const writer = await rawClient(started.port, { clientId: 'writer' })
  const payload = Buffer.alloc(400)
  for (let id = 1; id <= 5; id += 1) writer.send(publishPacket('few', 1, id))
  for (let id = 6; id <= 8; id += 1) writer.send(publishPacket('large', 1, id, payload))
  for (let id = 9; id <= 11; id += 1) writer.send(publishPacket('other', 1, id, payload))
  await writer.packet('puback', 11)
  const { queued, droppedQueued, dropped } = started.broker.stats()
  assert.equal([droppedQueued, dropped], [5, 5])
  assert.equal(queued, { messages: 6, bytes: 3 * 4 + 2 * 405 + 405 })
  assert.is(memory.queued.size, 6)
  writer.close()
  started.stop()
})

test('retained messages are bounded; one that finds no room takes the older value away', async () => {
  const memory = openMemory()
  const started = await start(memory, { retainedMessagesMax: 2, retainedBytesMax: 1_000 })
  const writer = await rawClient(started.port, { clientId: 'writer' })
  const large = 'x'.repeat(1_000)
  writer.send(retain('a', '1', 1), retain('b', '1', 2), retain('c', '1', 3), retain('a', large, 4))
  await writer.packet('puback', 4)
  assert.equal([...memory.retained.keys()], ['b'])
  const { retained, droppedRetained } = started.broker.stats()
  assert.equal([retained, droppedRetained], [{ messages: 1, bytes: 2 }, 2])
  writer.close()
  started.stop()
})

test('a memory that holds more than the limits is cut down to them', async () => {
  const memory = openMemory()
  const first = await start(memory)
  for (const clientId of ['a', 'b']) await absentee(first, clientId, '#')
  const writer = await rawClient(first.port, { clientId: 'writer' })
  for (let id = 1; id <= 4; id += 1) writer.send(retain(`t/${id}`, 'x', id))
  await writer.packet('puback', 4)
  writer.close()
  first.stop()
  const second = await start(memory, { sessionsMax: 1, queuedMessagesMax: 2, retainedMessagesMax: 3 })
  assert.equal([...memory.sessions.keys()], ['b'])
  assert.equal(
    [...memory.queued.values()].map(({ topic }) => topic),
    ['t/1', 't/2'],
  )
  assert.is(memory.retained.size, 3)
  second.stop()
})

test.run()
