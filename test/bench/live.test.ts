// Live records, tiny: that every record comes through to both listeners, and that every field is there.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { endAll } from '../../bench/harness/process.ts'
import { silent } from '../../bench/harness/told.ts'
import { live } from '../../bench/live.ts'
import { flagsOf } from '../../bench/scenario.ts'

const LATENCIES = [
  ['northP50Ms', 'northP99Ms'],
  ['webSocketP50Ms', 'webSocketP99Ms'],
  ['northDuringDrainP50Ms', 'northDuringDrainP99Ms'],
  ['webSocketDuringDrainP50Ms', 'webSocketDuringDrainP99Ms'],
] as const

test.after(endAll)

test('live records reach the north side and the WebSocket, idle and during a drain', async () => {
  const flags = flagsOf(live, { tiny: true })
  const result = await live.run(flags, silent)
  const number = (name: string): number => {
    const value = result[name]
    assert.ok(typeof value === 'number' && Number.isFinite(value), `${name} is ${String(value)}`)
    return value as number
  }
  for (const [median, tail] of LATENCIES) {
    assert.ok(number(median) > 0 && number(median) <= number(tail), `${median} ${number(median)}`)
    assert.ok(number(tail) < 5_000, `${tail} is ${number(tail)}`)
  }
  assert.ok(number('devicePubackP99Ms') > 0, 'an acknowledgement takes time')
  assert.ok(number('northP50Ms') > 0.5, 'two commits lie on the way')
  // Fifty a second for two seconds; a busy machine may take some of them late, but none may be missing.
  assert.ok(number('records') >= 80, `${number('records')} records`)
  assert.ok(number('recordsDuringDrain') >= 15, `${number('recordsDuringDrain')} records`)
  assert.is(number('lost'), 0)
  assert.is(number('webSocketUnseen'), 0)
  assert.is(number('drainRecords'), flags.records)
  for (const name of ['tls', 'durable', 'projections']) assert.is(result[name], true, name)
})

test.run()
