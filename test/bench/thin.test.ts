// The thin link, tiny: that the link is as thin as it says, that it is used, and that every field is there.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { endAll } from '../../bench/harness/process.ts'
import { silent } from '../../bench/harness/told.ts'
import { flagsOf } from '../../bench/scenario.ts'
import { thin } from '../../bench/thin.ts'

test.after(endAll)

test('a drain over a thin link fills it, and what is typed meanwhile comes back', async () => {
  const flags = flagsOf(thin, { tiny: true })
  const result = await thin.run(flags, silent)
  const number = (name: string): number => {
    const value = result[name]
    assert.ok(typeof value === 'number' && Number.isFinite(value), `${name} is ${String(value)}`)
    return value as number
  }
  assert.is(number('records'), flags.records)
  assert.is(number('rateBitsPerSecond'), 1_000_000)
  assert.is(number('roundTripMs'), 100)
  // Over a second or two a queue that empties or fills counts: the targets are for the long run.
  assert.ok(number('linkUsedRatio') > 0.5 && number('linkUsedRatio') < 1.2, `${number('linkUsedRatio')}`)
  // All of it, from the first mark: no faster than the link can.
  const perSecond = (flags.records * number('uplinkBytesPerRecord')) / (number('drainMs') / 1_000)
  assert.ok(perSecond < 1.4 * 125_000, `${Math.round(perSecond)} bytes/s through a link of 125,000`)
  assert.ok(number('recordsPerSecond') > 1_000, `${number('recordsPerSecond')}`)
  assert.ok(number('interactiveIdleP50Ms') >= 100, `${number('interactiveIdleP50Ms')}: shorter than the link`)
  assert.ok(number('interactiveIdleP50Ms') < 200, `${number('interactiveIdleP50Ms')}`)
  const [p50, p95, p99] = ['interactiveP50Ms', 'interactiveP95Ms', 'interactiveP99Ms'].map(number) as [
    number,
    number,
    number,
  ]
  assert.ok(p50 >= 100 && p50 <= p95 && p95 <= p99 && p99 < 5_000, `${p50} ${p95} ${p99}`)
  assert.ok(number('interactiveMessages') >= 5, `${number('interactiveMessages')} messages`)
  assert.is(number('interactiveLost'), 0)
  assert.match(String(result['link']), /^(relay|namespace, \w+)$/)
  for (const name of ['tls', 'durable']) assert.is(result[name], true, name)
})

test.run()
