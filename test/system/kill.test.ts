// Killed with SIGKILL, on either side and at any moment: everything that a device was told was taken arrives once, in
// order, and the account of the gateway says so.

import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { audit } from '../../bench/harness/audit.ts'
import { produce, sequenceOf } from '../../bench/harness/generator.ts'
import { openProducer } from './producer.ts'
import { delivered, drained, killed, linkIs, QUIET, rowsOf, verified, withInstallation } from './support.ts'

const RECORDS = 100_000
const CONNECTIONS = 8

test('the cloud killed, 100,000 messages published, the edge killed: all are there in order, once', async () => {
  await withInstallation(async installation => {
    const cloud = await installation.startCloud()
    const gateway = await installation.enrol('killed')
    const edge = await gateway.start(QUIET)
    await linkIs(gateway, 'up')
    await killed(cloud)

    const produced = await produce({ port: gateway.localPort, connections: CONNECTIONS, records: RECORDS })
    await killed(edge)
    await gateway.start(QUIET)
    await installation.startCloud()
    await drained(gateway, { head: RECORDS, withinMs: 60_000 })

    const row = await delivered(installation, 'killed', RECORDS)
    assert.is(row.summary, `received 1…${RECORDS}, 0 gaps`)
    assert.equal(
      [row.records, row.gaps.count, row.repeated, row.skips.count, row.forks.length],
      [RECORDS, 0, 0, 0, 0],
    )
    assert.is((await rowsOf(installation, 'killed')).length, 1)
    const audited = await audit(installation, 'killed', produced.acknowledged, line => ({
      producer: Number(line.topic?.split('/')[1]),
      sequence: sequenceOf(line.payload),
    }))
    assert.equal(audited, { records: RECORDS, lost: 0, duplicated: 0, disordered: 0 })
    await verified(installation, [gateway])
  })
})

const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 32))
/** Mulberry32. */
const randomOf = (state: number) => (): number => {
  state = (state + 0x6d2b79f5) | 0
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
}
const KILLS = 10
const PRODUCERS = 3

test(`both ends killed at any moment while devices go on (SEED=${seed})`, async () => {
  const random = randomOf(seed)
  const between = (low: number, high: number): number => Math.round(low + random() * (high - low))
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('stormy')
    await gateway.start(QUIET)
    const running = { cloud: installation.started.at(-2), edge: installation.started.at(-1) }
    const producers = Array.from({ length: PRODUCERS }, (_, each) =>
      openProducer({
        port: gateway.localPort,
        name: `device-${each}`,
        window: 200,
        perBeat: 8,
        message: sequence => ({
          topic: `storm/${each}`,
          payload: Buffer.from(`[{"n":"count","v":${sequence}}]`),
        }),
      }),
    )

    const plan: string[] = []
    for (let kill = 0; kill < KILLS; kill++) {
      const side = random() < 0.6 ? 'edge' : 'cloud'
      // A third of them while it starts.
      const waitMs = random() < 0.3 ? between(0, 400) : between(400, 1_500)
      plan.push(`${side} after ${waitMs} ms`)
      await sleep(waitMs)
      const victim = running[side]
      if (victim !== undefined) await killed(victim)
      await sleep(random() < 0.5 ? 0 : between(0, 500))
      const starting = side === 'edge' ? gateway.start(QUIET) : installation.startCloud()
      // The next kill may come before it is ready.
      starting.catch(() => undefined)
      running[side] = installation.started.at(-1)
    }
    console.log(`kills: ${plan.join(', ')}`)
    await sleep(500)
    await Promise.all(producers.map(producer => producer.finish()))

    await linkIs(gateway, 'up', 60_000)
    const head = await drained(gateway, {
      head: producers.reduce((sum, producer) => sum + producer.acknowledged(), 0),
      withinMs: 60_000,
    })
    const row = await delivered(installation, 'stormy', head)
    assert.is(row.summary, `received 1…${head}, 0 gaps`)
    assert.equal([row.records, row.gaps.count, row.repeated, row.forks.length], [head, 0, 0, 0])

    const arrived = producers.map(() => new Map<number, number>())
    const audited = await audit(
      installation,
      'stormy',
      producers.map(producer => producer.acknowledged()),
      line => {
        const producer = Number(line.topic?.split('/')[1])
        const sequence = (line.payload as [{ v: number }])[0].v
        arrived[producer]?.set(sequence, (arrived[producer]?.get(sequence) ?? 0) + 1)
        return { producer, sequence }
      },
    )
    console.log(
      `acknowledged ${producers.map(producer => producer.acknowledged()).join(', ')}; resent and stored twice ${audited.duplicated}`,
    )
    assert.equal([audited.lost, audited.disordered, audited.records], [0, 0, head])
    for (const [each, producer] of producers.entries()) {
      const twice = [...(arrived[each] ?? [])].filter(([, times]) => times > 1).map(([sequence]) => sequence)
      assert.equal(
        twice.filter(sequence => !producer.atRisk.has(sequence)),
        [],
        'only what was open at a kill may be there twice',
      )
    }
    await verified(installation, [gateway])
  })
})

test.run()
