// Nothing acknowledged is lost, doubled or disordered, whatever disks and wires do.

import fc from 'fast-check'
import { test } from 'uvu'
import { check, plan, planWithRestores, play } from './plans.ts'

const runs = { numRuns: 500, seed: 20_261_122 }

test('order, once each and nothing undeclared, through cuts, crashes, losses, doubles, drops and failed commits', () => {
  fc.assert(
    fc.property(plan, fc.integer(), (steps, seed) => check(play(steps, seed))),
    runs,
  )
})

test('restored disks on either side lead to forks and declared skips, never to silence', () => {
  fc.assert(
    fc.property(planWithRestores, fc.integer(), (steps, seed) => check(play(steps, seed))),
    runs,
  )
})

test.run()
