// An acknowledgement to a device and a mark to a gateway follow fdatasync: seen from the kernel, on the real programs.
// One message at a time, so that each acknowledgement belongs to one commit.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openRelay } from '../../bench/harness/relay.ts'
import { connected, publish } from './raw.ts'
import { drained, linkIs, QUIET, withInstallation } from './support.ts'
import { type Call, durableAt, durableDescriptors, isWrite, traced } from './trace.ts'

const MESSAGES = 20
const EDGE_LOG = /\/log\.mdb$/
const CLOUD_DATA_LOG = /\/log\/data\/[^/]+\.mdb$/
/** A PUBACK to a gateway takes 26 bytes in TLS, a mark some hundreds. */
const MARK_BYTES_MIN = 200

const marker = (kind: string, n: number): string => `<${kind}-message-${String(n).padStart(4, '0')}>`

/** Packets of one kind that went to a device: type and flags, a length of 2, and the id behind them. */
const packetsTo = (calls: readonly Call[], port: number, first: string): Call[] =>
  calls.filter(
    call =>
      isWrite(call) &&
      call.on.startsWith(`TCP:[127.0.0.1:${port}->`) &&
      call.text.startsWith(`, "${first}\\2`),
  )

test('PUBACK and PUBREC to a device, and the mark to a gateway, follow fdatasync', async () => {
  await withInstallation(async installation => {
    const cloud = await installation.startCloud()
    const gateway = await installation.enrol('durable')
    const edge = await gateway.start(QUIET)
    await linkIs(gateway, 'up')
    // The first commits make tables: not what is measured.
    const device = await connected(gateway.localPort, { clientId: 'device', clean: false })
    device.send(publish('durable', 1, 1))
    await device.packet('puback')
    await drained(gateway, { head: 1 })

    const edgeMeta = durableDescriptors(edge.pid)
    const cloudMeta = durableDescriptors(cloud.pid)
    const [edgeTrace, cloudTrace] = [await traced(edge), await traced(cloud)]
    for (let n = 1; n <= MESSAGES; n++) {
      device.send(publish('durable', 1, n + 1, marker('once', n)))
      await device.packet('puback', n + 1)
      await drained(gateway, { head: n + 1 })
    }
    for (let n = 1; n <= MESSAGES; n++) {
      device.send(publish('durable', 2, n, marker('exactly', n)))
      await device.packet('pubrec', n)
      await drained(gateway, { head: 1 + MESSAGES + n })
      device.send({ cmd: 'pubrel', messageId: n })
      await device.packet('pubcomp', n)
    }
    const [edgeCalls, cloudCalls] = [await edgeTrace.stop(), await cloudTrace.stop()]
    device.close()

    const pubacks = packetsTo(edgeCalls, gateway.localPort, '@')
    const pubrecs = packetsTo(edgeCalls, gateway.localPort, 'P')
    const pubcomps = packetsTo(edgeCalls, gateway.localPort, 'p')
    assert.equal([pubacks.length, pubrecs.length, pubcomps.length], [MESSAGES, MESSAGES, MESSAGES])
    const marks = cloudCalls.filter(
      call =>
        isWrite(call) &&
        call.on.startsWith(`TCP:[127.0.0.1:${installation.gatewaysPort}->`) &&
        call.result >= MARK_BYTES_MIN,
    )
    assert.is(marks.length, 2 * MESSAGES, 'one mark for each message')

    const follows = (what: string, answer: Call | undefined, durable: number | string): void => {
      if (typeof durable === 'string') assert.unreachable(`${what}: ${durable}`)
      else
        assert.ok(
          answer !== undefined && answer.began > durable,
          `${what}: line ${answer?.began}, durable at ${durable}`,
        )
    }
    for (let n = 1; n <= MESSAGES; n++) {
      const before = pubacks[n - 2]?.ended ?? -1
      follows(
        `PUBACK ${n}`,
        pubacks[n - 1],
        durableAt(edgeCalls, { file: EDGE_LOG, marker: marker('once', n), after: before, meta: edgeMeta }),
      )
      const markBefore = marks[n - 2]?.ended ?? -1
      follows(
        `mark ${n}`,
        marks[n - 1],
        durableAt(cloudCalls, {
          file: CLOUD_DATA_LOG,
          marker: marker('once', n),
          after: markBefore,
          meta: cloudMeta,
        }),
      )
    }
    for (let n = 1; n <= MESSAGES; n++) {
      const before = pubcomps[n - 2]?.ended ?? pubacks.at(-1)?.ended ?? -1
      follows(
        `PUBREC ${n}`,
        pubrecs[n - 1],
        durableAt(edgeCalls, { file: EDGE_LOG, marker: marker('exactly', n), after: before, meta: edgeMeta }),
      )
      const markBefore = marks[MESSAGES + n - 2]?.ended ?? -1
      follows(
        `mark ${MESSAGES + n}`,
        marks[MESSAGES + n - 1],
        durableAt(cloudCalls, {
          file: CLOUD_DATA_LOG,
          marker: marker('exactly', n),
          after: markBefore,
          meta: cloudMeta,
        }),
      )
      // PUBCOMP frees the id for another message: its removal has to be on disk by then, whatever page it is on.
      const recorded = pubrecs[n - 1]?.ended ?? 0
      follows(
        `PUBCOMP ${n}`,
        pubcomps[n - 1],
        durableAt(edgeCalls, { file: EDGE_LOG, marker: '', after: recorded, meta: edgeMeta }),
      )
    }
  })
})

test('both ends of the uplink switch Nagle off on every connection, and so does the local broker', async () => {
  await withInstallation(async installation => {
    const cloud = await installation.startCloud()
    const relay = await openRelay(installation.gatewaysPort)
    try {
      const gateway = await installation.enrol('swift', { address: `localhost:${relay.port}` })
      await relay.cut()
      const edge = await gateway.start(QUIET)
      const traces = [await traced(edge), await traced(cloud)] as const
      // Twice: a resumed connection counts as well.
      for (const _ of ['full', 'resumed']) {
        await relay.restore()
        await linkIs(gateway, 'up')
        await relay.cut()
        await linkIs(gateway, 'down')
      }
      const device = await connected(gateway.localPort, { clientId: 'device' })
      device.close()
      const [edgeCalls, cloudCalls] = [await traces[0].stop(), await traces[1].stop()]

      const settings = (calls: readonly Call[]) =>
        calls.filter(call => call.name === 'setsockopt' && call.text.includes('TCP_NODELAY'))
      for (const call of [...settings(edgeCalls), ...settings(cloudCalls)]) {
        assert.match(call.text, /TCP_NODELAY, \[1\]/)
        assert.is(call.result, 0)
      }
      const set = (calls: readonly Call[], where: string) =>
        new Set(
          settings(calls)
            .map(({ on }) => on)
            .filter(on => on.includes(where)),
        ).size
      assert.is(
        set(edgeCalls, `->127.0.0.1:${relay.port}]`) + set(edgeCalls, `:${relay.port}]]`),
        2,
        'the gateway, on each connection',
      )
      assert.is(
        set(cloudCalls, `[127.0.0.1:${installation.gatewaysPort}->`),
        2,
        'the cloud, on each connection',
      )
      assert.is(set(edgeCalls, `[127.0.0.1:${gateway.localPort}->`), 1, 'the local broker')
    } finally {
      await relay.close()
    }
  })
})

test.run()
