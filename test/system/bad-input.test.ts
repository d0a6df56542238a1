// What comes over the wire and is wrong: refused with a reason, counted and shown, while what is sound goes on and
// others notice nothing.

import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { until } from '../../bench/harness/installation.ts'
import { packPart, packWhole } from '../../schemas/bundle.ts'
import { crcOf, readHeader, sealSkip } from '../../schemas/frame.ts'
import { bootIdOf, CHAIN_ZERO, epochOf, gatewayId, offset, streamName } from '../../schemas/ids.ts'
import { up } from '../../schemas/topics.ts'
import { issue, makeCa } from '../support/certificates.ts'
import { connected, publish } from './raw.ts'
import {
  deliveryOf,
  drained,
  json,
  linesOf,
  linkIs,
  QUIET,
  rowsOf,
  stopped,
  verified,
  withInstallation,
} from './support.ts'
import { attempt, frameAt, pemsOf, play } from './uplink.ts'

test('a certificate of another CA is refused with a reason, at both ends', async () => {
  await withInstallation(async installation => {
    const cloud = await installation.startCloud()
    const own = await installation.enrol('own')
    await own.start(QUIET)
    await linkIs(own, 'up')
    const { ca } = pemsOf(own)
    const alien = await issue(await makeCa('Another CA'), { cn: 'own' })
    // With TLS 1.3 a client hears of it only after its own handshake.
    assert.is.not(
      await attempt(installation.gatewaysPort, 'own', { ca, cert: alien.cert, key: alien.key }).answer,
      0,
    )
    await cloud.saying(/connection_tls.*certificate of an unknown CA/)
    await withInstallation(async other => {
      const otherCloud = await other.startCloud()
      // A gateway of ours at another's cloud: it does not trust that cloud, and says so.
      const stray = await installation.enrol('stray')
      const edge = await stray.start({ ...QUIET, EDGE_CLOUD_ADDRESS: `localhost:${other.gatewaysPort}` })
      await edge.saying(
        /"kind":"down","because":"localhost:\d+ refused the connection: certificate of an unknown CA"/,
      )
      // Node's client verifies behind its own handshake: no alert says why to the other end.
      await otherCloud.saying(/connection_tls.*it gave up during the TLS handshake/)
      assert.match((await stray.status()).link, /^down: .*certificate of an unknown CA/)
      assert.is((await stopped(edge)).code, 0)
      // One that trusts it, and is not trusted: the refusal comes from the cloud.
      const guest = await other.enrol('guest')
      const identity = JSON.parse(readFileSync(join(guest.folder, 'identity/identity.json'), 'utf8')) as {
        ca: string
      }
      writeFileSync(join(guest.folder, 'identity', identity.ca), ca)
      const guestEdge = await guest
        .start({ ...QUIET, EDGE_CLOUD_ADDRESS: `localhost:${installation.gatewaysPort}` })
        .catch((thrown: unknown) => thrown)
      if (guestEdge instanceof Error) assert.match(guestEdge.message, /identity/)
      else
        await until('it says why', async () =>
          /does not know the CA|may not accept this certificate|refuses this certificate/.test(
            (await guest.status()).link,
          )
            ? true
            : undefined,
        )
    })
    assert.is((await own.status()).link, 'up')
  })
})

test('nonsense from an enrolled gateway is refused, counted and shown; what is sound goes on, and so do others', async () => {
  await withInstallation(async installation => {
    const cloud = await installation.startCloud()
    const honest = await installation.enrol('honest')
    const broken = await installation.enrol('broken')
    await honest.start(QUIET)
    await linkIs(honest, 'up')
    const played = await play(installation.gatewaysPort, broken)
    const { stream } = played

    // Before any hello: nothing is taken, and a hello is asked for.
    played.send(packWhole([frameAt(stream, 1, 'too early')]))
    await played.client.publishAsync(up.hello(gatewayId('broken')), Buffer.from('{"protocol":1}'), { qos: 1 })
    await played.hello()

    const first = frameAt(stream, 1, 'first')
    const damaged = Buffer.from(first)
    damaged[damaged.length - 1] = 0xff ^ (damaged.at(-1) ?? 0)
    assert.is.not(crcOf(damaged), readHeader(damaged).crc)
    const position = { stream: stream.name, epoch: stream.epoch, first: offset(1) }
    const stamp = { wallMs: 0, monoMs: 0, bootId: bootIdOf(Buffer.alloc(8)), quality: 'unknown' as const }
    const nonsense: readonly (readonly [string, Buffer, string])[] = [
      ['no bundle', Buffer.from('hello'), 'frame_malformed'],
      ['an empty bundle', Buffer.of(1), 'frame_malformed'],
      [
        'a bundle that ends inside a frame',
        packWhole([first.subarray(0, first.length - 1)]),
        'frame_malformed',
      ],
      [
        'a frame that is none',
        packWhole([Buffer.concat([Buffer.from('XX'), first.subarray(2)])]),
        'frame_malformed',
      ],
      [
        'a part beyond its frame',
        packPart({ first: 1, total: 10, position: 8, bytes: Buffer.alloc(100) }),
        'frame_malformed',
      ],
      [
        'a frame of a gigabyte',
        packPart({ first: 1, total: 2 ** 30, position: 0, bytes: Buffer.alloc(100) }),
        'frame_malformed',
      ],
      ['a wrong CRC', packWhole([damaged]), 'frame_crc'],
      [
        'another epoch',
        packWhole([frameAt({ ...stream, epoch: epochOf(Buffer.alloc(8, 1)) }, 1, 'x')]),
        'frame_epoch',
      ],
      [
        'another stream',
        packWhole([frameAt({ ...stream, name: streamName('events') }, 1, 'x')]),
        'frame_malformed',
      ],
      [
        'a chain of its own',
        packWhole([frameAt(stream, 1, 'x', 'ab'.repeat(16) as typeof CHAIN_ZERO)]),
        'frame_chain',
      ],
    ]
    for (const [what, payload, code] of nonsense) {
      // A refusal may end the session, and one a second is told of each gateway.
      await played.hello()
      await sleep(1_050)
      played.send(payload)
      await until(
        `${what} shows in the view`,
        async () =>
          (await deliveryOf(installation, 'broken')).refused.find(
            each => each.code === code && each.stream === 'data',
          ),
        5_000,
      )
      assert.is(played.marked(), 0, what)
    }
    // An offset that is neither data nor a skip: asked for again, never taken.
    await played.hello()
    played.send(packWhole([frameAt(stream, 2, 'a gap before it')]))
    played.send(
      packWhole([
        sealSkip({ ...position, first: offset(3), count: 5, cause: 'quota', chain: CHAIN_ZERO }, stamp),
      ]),
    )
    await sleep(500)
    assert.is(played.marked(), 0)

    await played.hello()
    played.send(packWhole([first]))
    await until('the sound one is marked', async () => (played.marked() === 1 ? true : undefined))
    await played.close()

    const { refused: counted } = await deliveryOf(installation, 'broken')
    assert.ok(counted.reduce((sum, { count }) => sum + count, 0) >= nonsense.length, JSON.stringify(counted))
    const metrics = await (await installation.api('/metrics')).text()
    const [, rejected = '0'] =
      /headgate_cloud_rejected_total\{concern="ingestion",what="frame"\} (\d+)/.exec(metrics) ?? []
    assert.ok(Number(rejected) >= nonsense.length + 1, metrics)
    assert.match(cloud.said(), /broken: frame data 1 has CRC \d+, its bytes give \d+/)
    const events = await json<{ events: { event: { kind: string; gateway?: string } }[] }>(
      installation,
      '/api/events?limit=1000',
    )
    assert.ok(events.events.some(({ event }) => event.kind === 'frame_refused' && event.gateway === 'broken'))
    assert.equal(
      (await linesOf(installation, 'broken')).map(({ payload }) => payload),
      ['first'],
    )

    const device = await connected(honest.localPort, { clientId: 'device' })
    device.send(publish('fine', 1, 1))
    await device.packet('puback')
    device.close()
    await drained(honest, { head: 1, withinMs: 5_000 })
    assert.equal((await deliveryOf(installation, 'honest')).refused, [])
    assert.equal(
      (await rowsOf(installation, 'honest')).map(({ summary }) => summary),
      ['received 1…1, 0 gaps'],
    )
    assert.is((await honest.status()).link, 'up')
    await verified(installation, [honest])
  })
})

test('a message above every limit costs its sender the connection, and nobody else anything', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('heavy')
    await gateway.start(QUIET)
    const calm = await connected(gateway.localPort, { clientId: 'calm' })
    const heavy = await connected(gateway.localPort, { clientId: 'heavy' })
    heavy.send(publish('heavy', 1, 1, Buffer.alloc(1024 * 1024 + 1)))
    await until('it is sent away', async () => (heavy.isClosed() ? true : undefined))
    assert.is(heavy.count('puback'), 0)
    const largest = await connected(gateway.localPort, { clientId: 'largest' })
    largest.send(publish('large', 1, 1, randomBytes(1024 * 1024 - 5)))
    await largest.packet('puback')
    largest.close()
    calm.send(publish('calm', 1, 1, 'still here'))
    await calm.packet('puback')
    calm.close()
    await drained(gateway, { head: 2 })
    assert.equal(
      (await linesOf(installation, 'heavy')).map(({ topic }) => topic),
      ['large', 'calm'],
    )
  })
})

test.run()
