// The trickle's bench, tiny: nothing is lost on the way, and every field is there and in its order.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { silent } from '../../bench/harness/told.ts'
import { flagsOf } from '../../bench/scenario.ts'
import { trickle } from '../../bench/trickle.ts'

const POSITIVE = [
  'windowS',
  'flashBytesPerDayIdle',
  'flashBytesPerDayQos0',
  'flashBytesPerDayQos1',
  'flashBytesPerRecordQos0',
  'flashBytesPerRecordQos1',
  'flashBytesPerRecordQos0At50',
  'flashBytesPerRecordQos1At50',
  'wireBytesPerRecord',
  'wireBytesPerRecordQos0',
  'wireBytesPerRecordAt50',
  'wireBytesPerRecordQos0At50',
  'cloudWrittenBytesPerRecord',
  'idleWireBytesPerDay',
  'idleWireBytesPerDayDefault',
  'metricsWireBytes',
  'pingWireBytes',
  'connectWireBytes',
  'idleWindowS',
]

test('each field is there, and what is less costs less', async () => {
  const result = await trickle.run(flagsOf(trickle, { tiny: true }), silent)
  const of = (name: string): number => {
    const value = result[name]
    assert.ok(
      typeof value === 'number' && Number.isFinite(value) && value >= 0,
      `${name} is ${String(value)}`,
    )
    return value
  }
  for (const name of POSITIVE) assert.ok(of(name) > 0, name)
  for (const name of ['flashBytesPerDayMetered', 'idleWindowWireBytes']) of(name)
  assert.ok(of('windowS') >= 3)
  assert.ok(of('flashBytesPerRecordQos0At50') < of('flashBytesPerRecordQos1At50'), 'QoS 0 waits for company')
  assert.ok(of('wireBytesPerRecordQos0At50') < of('wireBytesPerRecordAt50'), 'and travels in company')
  // A packet of two bytes each way, in a TLS record of its own: 22 bytes more.
  assert.is(of('pingWireBytes'), 48)
  assert.ok(of('connectWireBytes') > 1_000, 'a full handshake with certificates')
  assert.ok(
    of('idleWireBytesPerDay') < of('idleWireBytesPerDayDefault'),
    'the metered profile is the thriftier',
  )
})

test.run()
