// Limits of the broker's memory, and the small pure parts.

import * as fc from 'fast-check'
import { generate } from 'mqtt-packet'
import { VirtualTimeScheduler } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { offenders } from '../../../streams/mqtt/offenders.ts'
import { packetMeter, publishHead } from '../../../streams/mqtt/packets.ts'
import { clock, pause, plainAt, startBroker, until } from './harness.ts'
import { publishPacket, rawClient } from './raw.ts'

test('a PUBLISH is byte for byte what the library would write', () => {
  void fc.assert(
    fc.property(
      fc.record({
        topic: fc
          .string({ minLength: 1, maxLength: 40, unit: 'grapheme' })
          .filter(topic => !/[+#\0]/.test(topic)),
        payload: fc
          .constantFrom(0, 1, 100, 127, 128, 16_383, 16_384, 70_000)
          .map(size => Buffer.alloc(size, 7)),
        qos: fc.constantFrom(0 as const, 1 as const),
        retain: fc.boolean(),
        messageId: fc.integer({ min: 1, max: 65_535 }),
      }),
      packet => {
        const ours = Buffer.concat([publishHead(packet), packet.payload])
        assert.ok(ours.equals(generate({ cmd: 'publish', dup: false, ...packet })))
      },
    ),
    { numRuns: 200 },
  )
})

test('the meter passes packets up to the limit and stops larger ones, however they are cut', () => {
  void fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 300 }), { minLength: 1, maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 10 }),
      (sizes, cuts) => {
        const packets = sizes.map(size => generate(publishPacket('a', 1, 1, Buffer.alloc(size))))
        const bytes = Buffer.concat(packets)
        const meter = packetMeter(205)
        let passed = true
        for (let at = 0, i = 0; at < bytes.length && passed; i += 1) {
          const end = at + (cuts[i % cuts.length] ?? 1)
          passed = meter(bytes.subarray(at, end))
          at = end
        }
        // Topic, its length and the packet id make 5 bytes beside the payload.
        assert.is(
          passed,
          sizes.every(size => size + 5 <= 205),
        )
      },
    ),
    { numRuns: 200 },
  )
})

test('an offender is held off for longer each time, and forgotten after good behaviour', () => {
  const time = { ms: 0 }
  const seen = offenders({ ...clock, monoMs: () => time.ms, scheduler: new VirtualTimeScheduler() })
  const offend = (times: number) => {
    for (let n = 0; n < times; n += 1) seen.offended('d1')
  }
  offend(2)
  assert.is(seen.heldOffMs('d1'), 0)
  time.ms += 60_000
  offend(2)
  assert.is(seen.heldOffMs('d1'), 0, 'a minute later they no longer count')
  offend(1)
  assert.is(seen.heldOffMs('d1'), 10_000)
  assert.is(seen.heldOff(), 1)
  assert.is(seen.heldOffMs('d2'), 0)
  time.ms += 10_000
  assert.is(seen.heldOffMs('d1'), 0)
  offend(1)
  assert.is(seen.heldOffMs('d1'), 20_000)
  time.ms += 700_000
  offend(3)
  assert.is(seen.heldOffMs('d1'), 10_000)
})

test('the table of offenders is bounded', () => {
  const seen = offenders(clock, {
    offencesMax: 1,
    windowMs: 1,
    firstHoldMs: 1e6,
    holdMsMax: 1e6,
    offendersMax: 3,
  })
  for (const who of ['a', 'b', 'c', 'd']) seen.offended(who)
  assert.is(seen.heldOffMs('a'), 0)
  assert.is(seen.heldOff(), 3)
})

test('messages for an absent client that keeps its session wait, up to the limit', async () => {
  const { port, broker, stop } = await startBroker(plainAt())
  const reader = await rawClient(port, { clientId: 'reader', clean: false })
  reader.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'a/#', qos: 1 }] })
  await reader.packet('suback')
  reader.close()
  await until(() => broker.clients().length === 0)
  const writer = await rawClient(port, { clientId: 'writer' })
  await writer.packet('connack')
  for (let id = 1; id <= 1_010; id += 1) writer.send(publishPacket('a/b', 1, id, `${id}`))
  await writer.packet('puback', 1_010)
  await until(() => broker.stats().dropped === 10)
  const back = await rawClient(port, { clientId: 'reader', clean: false })
  await back.packet('publish', 1_000)
  const got = back.received.flatMap(packet =>
    packet.cmd === 'publish' ? [Number(packet.payload.toString())] : [],
  )
  assert.equal(
    got,
    Array.from({ length: 1_000 }, (_, i) => i + 1),
  )
  for (const packet of back.received)
    if (packet.cmd === 'publish' && packet.messageId !== undefined)
      back.send({ cmd: 'puback', messageId: packet.messageId })
  await pause(50)
  writer.send(publishPacket('a/b', 1, 1, 'fresh'))
  await back.packet('publish', 1_001)
  back.close()
  writer.close()
  stop()
})

test('a refused filter beside a granted one does not fill the queue of an absent client', async () => {
  const { port, broker, stop } = await startBroker(plainAt(), {
    refuseSubscribe: (_, filter) => (filter.startsWith('secret') ? 'no' : undefined),
  })
  const reader = await rawClient(port, { clientId: 'reader', clean: false })
  const subscriptions = ['open', 'secret'].map(topic => ({ topic, qos: 1 as const }))
  reader.send({ cmd: 'subscribe', messageId: 1, subscriptions })
  await reader.packet('suback')
  reader.close()
  await until(() => broker.clients().length === 0)
  const writer = await rawClient(port, { clientId: 'writer' })
  writer.send(publishPacket('secret', 1, 1), publishPacket('open', 1, 2))
  await writer.packet('puback', 2)
  const back = await rawClient(port, { clientId: 'reader', clean: false })
  await back.packet('publish')
  await pause(50)
  assert.equal(
    back.received.flatMap(packet => (packet.cmd === 'publish' ? [packet.topic] : [])),
    ['open'],
  )
  back.close()
  writer.close()
  stop()
})

test('a retained message is there for who comes later, with its flag', async () => {
  const { port, stop } = await startBroker(plainAt())
  const writer = await rawClient(port, { clientId: 'writer' })
  writer.send({ cmd: 'publish', topic: 'a', payload: 'kept', qos: 1, messageId: 1, retain: true, dup: false })
  await writer.packet('puback')
  const reader = await rawClient(port, { clientId: 'reader' })
  reader.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: '#', qos: 1 }] })
  const got = await reader.packet('publish')
  assert.ok(got.cmd === 'publish' && got.retain && got.payload.toString() === 'kept')
  reader.close()
  writer.close()
  stop()
})

test.run()
