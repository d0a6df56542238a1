// The backlog's bench, tiny: the edge starts on a filled log, accepts, and drains what waited when the cloud is there.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { backlog } from '../../bench/backlog.ts'
import { silent } from '../../bench/harness/told.ts'
import { flagsOf } from '../../bench/scenario.ts'

const MEMORY = ['idleRssMb', 'rssMb', 'drainRssMb'].flatMap(name =>
  ['100k', '1m', '10m'].map(of => name + of),
)
const TIMES = [
  'startMs100k',
  'startMs10m',
  'acceptAfterStart100kMs',
  'acceptAfterStart1mMs',
  'acceptAfterStartMs',
]

test('an edge with a backlog accepts after its start and drains when the cloud is there', async () => {
  const result = await backlog.run(flagsOf(backlog, { tiny: true }), silent)
  const of = (name: string): number => {
    const value = result[name]
    assert.ok(typeof value === 'number' && Number.isFinite(value), `${name} is ${String(value)}`)
    return value
  }
  for (const name of MEMORY) assert.ok(of(name) > 10 && of(name) < 1_000, `${name} is ${of(name)}`)
  for (const name of TIMES) assert.ok(of(name) > 20 && of(name) < 30_000, `${name} is ${of(name)}`)
  assert.ok(Math.abs(of('rssGrowthMb') - (of('rssMb10m') - of('rssMb100k'))) < 0.11)
  assert.is(of('waiting10m'), 20_000)
  assert.ok(of('drained10m') > 0 && of('drained10m') <= of('waiting10m') + of('accepted') + 1)
  assert.ok(of('fillPerSecond') > 1_000)
  assert.ok(of('logMb10m') > 0)
  assert.match(String(result['durability']), /fdatasync/)
})

test.run()
