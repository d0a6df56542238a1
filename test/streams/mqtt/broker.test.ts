// The embedded broker's promises to devices: acknowledgement after `done`, once for QoS 2, bounds and refusals.

import { type AddressInfo, connect, createServer } from 'node:net'
import { firstValueFrom, Observable, of } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { BrokerRules, Received } from '../../../streams/mqtt/broker.ts'
import { gatherWrites } from '../../../streams/mqtt/gather.ts'
import {
  message,
  outcome,
  pause,
  plainAt,
  startBroker,
  startLink,
  stateOf,
  textOf,
  until,
} from './harness.ts'
import { publishPacket, rawClient } from './raw.ts'

/** Takes messages and leaves it to the test when they are done. */
const holding = () => {
  const held: { received: Received; done: (error?: Error) => void }[] = []
  const take: BrokerRules['take'] = (received, done) => {
    held.push({ received, done })
  }
  return { held, take }
}

test('QoS 1 is acknowledged only after done, in the order of done', async () => {
  const { held, take } = holding()
  const { port, broker, stop } = await startBroker(plainAt(), { take })
  const raw = await rawClient(port)
  raw.send(publishPacket('a', 1, 1), publishPacket('a', 1, 2))
  await until(() => held.length === 2)
  await pause(50)
  assert.is(raw.count('puback'), 0)
  assert.is(broker.stats().held, 2)
  held[0]!.done()
  assert.is((await raw.packet('puback')).messageId, 1)
  await pause(20)
  assert.is(raw.count('puback'), 1)
  held[1]!.done()
  assert.is((await raw.packet('puback', 2)).messageId, 2)
  assert.is(broker.stats().held, 0)
  raw.close()
  stop()
})

test('a message that is not taken closes the connection without acknowledgement', async () => {
  const { held, take } = holding()
  const { port, state, stop } = await startBroker(plainAt(), { take })
  const raw = await rawClient(port)
  raw.send(publishPacket('a', 1, 1))
  await until(() => held.length === 1)
  held[0]!.done(new Error('disk full'))
  const { because } = await state('disconnected')
  assert.match(because, /disk full/)
  assert.is(raw.count('puback'), 0)
  stop()
})

test('a QoS 2 message is taken once, however often it comes', async () => {
  const { held, take } = holding()
  const { port, broker, stop } = await startBroker(plainAt(), { take })
  const raw = await rawClient(port, { clean: false })
  raw.send(publishPacket('a', 2, 7))
  await until(() => held.length === 1)
  await pause(30)
  assert.is(raw.count('pubrec'), 0, 'PUBREC waits for done')
  raw.send(publishPacket('a', 2, 7, 'x', true))
  await pause(30)
  assert.is(held.length, 1, 'one that is being taken is not taken beside')
  held[0]!.done()
  await raw.packet('pubrec', 2)
  raw.send(publishPacket('a', 2, 7, 'x', true))
  await raw.packet('pubrec', 3)
  raw.close()

  const again = await rawClient(port, { clean: false })
  again.send(publishPacket('a', 2, 7, 'x', true))
  await again.packet('pubrec')
  assert.is(held.length, 1)
  again.send({ cmd: 'pubrel', messageId: 7 })
  await again.packet('pubcomp')
  again.send(publishPacket('a', 2, 7, 'next'))
  await until(() => held.length === 2)
  assert.is(broker.stats().duplicates, 3)
  again.close()
  stop()
})

test('a QoS 2 message that comes again over a new connection waits for the first take', async () => {
  const { held, take } = holding()
  const { port, stop } = await startBroker(plainAt(), { take })
  const first = await rawClient(port, { clean: false })
  first.send(publishPacket('a', 2, 3))
  await until(() => held.length === 1)
  first.close()
  const second = await rawClient(port, { clean: false })
  second.send(publishPacket('a', 2, 3, 'x', true))
  await pause(50)
  assert.is(held.length, 1)
  held[0]!.done()
  await second.packet('pubrec')
  assert.is(held.length, 1)
  second.close()
  stop()
})

test('with the owner’s hooks a QoS 2 id survives a restart of the broker, and PUBCOMP waits for its release', async () => {
  const ids = new Set<number>()
  const taken: string[] = []
  let released = () => {}
  const rules: Partial<BrokerRules> = {
    take: (received, done) => {
      taken.push(textOf(received))
      if (received.messageId !== undefined) ids.add(received.messageId)
      done()
    },
    isHeldQos2: (_, id) => ids.has(id),
    releaseQos2: (_, id) =>
      new Observable(subscriber => {
        released = () => {
          ids.delete(id)
          subscriber.complete()
        }
      }),
  }
  const first = await startBroker(plainAt(), rules)
  const before = await rawClient(first.port, { clean: false })
  before.send(publishPacket('a', 2, 9))
  await before.packet('pubrec')
  first.stop()

  const second = await startBroker(plainAt(), rules)
  const after = await rawClient(second.port, { clean: false })
  after.send(publishPacket('a', 2, 9, 'x', true))
  await after.packet('pubrec')
  assert.equal(taken, ['a x'])
  after.send({ cmd: 'pubrel', messageId: 9 })
  await pause(50)
  assert.is(after.count('pubcomp'), 0)
  released()
  await after.packet('pubcomp')
  assert.is(ids.size, 0)
  after.send(publishPacket('a', 2, 9, 'new'))
  await after.packet('pubrec', 2)
  assert.equal(taken, ['a x', 'a new'])

  // A clean session starts afresh: its id 9 is another message.
  after.close()
  const clean = await rawClient(second.port, { clean: true })
  clean.send(publishPacket('a', 2, 9, 'other'))
  await clean.packet('pubrec')
  assert.equal(taken, ['a x', 'a new', 'a other'])
  clean.close()
  second.stop()
})

test('a release that fails sends no PUBCOMP and closes', async () => {
  const { port, state, stop } = await startBroker(plainAt(), {
    releaseQos2: () => new Observable(subscriber => subscriber.error(new Error('disk full'))),
  })
  const raw = await rawClient(port, { clean: false })
  raw.send(publishPacket('a', 2, 1))
  await raw.packet('pubrec')
  raw.send({ cmd: 'pubrel', messageId: 1 })
  assert.match((await state('disconnected')).because, /disk full/)
  assert.is(raw.count('pubcomp'), 0)
  stop()
})

test('a QoS 2 message reaches local subscribers once', async () => {
  const { port, stop } = await startBroker(plainAt())
  const { link, stop: leave } = startLink(port, { clientId: 'reader' })
  const heard: string[] = []
  link.messages('#').subscribe(incoming => heard.push(textOf(incoming)))
  await stateOf(link, 'up')
  const raw = await rawClient(port, { clean: false })
  raw.send(publishPacket('a', 2, 1, 'once'))
  await raw.packet('pubrec')
  raw.send(publishPacket('a', 2, 1, 'once', true))
  await raw.packet('pubrec', 2)
  raw.send({ cmd: 'pubrel', messageId: 1 })
  await raw.packet('pubcomp')
  await pause(30)
  assert.equal(heard, ['a once'])
  raw.close()
  leave()
  stop()
})

test('held publishes are back-pressure: the client is not read any more, and another one goes on', async () => {
  const { held, take } = holding()
  const { port, stop } = await startBroker(plainAt(), {
    take: (received, done) => (received.peer.clientId === 'quick' ? done() : take(received, done)),
  })
  const raw = await rawClient(port)
  await raw.packet('connack')
  const payload = Buffer.alloc(1_000)
  const total = 20_000
  for (let id = 1; id <= total; id += 1) raw.send(publishPacket('a', 1, id, payload))
  await pause(300)
  const stalled = held.length
  assert.ok(stalled > 0 && stalled < 2_000, `${stalled} are held`)
  assert.ok(raw.socket.writableLength > 1_000_000, 'the rest waits at the client')

  const quick = await rawClient(port, { clientId: 'quick' })
  quick.send(publishPacket('b', 1, 1))
  await quick.packet('puback')

  let done = 0
  while (done < total) {
    await until(() => held.length > done, `more than ${done}`)
    for (; done < held.length; done += 1) held[done]!.done()
  }
  await until(() => raw.count('puback') === total)
  assert.equal(
    held.map(({ received }) => received.messageId),
    Array.from({ length: total }, (_, i) => i + 1),
  )
  raw.close()
  quick.close()
  stop()
})

test('a client that pings behind held publishes gets no PINGRESP until they are done', async () => {
  const { held, take } = holding()
  const { port, state, stop } = await startBroker(plainAt(), { take })
  const raw = await rawClient(port, { keepalive: 1 })
  await raw.packet('connack')
  raw.send(publishPacket('a', 1, 1))
  await until(() => held.length === 1)
  // In the chunk after the held one: aedes reads on after each `readable`, so a ping passes a single held message.
  raw.send({ cmd: 'pingreq' })
  await raw.packet('pingresp')
  // Silent for one and a half keep-alives: cut, whether something is held or not.
  assert.match((await state('disconnected')).because, /keep alive/)
  stop()
})

test('$share and $SYS are refused, and so is what the rules refuse', async () => {
  const { port, broker, stop } = await startBroker(plainAt(), {
    refuseSubscribe: (_, filter) => (filter.startsWith('secret') ? 'not yours' : undefined),
  })
  const raw = await rawClient(port)
  const filters = ['$share/g/a', '$SYS/#', 'secret/#', 'fine/#']
  raw.send({
    cmd: 'subscribe',
    messageId: 1,
    subscriptions: filters.map(topic => ({ topic, qos: 1 as const })),
  })
  const suback = await raw.packet('suback')
  assert.equal(suback.cmd === 'suback' && suback.granted, [128, 128, 128, 1])
  assert.is(broker.stats().refusedSubscribes, 3)
  raw.close()
  stop()
})

test('a refused publish closes the connection; the third time in a minute the client is held off', async () => {
  const { port, state, stop } = await startBroker(plainAt(), {
    refusePublish: (_, topic) => (topic === 'bad' ? 'reserved' : undefined),
  })
  const offend = async () => {
    const raw = await rawClient(port)
    raw.send(publishPacket('bad', 1, 1))
    await until(() => raw.socket.destroyed)
    return raw
  }
  for (let n = 0; n < 3; n += 1) assert.is((await offend()).count('puback'), 0)
  const held = await rawClient(port)
  const connack = await held.packet('connack')
  assert.is(connack.cmd === 'connack' && connack.returnCode, 3)
  await state('refused', ({ code, because }) => code === 'unavailable' && /refused too often/.test(because))
  const other = await rawClient(port, { clientId: 'other' })
  const fine = await other.packet('connack')
  assert.is(fine.cmd === 'connack' && fine.returnCode, 0)
  other.close()
  stop()
})

test('the rule for CONNECT is asked before an older connection with the same id is closed', async () => {
  let isOpen = true
  const { port, broker, state, stop } = await startBroker(plainAt(), {
    connect: () =>
      of(isOpen ? { kind: 'allow' } : { kind: 'refuse', code: 'identifier', because: 'already connected' }),
  })
  const older = await rawClient(port)
  await state('connected')
  isOpen = false
  const newer = await rawClient(port)
  const connack = await newer.packet('connack')
  assert.is(connack.cmd === 'connack' && connack.returnCode, 2)
  older.send({ cmd: 'pingreq' })
  await older.packet('pingresp')
  assert.is(broker.clients().length, 1)
  isOpen = true
  const third = await rawClient(port)
  await third.packet('connack')
  assert.match((await state('disconnected')).because, /newer connection/)
  await until(() => older.socket.destroyed)
  third.send({ cmd: 'pingreq' })
  await third.packet('pingresp')
  assert.is(broker.clients().length, 1)
  third.close()
  stop()
})

test('a connection that answers is alive, one that does not is not', async () => {
  const { port, broker, state, stop } = await startBroker(plainAt())
  const { link, stop: leave } = startLink(port)
  await stateOf(link, 'up')
  await rawClient(port, { clientId: 'mute' })
  await state('connected', ({ peer }) => peer.clientId === 'g1')
  await state('connected', ({ peer }) => peer.clientId === 'mute')
  const alive = (id: string) => firstValueFrom(broker.isAlive(id, { topic: 'down/who', withinMs: 200 }))
  assert.is(await alive('g1'), true)
  assert.is(await alive('mute'), false)
  assert.is(await alive('nobody'), false)
  leave()
  stop()
})

test('a packet that announces more than the limit ends the connection before it is gathered', async () => {
  const { port, state, stop } = await startBroker(plainAt(), {}, { limits: { packetBytesMax: 100_000 } })
  const raw = await rawClient(port)
  await raw.packet('connack')
  raw.socket.write(Buffer.of(0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1, 97))
  assert.match((await state('disconnected')).because, /more than 100000 bytes/)
  stop()
})

test('a subscriber that does not read loses messages by count, and holds up nobody', async () => {
  const { port, broker, stop } = await startBroker(plainAt())
  const deaf = await rawClient(port, { clientId: 'deaf' })
  deaf.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: '#', qos: 0 }] })
  await deaf.packet('suback')
  deaf.socket.pause()
  const { link, stop: leave } = startLink(port)
  let heard = 0
  link.messages('#').subscribe(() => {
    heard += 1
  })
  await stateOf(link, 'up')
  const raw = await rawClient(port)
  await raw.packet('connack')
  const payload = Buffer.alloc(50_000)
  const total = 400
  for (let id = 1; id <= total; id += 1) raw.send(publishPacket('a', 1, id, payload))
  await until(() => raw.count('puback') === total && heard === total, 'all others got all', 20_000)
  assert.ok(broker.stats().dropped > 0)
  assert.ok(broker.stats().queuedBytes < 5_000_000)
  deaf.close()
  raw.close()
  leave()
  stop()
})

test('a client without CONNECT is closed in time', async () => {
  const { port, state, stop } = await startBroker(plainAt(), {}, { limits: { unauthenticatedMsMax: 100 } })
  const { connect } = await import('node:net')
  const silent = connect({ port, host: '127.0.0.1' })
  const { because, code } = await state('refused')
  assert.match(because, /CONNECT within 100 ms/)
  assert.is(code, 'protocol')
  silent.destroy()
  stop()
})

test('a port in use is a coded fault that names the key to change', async () => {
  const { port, stop } = await startBroker(plainAt())
  try {
    await startBroker({ kind: 'plain', host: '127.0.0.1', port, configKey: 'local.port' })
    assert.unreachable()
  } catch (thrown) {
    assert.instance(thrown, Error)
    assert.is(
      thrown instanceof Error && thrown.message,
      `127.0.0.1:${port} is in use by another program: stop it, or set local.port to another port`,
    )
  }
  stop()
})

test('who subscribes after others have published hears what comes next, and nothing once it has unsubscribed', async () => {
  const { port, stop } = await startBroker(plainAt())
  const device = startLink(port, { clientId: 'device' })
  await stateOf(device.link, 'up')
  const say = async (text: string) =>
    assert.is(await outcome(device.link.publish(message('plant/1', text))), 'done')
  await say('before')
  const { link, stop: leave } = startLink(port, { clientId: 'listener' })
  await stateOf(link, 'up')
  const heard: string[] = []
  const listening = link.messages('plant/+').subscribe(({ payload }) => heard.push(payload.toString()))
  await pause(50)
  await say('while')
  await until(() => heard.length === 1)
  listening.unsubscribe()
  await pause(50)
  await say('after')
  link.messages('plant/#').subscribe(({ payload }) => heard.push(payload.toString()))
  await pause(50)
  await say('again')
  await until(() => heard.length === 2)
  assert.equal(heard, ['while', 'again'])
  leave()
  device.stop()
  stop()
})

test('acknowledgements of one turn leave in their order, also around a larger packet and at the end', async () => {
  const server = createServer(socket => {
    gatherWrites(socket)
    for (let n = 0; n < 3_000; n++) socket.write(Buffer.of(n & 255, n >> 8))
    socket.write(Buffer.alloc(1_000, 7))
    socket.write(Buffer.of(1))
    socket.end(Buffer.of(2))
  }).listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))
  const client = connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port })
  const chunks: Buffer[] = []
  client.on('data', (chunk: Buffer) => chunks.push(chunk))
  await new Promise(resolve => client.once('end', resolve))
  server.close()
  const bytes = Buffer.concat(chunks)
  assert.is(bytes.length, 6_000 + 1_000 + 2)
  for (let n = 0; n < 3_000; n++) assert.is(bytes.readUInt16LE(2 * n), n)
  assert.ok(bytes.subarray(6_000, 7_000).every(byte => byte === 7))
  assert.equal([...bytes.subarray(7_000)], [1, 2])
})

test('consume: the owner is the only receiver, but what it publishes itself reaches subscribers', async () => {
  const { port, broker, stop } = await startBroker(plainAt(), { routing: 'consume' })
  const { link, stop: leave } = startLink(port)
  const heard: string[] = []
  link.messages('#').subscribe(incoming => heard.push(textOf(incoming)))
  await stateOf(link, 'up')
  assert.is(await outcome(link.publish(message('a'))), 'done')
  assert.is(await outcome(broker.publish({ topic: 'b', payload: Buffer.from('y'), qos: 1 })), 'done')
  await until(() => heard.length === 1)
  await pause(20)
  assert.equal(heard, ['b y'])
  leave()
  stop()
})

test.run()
