// Nobody speaks for another: not a device on the local broker by topics alone, and not a gateway with another's name.

import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Gateway, type Installation, until } from '../../bench/harness/installation.ts'
import { start } from '../../bench/harness/process.ts'
import { packWhole } from '../../schemas/bundle.ts'
import { encodeHello, encodeMark, PROTOCOL_VERSION } from '../../schemas/hello.ts'
import { bootIdOf, chainSchema, type GatewayId, gatewayId, offset, streamName } from '../../schemas/ids.ts'
import { down, up } from '../../schemas/topics.ts'
import { connected, openDevice, publish } from './raw.ts'
import {
  CLOUD,
  deliveryOf,
  drained,
  json,
  killed,
  linesOf,
  linkIs,
  node,
  QUIET,
  stopped,
  verified,
  withInstallation,
} from './support.ts'
import { attempt, frameAt, pemsOf } from './uplink.ts'

/** Everything that the cloud knows of a gateway and that nobody else may change. */
const knownOf = async (installation: Installation, gateway: Gateway) => {
  const { streams, refused } = await deliveryOf(installation, gateway.id)
  const listed = await node([CLOUD, 'gateway', 'list', '--json', '--data', installation.cloudFolder])
  const { events } = await json<{ events: { event: { kind: string; gateway?: string } }[] }>(
    installation,
    '/api/events?limit=1000',
  )
  return {
    data: streams.filter(({ stream }) => stream === 'data'),
    refused,
    registry: (JSON.parse(listed.out) as { id: string }[]).find(({ id }) => id === gateway.id),
    events: events.filter(({ event }) => event.gateway === gateway.id).map(({ event }) => event.kind),
    records: await linesOf(installation, gateway.id),
  }
}

const channelsOf = async (
  installation: Installation,
  id: string,
): Promise<{ dataChannel: string; controlChannel: string }> => {
  const listed = await node([CLOUD, 'gateway', 'list', '--json', '--data', installation.cloudFolder])
  const found = (
    JSON.parse(listed.out) as { id: string; dataChannel: string; controlChannel: string }[]
  ).find(each => each.id === id)
  if (found === undefined) throw new Error(`no gateway ${id}`)
  return found
}

/** Every topic that the protocol has for a gateway. */
const protocolTopics = (id: GatewayId): string[] => [
  up.hello(id),
  up.session(id),
  up.gone(id),
  ...['data', 'events', 'gateway'].map(stream => up.export(id, streamName(stream))),
  down.mark(id),
  down.command(id),
  down.session(id),
  down.who(id),
  down.alive(id),
  down.whoAll(),
]

test('a device that publishes every protocol topic name changes nothing but its own data', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const own = await installation.enrol('own')
    const other = await installation.enrol('other')
    await own.start(QUIET)
    await other.start(QUIET)
    await Promise.all([linkIs(own, 'up'), linkIs(other, 'up')])
    for (const gateway of [own, other]) {
      const device = await connected(gateway.localPort, { clientId: 'honest' })
      device.send(publish('honest', 1, 1, gateway.id))
      await device.packet('puback')
      device.close()
      await drained(gateway, { head: 1 })
    }
    await until('the views know both', async () =>
      (await deliveryOf(installation, 'other')).streams.some(({ last }) => last === 1) ? true : undefined,
    )
    const before = {
      own: await knownOf(installation, own),
      other: await knownOf(installation, other),
      status: await own.status(),
    }
    const channels = {
      own: await channelsOf(installation, 'own'),
      other: await channelsOf(installation, 'other'),
    }
    const listener = start({
      command: 'stdbuf',
      args: [
        '-oL',
        'mosquitto_sub',
        '-h',
        '127.0.0.1',
        '-p',
        String(installation.northPort),
        '-d',
        '-t',
        `channels/${channels.other.dataChannel}/#`,
        '-t',
        `channels/${channels.other.controlChannel}/#`,
      ],
    })
    try {
      await listener.saying(/received SUBACK/)

      // Payloads that would work, if they were believed.
      const data = before.status.streams.find(({ name }) => name === 'data')
      const stream = { name: streamName('data'), epoch: (data?.epoch ?? '') as never }
      const far = { offset: offset(1_000), chain: chainSchema.parse('ab'.repeat(16)) }
      const payloads = [
        encodeMark({ streams: [{ ...stream, ...far }], creditBytes: 0 }),
        packWhole([frameAt(stream, 2, 'forged')]),
        encodeHello({
          protocol: PROTOCOL_VERSION,
          version: 'forged',
          connection: '0123456789abcdef',
          bootId: bootIdOf(Buffer.alloc(8)),
          clock: { wallMs: 0, quality: 'unknown' },
          streams: [
            { ...stream, origin: far, tail: offset(1_001), head: far.offset, mark: far, waitingBytes: 0 },
          ],
        }),
      ]
      const ignored = [
        ...[own, other].flatMap(({ id }) => protocolTopics(gatewayId(id))),
        'headgate',
        'headgate/own',
        'headgate/own/up/export',
        '$SYS/broker/uptime',
        '$SYS/own/new/clients',
        '$share/group/data',
        'heartbeat/thief/agent',
      ]
      const kept = [
        ...Object.values(channels).flatMap(({ dataChannel, controlChannel }) => [
          `channels/${dataChannel}/messages/x`,
          `channels/${controlChannel}/messages/req`,
          `channels/${controlChannel}/messages/services/export/config`,
        ]),
        '/headgate/other/up/hello',
        'Headgate/other/up/hello',
        'headgate-other/up/hello',
        'command/x',
      ]
      const device = await connected(own.localPort, {
        clientId: 'forger',
        will: { topic: up.gone(gatewayId('other')), payload: '' },
      })
      let id = 0
      for (const topic of [...ignored, ...kept]) {
        for (const payload of payloads) {
          id += 1
          device.send(publish(topic, 1, id, payload, false, id % 2 === 0), publish(topic, 0, 0, payload))
        }
      }
      await device.packet('puback', id)
      assert.is(device.isClosed(), false)
      device.socket.destroy()
      for (const topic of ['commands/export/config', 'commands']) {
        const sender = await connected(own.localPort, { clientId: `commander-${topic.length}` })
        sender.send(publish(topic, 1, 1, 'x'))
        await until('it is sent away', async () => (sender.isClosed() ? true : undefined))
        assert.is(sender.count('puback'), 0, topic)
      }
      const head = 1 + kept.length * payloads.length * 2
      await drained(own, { head })
      const after = await until('the view has seen it', async () => {
        const known = { own: await knownOf(installation, own), other: await knownOf(installation, other) }
        return known.own.data.some(({ last }) => last === head) ? known : undefined
      })
      assert.equal(after.other, before.other)
      assert.equal(
        [after.own.registry, after.own.events, after.own.refused],
        [before.own.registry, before.own.events, before.own.refused],
      )
      assert.is(after.own.data[0]?.summary, `received 1…${head}, 0 gaps`)
      assert.is(after.own.data[0]?.epoch, before.own.data[0]?.epoch)
      assert.equal([...new Set(after.own.records.slice(1).map(({ topic }) => topic))].sort(), kept.toSorted())
      assert.equal(
        (await own.status()).streams.map(({ name, epoch, head: end, marked }) => [
          name,
          epoch,
          end === marked,
        ]),
        before.status.streams.map(({ name, epoch }) => [name, epoch, true]),
      )
      assert.not.match(listener.said(), /messages/, 'nothing on the channels of the other')
    } finally {
      await killed(listener)
    }
    await verified(installation, [own, other])
  })
})

test('a certificate opens its own topics only', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const victim = await installation.enrol('victim')
    const thief = await installation.enrol('thief')
    const helper = await installation.enrol('helper')
    const edge = await victim.start(QUIET)
    await linkIs(victim, 'up')
    const device = await connected(victim.localPort, { clientId: 'honest' })
    device.send(publish('honest', 1, 1))
    await device.packet('puback')
    device.close()
    await drained(victim, { head: 1 })
    await until('the view knows it', async () =>
      (await deliveryOf(installation, 'victim')).streams.some(({ last }) => last === 1) ? true : undefined,
    )
    const before = await knownOf(installation, victim)

    const { gatewaysPort } = installation
    const victimId = gatewayId('victim')
    // Under another's name, and with a will for it.
    assert.is(await attempt(gatewaysPort, 'victim', pemsOf(thief)).answer, 2)
    assert.is(
      await attempt(gatewaysPort, 'thief', pemsOf(thief), {
        will: { topic: up.gone(victimId), payload: Buffer.alloc(0), qos: 1, retain: false },
      }).answer,
      5,
    )

    const listener = attempt(gatewaysPort, 'thief', pemsOf(thief))
    assert.is(await listener.answer, 0)
    const heard: string[] = []
    listener.client.on('message', topic => heard.push(topic))
    const filters = [
      '#',
      '+/#',
      'headgate/#',
      'headgate/+/down/mark',
      down.everything(victimId),
      down.mark(victimId),
      'headgate/all/#',
      'headgate/all/down/+',
      up.export(victimId, streamName('data')),
      'channels/#',
      '$SYS/#',
      `$share/group/${down.mark(victimId)}`,
      'headgate/thief/down/mark/#',
      'headgate/thief/#',
      'headgate/thief/+/mark',
    ]
    for (const filter of filters) {
      const granted = await listener.client.subscribeAsync(filter, { qos: 1 }).then(
        grants => grants[0]?.qos,
        () => 128,
      )
      assert.is(granted, 128, filter)
    }
    const mine = await listener.client.subscribeAsync(down.everything(gatewayId('thief')), { qos: 1 })
    assert.is(mine[0]?.qos, 1)
    await listener.client.endAsync(true)

    // A refused publish ends the connection; the third in a minute makes the client wait.
    const refusedBy = async (gateway: Gateway, topic: string): Promise<void> => {
      const { client, answer, isClosed } = attempt(gatewaysPort, gateway.id, pemsOf(gateway))
      assert.is(await answer, 0, topic)
      client.publish(topic, Buffer.from('x'), { qos: 1 }, () => undefined)
      await until(`${topic} is refused`, async () => (isClosed() ? true : undefined), 5_000)
    }
    for (const topic of [up.hello(victimId), up.export(victimId, streamName('data')), down.mark(victimId)])
      await refusedBy(thief, topic)
    assert.is(await attempt(gatewaysPort, 'thief', pemsOf(thief)).answer, 3, 'held off')
    for (const topic of [
      down.whoAll(),
      down.who(gatewayId('helper')),
      `channels/${(await channelsOf(installation, 'victim')).dataChannel}/messages/x`,
    ])
      await refusedBy(helper, topic)

    await sleep(500)
    assert.equal(heard, [])
    assert.equal(await knownOf(installation, victim), before)
    assert.is((await victim.status()).link, 'up')
    assert.is((await stopped(edge)).code, 0)
    await verified(installation, [victim])
  })
})

test('the north side takes nothing, and its listeners see channels only', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('south')
    await gateway.start(QUIET)
    await linkIs(gateway, 'up')
    const { controlChannel, dataChannel } = await channelsOf(installation, 'south')
    await until('the north side listens', async () => {
      const probe = openDevice(installation.northPort, { clientId: 'probe' })
      await probe.packet('connack')
      probe.close()
      return true
    })
    for (const topic of [
      `channels/${controlChannel}/messages/req`,
      `channels/${dataChannel}/messages/x`,
      up.hello(gatewayId('south')),
    ]) {
      const program = await connected(installation.northPort, { clientId: `program-${topic.length}` })
      program.send(publish(topic, 1, 1, 'x'))
      await until('it is sent away', async () => (program.isClosed() ? true : undefined))
      assert.is(program.count('puback'), 0, topic)
    }
    assert.equal(await linesOf(installation, 'south'), [])
  })
})

test.run()
