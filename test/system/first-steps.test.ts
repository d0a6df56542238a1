// What a new user does first, with the programs and the clients that they have.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { until } from '../../bench/harness/installation.ts'
import { start } from '../../bench/harness/process.ts'
import {
  CLOUD,
  drained,
  EDGE,
  ending,
  json,
  killed,
  linesOf,
  linkIs,
  node,
  QUIET,
  rowsOf,
  stopped,
  verified,
  withInstallation,
} from './support.ts'

/** What a running program has for work in flight (stopMsMax), and a second to end. */
const STOP_MS_MAX = 6_000

interface Latest {
  readonly values: readonly { readonly name: string; readonly value: unknown; readonly unit?: string }[]
  readonly topics: readonly { readonly topic: string; readonly preview: string }[]
}

test('mosquitto_pub on the gateway shows up in the API within a second, and again after a second start', async () => {
  await withInstallation(async installation => {
    const cloud = await installation.startCloud()
    const gateway = await installation.enrol('first')
    const edge = await gateway.start(QUIET)
    await linkIs(gateway, 'up')

    const publish = async (topic: string, message: string): Promise<number> => {
      const published = await ending('mosquitto_pub', [
        '-h',
        '127.0.0.1',
        '-p',
        String(gateway.localPort),
        '-q',
        '1',
        '-t',
        topic,
        '-m',
        message,
      ])
      assert.is(published.code, 0, published.err)
      return performance.now()
    }
    const latestOf = async (name: string): Promise<unknown> =>
      (await json<Latest>(installation, '/api/gateways/first/latest')).values.find(
        value => value.name === name,
      )?.value

    const senmlAt = await publish(
      'plant/boiler',
      '[{"bn":"urn:dev:boiler:","n":"temperature","u":"Cel","v":81.5}]',
    )
    await until(
      'the value is in the view',
      async () => ((await latestOf('urn:dev:boiler:temperature')) === 81.5 ? true : undefined),
      5_000,
      10,
    )
    const shownAfterMs = performance.now() - senmlAt
    assert.ok(shownAfterMs <= 1_000, `shown after ${shownAfterMs} ms`)

    const textAt = await publish('plant/door', 'open')
    const seen = await until(
      'the text is in the view',
      async () =>
        (await json<Latest>(installation, '/api/gateways/first/latest')).topics.find(
          each => each.topic === 'plant/door',
        ),
      5_000,
      10,
    )
    assert.is(seen.preview, 'open')
    assert.ok(performance.now() - textAt <= 1_000)

    const status = await node([EDGE, 'status', '--json', '--data', gateway.folder])
    assert.is(status.code, 0, status.err)
    assert.is((JSON.parse(status.out) as { gateway: string }).gateway, 'first')
    const table = await node([EDGE, 'status', '--data', gateway.folder])
    assert.is(table.code, 0, table.err)
    assert.match(table.out, /first · up/)
    await verified(installation, [gateway])

    const [edgeEnd, cloudEnd] = [await stopped(edge), await stopped(cloud)]
    assert.is(edgeEnd.code, 0, edge.said())
    assert.ok(edgeEnd.tookMs <= STOP_MS_MAX, `the edge took ${edgeEnd.tookMs} ms`)
    assert.is(cloudEnd.code, 0, cloud.said())
    assert.ok(cloudEnd.tookMs <= STOP_MS_MAX, `the cloud took ${cloudEnd.tookMs} ms`)
    await verified(installation, [gateway])
    const offline = await node([EDGE, 'status', '--data', gateway.folder])
    assert.is(offline.code, 1)
    assert.match(offline.err, /is headgate-edge running/)

    const cloudAgain = await installation.startCloud()
    const edgeAgain = await gateway.start(QUIET)
    assert.is(
      await until(
        'the views are back',
        async () => (await latestOf('urn:dev:boiler:temperature')) ?? undefined,
      ),
      81.5,
    )
    await linkIs(gateway, 'up')
    await publish('plant/boiler', '[{"bn":"urn:dev:boiler:","n":"temperature","u":"Cel","v":82}]')
    await until(
      'the new value is in the view',
      async () => ((await latestOf('urn:dev:boiler:temperature')) === 82 ? true : undefined),
      5_000,
      10,
    )
    await drained(gateway, { head: 3 })
    assert.equal(
      (await linesOf(installation, 'first')).map(({ offset, topic, qos }) => [offset, topic, qos]),
      [
        [1, 'plant/boiler', 1],
        [2, 'plant/door', 1],
        [3, 'plant/boiler', 1],
      ],
    )
    const rows = await rowsOf(installation, 'first')
    assert.equal(
      rows.map(row => row.summary),
      ['received 1…3, 0 gaps'],
    )
    assert.is((await stopped(edgeAgain)).code, 0)
    assert.is((await stopped(cloudAgain)).code, 0)
    await verified(installation, [gateway])
  })
})

test('mosquitto_sub on the north side gets what devices publish, under the channel of their gateway', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('north')
    const listed = await node([CLOUD, 'gateway', 'list', '--json', '--data', installation.cloudFolder])
    assert.is(listed.code, 0, listed.err)
    const [known] = JSON.parse(listed.out) as { id: string; dataChannel: string; token?: unknown }[]
    assert.is(known?.id, 'north')
    assert.is(known?.token, undefined)

    const subscriber = start({
      command: 'stdbuf',
      args: [
        '-oL',
        'mosquitto_sub',
        '-h',
        '127.0.0.1',
        '-p',
        String(installation.northPort),
        '-q',
        '1',
        '-d',
        '-F',
        '%t %p',
        '-t',
        `channels/${known?.dataChannel}/messages/#`,
      ],
    })
    try {
      await subscriber.saying(/received SUBACK/)
      await gateway.start(QUIET)
      await linkIs(gateway, 'up')
      const published = await ending('mosquitto_pub', [
        '-h',
        '127.0.0.1',
        '-p',
        String(gateway.localPort),
        '-q',
        '1',
        '-t',
        'plant/line/1',
        '-m',
        'seven',
      ])
      assert.is(published.code, 0, published.err)
      await subscriber.saying(
        new RegExp(`^channels/${known?.dataChannel}/messages/plant/line/1 seven$`, 'm'),
        5_000,
      )
    } finally {
      await killed(subscriber)
    }
  })
})

test('both programs say what they can do, and what is missing when they were not set up', async () => {
  for (const [program, words] of [
    [CLOUD, ['init', 'run', 'gateway', 'log']],
    [EDGE, ['enroll', 'run', 'status', 'log']],
  ] as const) {
    const help = await node([program, '--help'])
    assert.is(help.code, 0)
    for (const word of words) assert.match(help.out, new RegExp(`^\\s+${word}\\b`, 'm'))
  }
  const cloud = await node([CLOUD, 'run', '--data', '/nonexistent/headgate'])
  assert.is(cloud.code, 1)
  assert.match(
    cloud.err,
    /no configuration at \/nonexistent\/headgate\/headgate-cloud\.toml: run "headgate-cloud init" first/,
  )
})

test.run()
