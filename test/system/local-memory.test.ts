// What the gateway's own broker keeps for local programs outlives the edge, SIGKILL included: retained messages,
// subscriptions of programs that are away, and what was queued for them.

import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Gateway } from '../../bench/harness/installation.ts'
import { openProducer } from './producer.ts'
import { drained, type Ended, ending, killed, QUIET, verified, withInstallation } from './support.ts'

const QUEUED = 50

const mosquitto =
  (program: 'mosquitto_pub' | 'mosquitto_sub', { localPort }: Gateway) =>
  (...args: string[]): Promise<Ended> =>
    ending(program, ['-h', '127.0.0.1', '-p', String(localPort), '-q', '1', ...args])
const linesOf = ({ out }: Ended): string[] => out.split('\n').filter(line => line !== '')

test('the edge killed: retained messages, a subscription and its queue are there when it runs again', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('remembers')
    const edge = await gateway.start(QUIET)
    const publish = mosquitto('mosquitto_pub', gateway)
    const listen = mosquitto('mosquitto_sub', gateway)
    const published = async (...args: string[]): Promise<void> => {
      const { code, err } = await publish(...args)
      assert.equal([code, err], [0, ''])
    }

    const subscribed = await listen('-c', '-i', 'reader', '-t', 'plant/#', '-E')
    assert.is(subscribed.code, 0)
    await published('-r', '-t', 'state/door', '-m', 'open')
    await published('-r', '-t', 'state/door', '-m', 'closed')
    await published('-r', '-t', 'state/gone', '-m', 'x')
    await published('-r', '-t', 'state/gone', '-n')
    // No route takes this one: it is in no stream.
    await published('-r', '-t', 'heartbeat/pump/service', '-m', 'alive')
    await published('-t', 'plant/line', '-m', 'first', '--repeat', String(QUEUED))
    await published('-q', '2', '-t', 'plant/line', '-m', 'last')
    await killed(edge)

    const again = await gateway.start(QUIET)
    const retained = await listen('-t', 'state/#', '-t', 'heartbeat/#', '-W', '1', '-F', '%r %t %p')
    assert.equal(linesOf(retained).sort(), ['1 heartbeat/pump/service alive', '1 state/door closed'])
    await published('-t', 'plant/line', '-m', 'after')
    // It does not subscribe to plant/# again.
    const count = QUEUED + 2
    const heard = await listen(
      '-c',
      '-i',
      'reader',
      '-t',
      'elsewhere',
      '-C',
      String(count),
      '-W',
      '10',
      '-F',
      '%r %t %p',
    )
    assert.equal(linesOf(heard), [
      ...Array(QUEUED).fill('0 plant/line first'),
      '0 plant/line last',
      '0 plant/line after',
    ])
    // What was acknowledged is removed with the next commit, at the latest after the seal wait of 250 ms.
    await sleep(1_000)
    await killed(again)

    await gateway.start(QUIET)
    const rest = await listen('-c', '-i', 'reader', '-t', 'elsewhere', '-W', '1', '-F', '%p')
    assert.equal(linesOf(rest), [])
    await drained(gateway, { head: 4 + QUEUED + 2 })
    await verified(installation, [gateway])
  })
})

const KILLS = 4

test('killed while a device publishes: all that it was told was taken is queued for the program that is away', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('busy')
    let edge = await gateway.start(QUIET)
    const listen = mosquitto('mosquitto_sub', gateway)
    assert.is((await listen('-c', '-i', 'reader', '-t', 'plant/+', '-E')).code, 0)
    const producer = openProducer({
      port: gateway.localPort,
      name: 'device',
      window: 40,
      perBeat: 1,
      message: sequence => ({ topic: 'plant/line', payload: Buffer.from(String(sequence)) }),
    })
    for (let kill = 0; kill < KILLS; kill++) {
      await sleep(200 + 50 * kill)
      await killed(edge)
      edge = await gateway.start(QUIET)
    }
    await producer.finish()
    await killed(edge)
    await gateway.start(QUIET)

    const acknowledged = producer.acknowledged()
    assert.ok(
      acknowledged > 50 && acknowledged < 1_000 - 40 * (KILLS + 1),
      `${acknowledged}: within the queue's limit`,
    )
    const heard = linesOf(await listen('-c', '-i', 'reader', '-t', 'elsewhere', '-W', '3', '-F', '%p')).map(
      Number,
    )
    const first = heard.filter((sequence, at) => heard.indexOf(sequence) === at)
    assert.equal(
      first,
      Array.from({ length: acknowledged }, (_, sequence) => sequence),
    )
    const twice = heard.filter((sequence, at) => heard.indexOf(sequence) !== at)
    assert.equal(
      twice.filter(sequence => !producer.atRisk.has(sequence)),
      [],
    )
  })
})

test.run()
