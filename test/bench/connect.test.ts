// Connecting, tiny: every field is there, the ratios are those of the figures, and bad peers keep no good client out.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { connect } from '../../bench/connect.ts'
import type { Plot } from '../../bench/harness/plots.ts'
import { endAll } from '../../bench/harness/process.ts'
import { silent } from '../../bench/harness/told.ts'
import { flagsOf } from '../../bench/scenario.ts'

test.after(endAll)

test('a small fleet connects, full and resumed, here and at a bare server', async () => {
  const plots: Plot[] = []
  const flags = flagsOf(connect, { tiny: true })
  const result = await connect.run(flags, { ...silent, plot: plot => void plots.push(plot) })
  const number = (name: string): number => {
    const value = result[name]
    assert.ok(typeof value === 'number' && Number.isFinite(value), `${name} is ${String(value)}`)
    return value as number
  }
  assert.is(number('gateways'), flags.gateways)
  for (const name of ['fullMs', 'resumedMs', 'bareFullMs', 'bareResumedMs'])
    assert.ok(number(name) > 0 && number(name) < 30_000, `${name} is ${number(name)}`)
  const ratios = result['ratios'] as Readonly<Record<string, unknown>>
  assert.equal(Object.keys(ratios).toSorted(), ['full', 'resumed'])
  for (const [name, ours, bare] of [
    ['full', 'fullMs', 'bareFullMs'],
    ['resumed', 'resumedMs', 'bareResumedMs'],
  ] as const) {
    // From milliseconds before they were rounded.
    const ratio = number(bare) / number(ours)
    assert.ok(
      Math.abs(Number(ratios[name]) / ratio - 1) < 0.1,
      `${name}: ${String(ratios[name])}, not ${ratio}`,
    )
  }
  assert.ok(number('goodClientMs') > 0 && number('goodClientMs') <= 1_000, `${number('goodClientMs')} ms`)
  assert.is(number('badPeers'), 32)
  for (const [rate, ms] of [
    ['fullPerSecond', 'fullMs'],
    ['resumedPerSecond', 'resumedMs'],
  ] as const)
    assert.ok(Math.abs((number(rate) * number(ms)) / 1_000 / flags.gateways - 1) < 0.1, rate)
  assert.ok(number('connectP50Ms') > 0 && number('connectP50Ms') <= number('connectP99Ms'))
  assert.ok(number('cloudCpuMsEachFull') >= 0 && number('cloudCpuMsEachResumed') >= 0)
  assert.is(result['tls'], true)
  const [latencies] = plots.filter(({ over }) => over === 'percent')
  assert.equal(
    latencies?.lines.map(({ name }) => name),
    ['Headgate', 'bare tls.Server'],
  )
})

test.run()
