// The calibration, short: every figure is there, and in an order of magnitude that a machine can have.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { calibrate } from '../../bench/harness/calibrate.ts'
import { silent } from '../../bench/harness/told.ts'
import { machine } from '../../bench/machine.ts'
import { flagsOf, type Result } from '../../bench/scenario.ts'

const PLAUSIBLE: Readonly<Record<string, readonly [number, number]>> = {
  cores: [1, 10_000],
  memoryGb: [0.1, 100_000],
  fdatasyncPerSecond: [1, 1_000_000],
  fdatasyncP50Ms: [0.001, 1_000],
  fdatasyncP99Ms: [0.001, 5_000],
  sha256MbPerSecond: [10, 100_000],
  handshakesPerSecond: [5, 100_000],
}

const check = (result: Result, fields: typeof PLAUSIBLE): void => {
  for (const [name, [least, most]] of Object.entries(fields)) {
    const value = result[name]
    assert.ok(typeof value === 'number' && value >= least && value <= most, `${name} is ${String(value)}`)
  }
  for (const name of ['cpu', 'node']) assert.type(result[name], 'string', name)
}

test('a calibration says what the machine is and what it can do', async () => {
  check(await calibrate(), PLAUSIBLE)
})

test('the scenario also tells resumed handshakes, and percentiles in their order', async () => {
  const result = await machine.run(flagsOf(machine, { tiny: true }), silent)
  check(result, {
    ...PLAUSIBLE,
    handshakeP50Ms: [0.01, 10_000],
    handshakeP99Ms: [0.01, 10_000],
    resumedPerSecond: [5, 100_000],
    resumedP50Ms: [0.01, 10_000],
    resumedP99Ms: [0.01, 10_000],
  })
  for (const what of ['fdatasync', 'handshake', 'resumed'])
    assert.ok(Number(result[`${what}P50Ms`]) <= Number(result[`${what}P99Ms`]), what)
})

test.run()
