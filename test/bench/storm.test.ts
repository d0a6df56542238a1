// The storm, tiny: that all gateways come back, that nothing is lost, and that every field that its readers rely on is
// there. Its targets are for the long run.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Plot } from '../../bench/harness/plots.ts'
import { endAll } from '../../bench/harness/process.ts'
import { silent } from '../../bench/harness/told.ts'
import { type Flags, flagsOf, type Result } from '../../bench/scenario.ts'
import { storm } from '../../bench/storm.ts'

test.after(endAll)

const numberOf = (result: Result, name: string): number => {
  const value = result[name]
  assert.ok(typeof value === 'number' && Number.isFinite(value), `${name} is ${String(value)}`)
  return value as number
}

const check = (result: Result, { gateways, records, full, projections }: Flags): void => {
  const number = (name: string): number => numberOf(result, name)
  assert.is(number('gateways'), gateways)
  assert.is(number('recordsEach'), records)
  assert.is(number('records'), gateways * records, 'the auditor found each')
  for (const name of ['lost', 'duplicated', 'disordered', 'liveLost']) assert.is(number(name), 0, name)

  const totalMs = number('totalMs')
  assert.ok(totalMs > 0 && totalMs < 60_000, `${totalMs} ms`)
  const close = (found: number, wanted: number, name: string): void =>
    assert.ok(Math.abs(found / wanted - 1) < 0.05, `${name} is ${found}, not about ${wanted}`)
  close(number('recordsPerSecond'), (gateways * records) / (totalMs / 1_000), 'recordsPerSecond')
  const readyMs = number('readyMs')
  assert.ok(readyMs > 0 && readyMs <= totalMs, `all ready after ${readyMs} of ${totalMs} ms`)
  close(number('handshakesPerSecond'), gateways / (readyMs / 1_000), 'handshakesPerSecond')
  assert.ok(number('markedP50Ms') > 0 && number('markedP50Ms') <= totalMs)

  assert.ok(number('loopDelayP99Ms') > 0 && number('loopDelayP99Ms') < 10_000)
  assert.ok(number('liveP50Ms') > 0 && number('liveP50Ms') <= number('liveP99Ms'))
  assert.ok(number('liveP99Ms') < 30_000, `${number('liveP99Ms')} ms`)
  assert.ok(number('cloudRssMb') > 20 && number('cloudRssMb') < 1_000, `${number('cloudRssMb')} MB`)
  assert.is(result['projections'], projections)
  assert.is(result['resumed'], !full)
  for (const name of ['tls', 'durable']) assert.is(result[name], true, name)
  assert.match(String(result['durability']), /fdatasync/)
}

test('gateways that hold tickets come back all at once, and every record is in the cloud once and in order', async () => {
  const plots: Plot[] = []
  const flags = flagsOf(storm, { tiny: true })
  const result = await storm.run(flags, { ...silent, plot: plot => void plots.push(plot) })
  check(result, flags)
  for (const title of ['Memory', 'Gateways connected, and records durable']) {
    const plot = plots.find(each => each.title === title)
    assert.ok(plot?.lines.every(({ points }) => points.length > 0) === true, title)
  }
})

test('with full handshakes the promises are the same', async () => {
  const flags = flagsOf(storm, { tiny: true, gateways: 5, full: true })
  check(await storm.run(flags, silent), flags)
})

test.run()
