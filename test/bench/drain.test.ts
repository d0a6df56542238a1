// The drain, tiny: that it runs, loses nothing, and reports every field that its readers rely on.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { drain } from '../../bench/drain.ts'
import { PROJECT } from '../../bench/harness/process.ts'
import type { Result } from '../../bench/scenario.ts'

/** By whether 0 is a value that it may have. */
const MAY_BE_ZERO: Readonly<Record<string, boolean>> = {
  records: false,
  acceptPerSecond: false,
  // From the first mark to the last: a few thousand records may all be behind the first.
  drainPerSecond: true,
  firstAfterRestoreMs: false,
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
  assert.is(result['records'], records)
  for (const name of ['lost', 'duplicated', 'disordered']) assert.is(result[name], 0, name)
}

test('a drain loses, doubles and disorders nothing, and its result has every field', async () => {
  const said: string[] = []
  check(await drain.run({ records: 5_000, projections: true, tiny: true }, line => said.push(line)), 5_000)
  assert.ok(said.includes('uplink cut'), 'it tells how far it is')
})

test('the last line of the command is one JSON object', () => {
  const ran = spawnSync(
    process.execPath,
    [join(PROJECT, 'dist/bench/main.js'), 'drain', '--records', '2000', '--json'],
    {
      encoding: 'utf8',
      timeout: 50_000,
    },
  )
  assert.is(ran.status, 0, ran.stderr)
  check(JSON.parse(ran.stdout.trim().split('\n').at(-1) ?? '') as Result, 2_000)
})

test.run()
