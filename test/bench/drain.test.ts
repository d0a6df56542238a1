// The drain, tiny: that it runs, loses nothing, and reports every field that its readers rely on.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { drain } from '../../bench/drain.ts'
import type { Plot } from '../../bench/harness/plots.ts'
import { endAll, PROJECT } from '../../bench/harness/process.ts'
import { silent } from '../../bench/harness/told.ts'
import { peers } from '../../bench/peers/all.ts'
import { flagsOf, type Result } from '../../bench/scenario.ts'

/** By whether 0 is a value that it may have. */
const MAY_BE_ZERO: Readonly<Record<string, boolean>> = {
  records: false,
  acceptPerSecond: false,
  acceptP50Ms: false,
  acceptP99Ms: false,
  // From the first mark to the last: a few thousand records may all be behind the first.
  drainPerSecond: true,
  firstAfterRestoreMs: false,
  firstAfterRestoreP50Ms: false,
  viewsCaughtUpMs: true,
  lost: true,
  duplicated: true,
  disordered: true,
  edgeRssMb: false,
  cloudRssMb: false,
  uplinkBytesPerRecord: false,
  edgeDiskBytesPerRecord: false,
  edgeDiskBytesWrittenPerRecord: false,
}

const check = (result: Result, records: number): void => {
  for (const [name, mayBeZero] of Object.entries(MAY_BE_ZERO)) {
    const value = result[name]
    assert.ok(typeof value === 'number' && Number.isFinite(value), `${name} is ${String(value)}`)
    assert.ok(mayBeZero ? value >= 0 : value > 0, `${name} is ${value}`)
  }
  for (const name of ['tls', 'durable']) assert.is(result[name], true, name)
  assert.match(String(result['durability']), /fdatasync/)
  assert.is(result['records'], records)
  for (const name of ['lost', 'duplicated', 'disordered']) assert.is(result[name], 0, name)
}

test('a drain loses, doubles and disorders nothing, and its result has every field', async () => {
  const said: string[] = []
  const plots: Plot[] = []
  const told = {
    ...silent,
    say: (line: string) => void said.push(line),
    plot: (plot: Plot) => void plots.push(plot),
  }
  const result = await drain.run(flagsOf(drain, { tiny: true }), told)
  check(result, 5_000)
  assert.is(result['projections'], true)
  assert.is(result['outages'], 2, 'the large one and a short one')
  assert.is(result['peers'], undefined)
  assert.ok(said.includes('uplink cut'), 'it tells how far it is')
  for (const title of ['While cut: Throughput', 'While draining: Throughput', 'While draining: Memory']) {
    const plot = plots.find(each => each.title === title)
    assert.ok(
      plot?.lines.every(({ points }) => points.length > 0),
      title,
    )
  }
})

test('without projections, beside rivals, the ratios are those of the figures', async () => {
  const result = await drain.run(
    flagsOf(drain, { tiny: true, records: 2_000, projections: false, peers: true }),
    silent,
  )
  check(result, 2_000)
  assert.is(result['projections'], false)
  const theirs = result['peers'] as Readonly<Record<string, Readonly<Record<string, unknown>>>>
  const ratios = result['ratios'] as Readonly<Record<string, number>>
  for (const peer of peers) {
    const missing = peer.missing()
    if (missing !== undefined) {
      process.stdout.write(`SKIPPED: ${peer.name} is not installed: ${missing}\n`)
      assert.equal(theirs[peer.name], { missing })
      continue
    }
    const perSecond = Number(theirs[peer.name]?.['drainPerSecond'])
    assert.ok(perSecond > 0, peer.name)
    const ratio = Number(result['drainPerSecond']) / perSecond
    assert.ok(Math.abs((ratios[peer.name] ?? 0) - ratio) < 0.02, peer.name)
  }
})

test('the last line of the command is one JSON object', () => {
  const ran = spawnSync(
    process.execPath,
    [join(PROJECT, 'dist/bench/main.js'), 'drain', '--tiny', '--records', '2000', '--json'],
    {
      encoding: 'utf8',
      timeout: 50_000,
    },
  )
  assert.is(ran.status, 0, ran.stderr)
  check(JSON.parse(ran.stdout.trim().split('\n').at(-1) ?? '') as Result, 2_000)
})

test.after(endAll)
test.run()
