import * as fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  RETRY_LIMITS,
  retryStart,
  retryWaitMs,
  signTried,
  signWaitMs,
  wentDown,
  wentUp,
} from '../../../streams/mqtt/retry.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS

test('the first waits are spread over a second', () => {
  const state = retryStart(0)
  assert.is(retryWaitMs(state, { nowMs: 0, unit: 0, factor: 1 }), 0)
  assert.is(retryWaitMs(state, { nowMs: 0, unit: 0.5, factor: 1 }), 500)
  assert.is(retryWaitMs(state, { nowMs: MINUTE_MS, unit: 1, factor: 1 }), 1_000, 'for a minute')
})

test('from a minute on waits grow with the square of the outage, half of them chance, up to 90 s times the hint', () => {
  const state = retryStart(0)
  const capMs = RETRY_LIMITS.waitMsMax
  assert.is(capMs, 90_000)
  assert.is(retryWaitMs(state, { nowMs: 5 * MINUTE_MS, unit: 0, factor: 1 }), 12_500)
  assert.is(retryWaitMs(state, { nowMs: 5 * MINUTE_MS, unit: 1, factor: 1 }), 25_000)
  assert.is(retryWaitMs(state, { nowMs: 24 * HOUR_MS, unit: 1, factor: 1 }), capMs)
  assert.is(retryWaitMs(state, { nowMs: 24 * HOUR_MS, unit: 1, factor: 5 }), 5 * capMs)
  assert.is(
    retryWaitMs(state, { nowMs: 0, unit: 1, factor: 5 }),
    1_000,
    'the hint lifts the cap, not the first wait',
  )
  assert.is(
    retryWaitMs(state, { nowMs: 24 * HOUR_MS, unit: 1, factor: 0 }),
    capMs,
    'no hint shortens the cap',
  )
})

test('a connection of less than a minute continues the outage before it', () => {
  const flapping = wentDown(wentUp(retryStart(0), HOUR_MS), HOUR_MS + 59_999)
  assert.is(flapping.outageSinceMs, 0)
  const stable = wentDown(wentUp(retryStart(0), HOUR_MS), HOUR_MS + 60_000)
  assert.is(stable.outageSinceMs, HOUR_MS + 60_000)
  assert.is(
    wentDown(stable, HOUR_MS + 70_000).outageSinceMs,
    HOUR_MS + 60_000,
    'a failed attempt is no new outage',
  )
})

test('a local sign may cause a try at most every five seconds', () => {
  const state = retryStart(0)
  assert.is(signWaitMs(state, 0), 0)
  const tried = signTried(state, 1_000)
  assert.is(signWaitMs(tried, 1_000), 5_000)
  assert.is(signWaitMs(tried, 5_999), 1)
  assert.is(signWaitMs(tried, 6_000), 0)
})

test('in virtual time, a fleet that lost its cloud for an hour is back within two minutes, and never in one second', () => {
  const fleet = 2_000
  let seed = 7
  const unit = () => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed / 2_147_483_647
  }
  const triesIn = new Map<number, number>()
  let tries = 0
  for (let gateway = 0; gateway < fleet; gateway += 1) {
    const state = retryStart(0)
    for (let nowMs = 0; ; ) {
      nowMs += retryWaitMs(state, { nowMs, unit: unit(), factor: 1 })
      tries += 1
      if (nowMs < HOUR_MS) continue
      const second = Math.floor((nowMs - HOUR_MS) / 1_000)
      triesIn.set(second, (triesIn.get(second) ?? 0) + 1)
      break
    }
  }
  assert.ok(Math.max(...triesIn.keys()) < 120)
  assert.ok(Math.max(...triesIn.values()) < fleet / 15, `${Math.max(...triesIn.values())} in one second`)
  assert.ok(tries / fleet < 400, `${tries / fleet} tries for an hour`)
})

test('a wait is never negative nor above the cap', () => {
  void fc.assert(
    fc.property(
      fc.record({
        sinceMs: fc.nat(1e9),
        laterMs: fc.integer({ min: -1e6, max: 1e9 }),
        unit: fc.double({ min: 0, max: 0.999, noNaN: true }),
        factor: fc.nat(50),
      }),
      ({ sinceMs, laterMs, unit, factor }) => {
        const waitMs = retryWaitMs(retryStart(sinceMs), { nowMs: sinceMs + laterMs, unit, factor })
        assert.ok(waitMs >= 0 && waitMs <= RETRY_LIMITS.waitMsMax * Math.max(1, factor))
      },
    ),
  )
})

test.run()
