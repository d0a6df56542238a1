// An existing broker in the place of the embedded one: a real Mosquitto, its persistent session, its restarts.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Installation, until } from '../../bench/harness/installation.ts'
import { freePort } from '../../bench/harness/ports.ts'
import { type Started, start } from '../../bench/harness/process.ts'
import {
  drained,
  ending,
  killed,
  linesOf,
  linkIs,
  QUIET,
  rowsOf,
  stopped,
  streamOf,
  verified,
  withInstallation,
} from './support.ts'

interface Mosquitto {
  readonly port: number
  start(): Promise<Started>
}

/** On a free port, with a store that survives its restart and a queue without a limit. */
const mosquitto = async (installation: Installation, more = ''): Promise<Mosquitto> => {
  const port = await freePort()
  const folder = join(installation.folder, 'mosquitto')
  mkdirSync(folder)
  const config = join(folder, 'mosquitto.conf')
  writeFileSync(
    config,
    `listener ${port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location ${folder}/\nmax_queued_messages 0\nlog_dest stderr\nlog_type all\n${more}`,
  )
  return {
    port,
    start: async () => {
      const started = start({ command: '/usr/sbin/mosquitto', args: ['-c', config] })
      await started.saying(/mosquitto version .* running/)
      return started
    },
  }
}
const through = ({ port }: Mosquitto, more: Readonly<Record<string, string>> = {}) => ({
  ...QUIET,
  EDGE_LOCAL_BROKER_ADDRESS: `127.0.0.1:${port}`,
  EDGE_LOCAL_BROKER_QOS: '2',
  ...more,
})

/** One message a line, in order; resolves when Mosquitto has taken them all. */
const publishLines = async (
  { port }: Mosquitto,
  topic: string,
  qos: 0 | 1 | 2,
  lines: readonly (number | string)[],
): Promise<void> => {
  const ended = await ending(
    'mosquitto_pub',
    ['-h', '127.0.0.1', '-p', String(port), '-q', String(qos), '-t', topic, '-l'],
    { stdin: `${lines.join('\n')}\n`, withinMs: 60_000 },
  )
  assert.is(ended.code, 0, ended.err)
}
const range = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i)

/** Number n as n bytes: Mosquitto's own log, which shows lengths, then says in which order it sent them. */
const sized = (numbers: readonly number[]): string[] => numbers.map(n => String(n).padStart(n, '0'))

/**
 * Mosquitto 2.0 lets a new message overtake its queue while it still resends to a client that came back. The order
 * that counts is the one in which it sent each for the first time.
 */
const sentOn = (running: Started, topic: string): number[] => [
  ...new Set(
    [
      ...running
        .said()
        .matchAll(
          new RegExp(
            `Sending PUBLISH to headgate-edge \\([^']*'${topic}', \\.\\.\\. \\((\\d+) bytes\\)`,
            'g',
          ),
        ),
    ].map(([, bytes]) => Number(bytes)),
  ),
]

/** How often it sent with DUP. */
const sentAgain = (running: Started, topic: string): number =>
  running.said().match(new RegExp(`Sending PUBLISH to headgate-edge \\(d1, [^']*'${topic}'`, 'g'))?.length ??
  0

const arrivedOn = async (installation: Installation, gateway: string, topic: string): Promise<number[]> =>
  (await linesOf(installation, gateway))
    .filter(line => line.topic === topic)
    .map(({ payload }) => Number(payload))

test('what devices publish through Mosquitto arrives in order and once, over SIGKILLs of the edge', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('through')
    const broker = await mosquitto(installation)
    const running = await broker.start()
    try {
      let edge = await gateway.start(through(broker))
      await linkIs(gateway, 'up')
      await publishLines(broker, 'line/calm', 1, range(1, 300))
      await publishLines(broker, 'line/calm2', 2, range(1, 300))
      await drained(gateway, { head: 600 })
      assert.equal(await arrivedOn(installation, 'through', 'line/calm'), range(1, 300))
      assert.equal(await arrivedOn(installation, 'through', 'line/calm2'), range(1, 300))

      const publishing = Promise.all([
        publishLines(broker, 'line/once', 2, sized(range(1, 1_500))),
        publishLines(broker, 'line/least', 1, sized(range(1, 1_500))),
      ])
      for (const waitMs of [150, 300, 80, 500]) {
        await sleep(waitMs)
        await killed(edge)
        edge = await gateway.start(through(broker))
      }
      await publishing
      // Offline, Mosquitto keeps what comes.
      await killed(edge)
      await publishLines(broker, 'line/once', 2, sized(range(1_501, 1_700)))
      edge = await gateway.start(through(broker))
      await until('everything has come', async () =>
        (await arrivedOn(installation, 'through', 'line/once')).includes(1_700) ? true : undefined,
      )
      await drained(gateway)

      const once = await arrivedOn(installation, 'through', 'line/once')
      assert.equal(
        once.toSorted((a, b) => a - b),
        range(1, 1_700),
        'QoS 2: all, once',
      )
      assert.equal(once, sentOn(running, 'line/once'), 'QoS 2: in the order in which Mosquitto sent them')
      const least = await arrivedOn(installation, 'through', 'line/least')
      assert.equal(
        [...new Set(least)].toSorted((a, b) => a - b),
        range(1, 1_500),
        'QoS 1: all',
      )
      assert.equal(
        [...new Set(least)],
        sentOn(running, 'line/least'),
        'QoS 1: first in the order in which Mosquitto sent them',
      )
      // Twice came only what Mosquitto itself sent again, because a kill kept our acknowledgement from it.
      const again = least.length - 1_500
      assert.ok(again <= sentAgain(running, 'line/least'), `${again} came twice`)
      assert.equal(
        (await rowsOf(installation, 'through')).map(({ gaps, repeated }) => [gaps.count, repeated]),
        [[0, 0]],
      )
      assert.is((await stopped(edge)).code, 0)
      await verified(installation, [gateway])
    } finally {
      await killed(running)
    }
  })
})

test('a restarted Mosquitto is found again, and what was open comes once', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('again')
    const broker = await mosquitto(installation)
    let running = await broker.start()
    try {
      const edge = await gateway.start(through(broker))
      await linkIs(gateway, 'up')
      await publishLines(broker, 'line/a', 2, range(1, 200))
      assert.is((await stopped(running)).code, 0)
      await edge.saying(/"ingest".*lost: /)
      await sleep(1_500)
      running = await broker.start()
      await until('it is subscribed again', async () =>
        (edge.said().match(/"msg":"subscribed"/g)?.length ?? 0) >= 2 ? true : undefined,
      )
      await publishLines(broker, 'line/a', 2, range(201, 400))
      await drained(gateway, { head: 400 })
      assert.equal(await arrivedOn(installation, 'again', 'line/a'), range(1, 400))
      // Commands, heartbeats and the protocol's own topics are no device data, here as little as on the embedded broker.
      for (const topic of ['commands/x', 'heartbeat/x/y', 'headgate/again/up/hello'])
        await publishLines(broker, topic, 1, [1])
      await publishLines(broker, 'line/a', 1, [401])
      await drained(gateway, { head: 401 })
      assert.is(streamOf(await gateway.status()).head, 401)
    } finally {
      await killed(running)
    }
  })
})

test('a message that is too large is told of and passed over: it does not come back for ever', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('poisoned')
    const broker = await mosquitto(installation)
    const running = await broker.start()
    try {
      const edge = await gateway.start(through(broker))
      await linkIs(gateway, 'up')
      const large = join(installation.folder, 'large')
      writeFileSync(large, Buffer.alloc(3 * 1024 * 1024, 'x'))
      for (const qos of ['1', '2']) {
        const ended = await ending('mosquitto_pub', [
          '-h',
          '127.0.0.1',
          '-p',
          String(broker.port),
          '-q',
          qos,
          '-t',
          'line/large',
          '-f',
          large,
        ])
        assert.is(ended.code, 0, ended.err)
      }
      await publishLines(broker, 'line/after', 2, range(1, 100))
      await drained(gateway, { head: 100 })
      assert.equal(await arrivedOn(installation, 'poisoned', 'line/after'), range(1, 100))
      assert.match(edge.said(), /line\/large: a record of 3145738 bytes is over the limit/)
      assert.is((await stopped(edge)).code, 0)
      await gateway.start(through(broker))
      await publishLines(broker, 'line/after', 2, [101])
      await drained(gateway, { head: 101 })
    } finally {
      await killed(running)
    }
  })
})

const FILLING = 1_000
/** More than trimming waits for, so that there is room soon after the cloud is back. */
const QUOTA_BYTES = 5 * 1024 * 1024
const FILLING_BYTES = 8_000

test('while the stream is full Mosquitto keeps what comes, and over its restart nothing is stored twice or out of turn', async () => {
  await withInstallation(async installation => {
    const cloud = await installation.startCloud()
    const gateway = await installation.enrol('full')
    const broker = await mosquitto(installation)
    let running = await broker.start()
    try {
      const small = { EDGE_STREAMS_DATA_MAX_BYTES: String(QUOTA_BYTES), EDGE_SEAL_COMPRESSION: 'plain' }
      const edge = await gateway.start(through(broker, small))
      await linkIs(gateway, 'up')
      await stopped(cloud)
      // Number n as 8,000 + n bytes; one append of a megabyte may overshoot the quota.
      const lines = range(1, FILLING).map(n => String(n).padStart(FILLING_BYTES + n, '0'))
      await publishLines(broker, 'line/full', 2, lines)
      await edge.saying(/"msg":"full"/)
      assert.ok(streamOf(await gateway.status()).head < (QUOTA_BYTES + 2 * 1024 * 1024) / FILLING_BYTES)
      const sent = sentOn(running, 'line/full')
      await stopped(running)
      running = await broker.start()
      await until('it is subscribed again', async () =>
        (edge.said().match(/"msg":"subscribed"/g)?.length ?? 0) >= 2 ? true : undefined,
      )
      await installation.startCloud()
      const all = await until(
        'everything has come',
        async () => {
          const arrived = await arrivedOn(installation, 'full', 'line/full')
          return arrived.length >= FILLING ? arrived : undefined
        },
        60_000,
        200,
      )
      await drained(gateway)
      assert.equal(
        all.toSorted((a, b) => a - b),
        range(1, FILLING),
        'once',
      )
      const order = [...new Set([...sent, ...sentOn(running, 'line/full')])].map(
        bytes => bytes - FILLING_BYTES,
      )
      assert.equal(all, order, 'in the order in which Mosquitto sent them')
    } finally {
      await killed(running)
    }
  })
})

test('a broker that is not there, or refuses, is named and tried again', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('refused')
    const password = join(installation.folder, 'passwords')
    assert.is((await ending('mosquitto_passwd', ['-b', '-c', password, 'gateway', 'right'])).code, 0)
    const broker = await mosquitto(
      installation,
      `password_file ${password}\n`.concat('allow_anonymous false\n'),
    )
    const starting = gateway.start(through(broker))
    starting.catch(() => undefined)
    const edge = installation.started.at(-1)
    assert.ok(edge !== undefined)
    await edge.saying(new RegExp(`127\\.0\\.0\\.1:${broker.port}.*ECONNREFUSED`))
    const running = await broker.start()
    try {
      await edge.saying(/refused the connection: .*(not authorised|CONNACK code 5)/)
      await killed(edge)
      const secret = join(installation.folder, 'secret')
      writeFileSync(secret, 'right\n')
      await gateway.start(
        through(broker, { EDGE_LOCAL_BROKER_USERNAME: 'gateway', EDGE_LOCAL_BROKER_PASSWORD_FILE: secret }),
      )
      const published = await ending('mosquitto_pub', [
        '-h',
        '127.0.0.1',
        '-p',
        String(broker.port),
        '-u',
        'gateway',
        '-P',
        'right',
        '-q',
        '1',
        '-t',
        'a',
        '-m',
        'x',
      ])
      assert.is(published.code, 0, published.err)
      await drained(gateway, { head: 1 })
    } finally {
      await killed(running)
    }
  })
})

test.run()
