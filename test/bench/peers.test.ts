// Each rival does the job, tiny: that it works, and that what is said of it was measured. Without its program it is
// skipped, and says how to install it.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { senmlPayload } from '../../bench/harness/generator.ts'
import { endAll } from '../../bench/harness/process.ts'
import { silent } from '../../bench/harness/told.ts'
import { peers, ratiosOf } from '../../bench/peers/all.ts'
import { outageOf } from '../../bench/peers/outage.ts'
import type { Peer } from '../../bench/peers/peer.ts'
import { openTally } from '../../bench/peers/tally.ts'

const RECORDS = { mosquitto: 2_000, nats: 2_000, mqttjs: 300 } as const
const FIGURES = [
  'acceptPerSecond',
  'acceptP50Ms',
  'acceptP99Ms',
  'drainPerSecond',
  'firstAfterRestoreMs',
  'restoreToLastMs',
  'rssMb',
  'cloudRssMb',
] as const

for (const peer of peers) {
  const missing = peer.missing()
  if (missing !== undefined) process.stdout.write(`SKIPPED: ${peer.name} is not installed: ${missing}\n`)
  const here = missing === undefined ? test : test.skip
  here(`${peer.name} carries all over an outage`, async () => {
    const records = RECORDS[peer.name]
    const drained = await outageOf(peer, records, silent)
    assert.ok(!('missing' in drained))
    assert.is(drained.records, records)
    for (const field of FIGURES) {
      assert.ok(Number.isFinite(drained[field]) && drained[field] > 0, `${field} is ${drained[field]}`)
    }
    assert.ok(drained.restoreToLastMs >= drained.firstAfterRestoreMs)
    for (const field of ['lost', 'duplicated', 'disordered'] as const) assert.is(drained[field], 0, field)
    assert.match(drained.durability, /not synced/)
    assert.match(drained.configured, /\S/)
  })
}

test('a rival that is not installed is a hint, and the run goes on', async () => {
  const said: string[] = []
  const absent: Peer = {
    name: 'nats',
    durability: '',
    configured: '',
    missing: () => 'apt-get install nats-server',
    open: () => Promise.reject(new Error('it was opened')),
  }
  const found = await outageOf(absent, 10, { ...silent, say: line => said.push(line) })
  assert.equal(found, { missing: 'apt-get install nats-server' })
  assert.equal(said, ['nats is not installed: apt-get install nats-server'])
  assert.equal(ratiosOf(100, { mosquitto: 40, nats: undefined }), { mosquitto: 2.5 })
})

test('a tally finds what is lost, doubled and out of order', () => {
  const tally = openTally()
  for (const [producer, sequence] of [
    [8, 0],
    [8, 2],
    [8, 1],
    [9, 0],
    [9, 0],
    [9, 1],
  ] as const) {
    tally.take(Buffer.concat([Buffer.alloc(7), senmlPayload(producer, sequence)]), 7)
  }
  assert.is(tally.received(), 5)
  assert.equal(tally.audit(8, [4, 2]), { lost: 1, duplicated: 1, disordered: 1 })
  assert.throws(() => tally.take(Buffer.alloc(200, 'x'), 0), /not a message of this bench/)
  tally.fail(new Error('gone'))
  assert.throws(() => tally.received(), 'gone')
})

test.after(endAll)
test.run()
