// Accepting, tiny: every field that its readers rely on, and that what was acknowledged is in the log.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { accept } from '../../bench/accept.ts'
import type { Plot } from '../../bench/harness/plots.ts'
import { endAll } from '../../bench/harness/process.ts'
import { silent } from '../../bench/harness/told.ts'
import { peers } from '../../bench/peers/all.ts'
import { flagsOf, type Result } from '../../bench/scenario.ts'

const check = (result: Result): void => {
  for (const name of ['perSecond', 'p50Ms', 'p99Ms', 'edgeRssMb', 'writtenBytesPerRecord']) {
    const value = result[name]
    assert.ok(typeof value === 'number' && Number.isFinite(value) && value > 0, `${name} is ${String(value)}`)
  }
  assert.ok(Number(result['p50Ms']) <= Number(result['p99Ms']))
  assert.is(result['records'], 3_000)
  assert.is(result['lost'], 0)
  assert.is(result['durable'], true)
  assert.match(String(result['durability']), /fdatasync/)
}

test('what is acknowledged is in the log, beside rivals that are there', async () => {
  const plots: Plot[] = []
  const result = await accept.run(flagsOf(accept, { tiny: true, peers: true }), {
    ...silent,
    plot: plot => plots.push(plot),
  })
  check(result)
  const theirs = result['peers'] as Readonly<Record<string, Readonly<Record<string, unknown>>>>
  const ratios = result['ratios'] as Readonly<Record<string, number>>
  for (const peer of peers) {
    const their = theirs[peer.name]
    const missing = peer.missing()
    if (missing !== undefined) {
      process.stdout.write(`SKIPPED: ${peer.name} is not installed: ${missing}\n`)
      assert.equal(their, { missing })
      assert.is(ratios[peer.name], undefined)
      continue
    }
    const perSecond = Number(their?.['perSecond'])
    assert.ok(perSecond > 0 && Number(their?.['p99Ms']) > 0, peer.name)
    assert.match(String(their?.['durability']), /not synced/)
    assert.ok(Math.abs((ratios[peer.name] ?? 0) - Number(result['perSecond']) / perSecond) < 0.02, peer.name)
  }
  assert.ok(plots.some(({ title }) => title === 'headgate: from sending to acknowledgement'))
})

test('without rivals there are none in the result', async () => {
  const result = await accept.run(flagsOf(accept, { tiny: true }), silent)
  check(result)
  assert.is(result['peers'], undefined)
  assert.is(result['ratios'], undefined)
})

test.after(endAll)
test.run()
