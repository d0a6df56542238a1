import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openFlight } from '../../../edge/export/flight.ts'
import { openPace, PACE_LIMITS } from '../../../edge/export/pace.ts'
import { readHeader, sealFrame } from '../../../schemas/frame.ts'
import { CHAIN_ZERO, type Chain, epochOf, type Offset, streamName } from '../../../schemas/ids.ts'
import { clock, record } from '../../support/logs.ts'

/**
 * A link of `rate` bytes a millisecond and a round trip, kept full by the window. `stallMs`: every two seconds a lost
 * segment holds up for so long what is behind it, which the link carries all the same; then it comes at once.
 */
const drive = (rate: number, roundTripMs: number, ms: number, stallMs = 0) => {
  const pace = openPace()
  const flying: { item: ReturnType<typeof pace.sent>; arrivesMs: number }[] = []
  let freeAtMs = 0
  let inFlight = 0
  let delivered = 0
  let mostMs = 0
  for (let nowMs = 0; nowMs < ms; nowMs++) {
    const isStalled = nowMs % 2_000 >= 2_000 - stallMs
    while (!isStalled && flying[0] !== undefined && flying[0].arrivesMs <= nowMs) {
      const { item } = flying.shift()!
      inFlight -= item.bytes
      delivered += item.bytes
      mostMs = Math.max(mostMs, nowMs - item.sentAtMs)
      pace.marked([item], nowMs)
    }
    for (;;) {
      const bytes = Math.min(pace.messageBytes(), pace.windowBytes() - inFlight)
      if (bytes < PACE_LIMITS.messageBytesMin) break
      freeAtMs = Math.max(freeAtMs, nowMs) + bytes / rate
      flying.push({ item: pace.sent(bytes, nowMs), arrivesMs: freeAtMs + roundTripMs })
      inFlight += bytes
    }
  }
  return { used: delivered / (rate * ms), pace, mostMs }
}

test('a thin link is filled, with no more in flight than it can carry soon', () => {
  const { used, pace, mostMs } = drive(125, 100, 20_000)
  assert.ok(used >= 0.9, `${used}`)
  assert.ok(pace.windowBytes() <= 40_000, `${pace.windowBytes()}`)
  assert.ok(pace.messageBytes() <= 10_000, `${pace.messageBytes()}`)
  assert.ok(mostMs <= 600, `${mostMs}`)
})

test('what a lost segment held up does not count as speed', () => {
  const { used, pace } = drive(125, 100, 20_000, 150)
  assert.ok(used >= 0.85, `${used}`)
  assert.ok(pace.rate() <= 1.25 * 125, `${pace.rate()}`)
  assert.ok(pace.windowBytes() <= 40_000, `${pace.windowBytes()}`)
})

test('the queue that the first messages made is not taken for the way', () => {
  const { pace } = drive(125, 100, 4_000)
  assert.ok(pace.windowBytes() <= 125 * (100 + PACE_LIMITS.slackMs) * 1.3, `${pace.windowBytes()}`)
})

test('a fast link gets the largest messages and the whole window', () => {
  const { pace } = drive(100_000, 2, 2_000)
  assert.is(pace.windowBytes(), PACE_LIMITS.windowBytesMax)
  assert.is(pace.messageBytes(), PACE_LIMITS.messageBytesMax)
})

test('the rate follows a link that became slow', () => {
  const pace = openPace()
  pace.marked([pace.sent(1_000_000, 0)], 10)
  for (let nowMs = 1_000; nowMs < 12_000; nowMs += 100) pace.marked([pace.sent(1_000, nowMs)], nowMs + 100)
  assert.ok(pace.rate() < 50, `${pace.rate()}`)
})

const frames = [1, 2, 3].map(first => {
  const bytes = sealFrame(
    [record('x')],
    {
      stream: streamName('data'),
      epoch: epochOf(Buffer.alloc(8)),
      first: first as Offset,
      previous: CHAIN_ZERO,
    },
    { wallMs: 1, monoMs: 1, bootId: clock.bootId, quality: 'synchronised' },
  )
  return { bytes, header: readHeader(bytes) }
})
const start = { offset: 0 as Offset, chain: CHAIN_ZERO }
const launched = () => {
  const flight = openFlight(start)
  const sent = openPace().sent(100, 0)
  for (const frame of frames) flight.launch(frame, sent)
  return flight
}
const markOf = (i: number) => ({ offset: frames[i]!.header.last, chain: frames[i]!.header.chain })

test('a mark lands what it covers; one that repeats or goes back says nothing', () => {
  const flight = launched()
  const landing = flight.mark(markOf(1))
  assert.is(landing.kind === 'progress' && landing.bytes, 200)
  assert.is(flight.bytes(), 100)
  assert.is(flight.mark(markOf(1)).kind, 'stale')
  assert.is(flight.mark(markOf(0)).kind, 'stale')
  assert.is(flight.mark(start).kind, 'stale')
})

test('a mark beyond what was sent, or with another chain, is refused and moves nothing', () => {
  const flight = launched()
  assert.is(flight.mark({ offset: 4 as Offset, chain: CHAIN_ZERO }).kind, 'refuse')
  assert.is(flight.mark({ ...markOf(1), chain: 'f'.repeat(32) as Chain }).kind, 'refuse')
  assert.is(flight.bytes(), 300)
  assert.is(flight.mark(markOf(2)).kind, 'progress')
})

test.run()
