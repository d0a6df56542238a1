import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { delivery, deliveryPage } from '../../../cloud/projections/delivery.ts'
import { RANGES_KEPT_MAX } from '../../../cloud/projections/ranges.ts'
import { epochOf, gatewayId, offset, streamName } from '../../../schemas/ids.ts'
import { EPOCH, gatewayFrames } from '../../support/gateway-frames.ts'
import { data, event, folded, type Given, START_MS } from './support.ts'

const gateway = gatewayId('g1')
const at = { gateway, stream: streamName('data'), epoch: EPOCH }
const records = (count: number) => Array.from({ length: count }, (_, i) => ({ topic: 't', payload: `${i}` }))
const rowOf = (given: readonly Given[], firstSeq = 1) =>
  deliveryPage(folded(delivery, given, firstSeq), 'g1').streams[0]!

test('frames in sequence are 1…N with no gap', () => {
  const frames = gatewayFrames('g1')
  const sent = [frames.seal(records(3)), frames.seal(records(4))]
  const row = rowOf(sent.map((body, i) => data(body, START_MS + i)))
  assert.equal(
    [row.first, row.last, row.records, row.frames, row.gaps.count, row.repeated],
    [1, 7, 7, 2, 0, 0],
  )
  assert.is(row.bytes, sent[0]!.frame.length + sent[1]!.frame.length)
  assert.is(row.lastReceivedMs, START_MS + 1)
})

test('gaps and repetitions are found from the offsets alone, whatever they are', () => {
  type Step = { readonly lose: number } | { readonly take: number } | { readonly repeat: number }
  const step = fc.oneof(
    fc.record({ take: fc.integer({ min: 1, max: 5 }) }),
    fc.record({ lose: fc.integer({ min: 1, max: 9 }) }),
    fc.record({ repeat: fc.integer({ min: 1, max: 3 }) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps: Step[]) => {
      const frames = gatewayFrames('g1')
      const held = new Set<number>()
      let next = 1
      let repeated = 0
      const given: Given[] = [data(frames.seal(records(1)))]
      held.add(next++)
      for (const taken of steps) {
        if ('lose' in taken) {
          frames.lose(taken.lose)
          next += taken.lose
          continue
        }
        const back = 'repeat' in taken ? Math.min(taken.repeat, next - 1) : 0
        const count = 'repeat' in taken ? back : taken.take
        if (back > 0) frames.goBackTo(next - back)
        given.push(data(frames.seal(records(count))))
        for (let i = next - back; i < next - back + count; i++) {
          if (i < next && i <= Math.max(...held)) repeated += 1
          held.add(i)
        }
        next = next - back + count
      }
      const row = rowOf(given)
      const last = Math.max(...held)
      assert.is(row.last, last)
      // A range that was jumped over and then filled still was a gap when it was passed: never silent.
      assert.ok(row.gaps.count >= last - held.size)
      assert.is(row.repeated, repeated)
    }),
    { seed: 3, numRuns: 200 },
  )
})

test('skips count with their cause; the last hundred ranges are kept', () => {
  const frames = gatewayFrames('g1')
  const given = [data(frames.seal(records(1)))]
  for (let i = 0; i < RANGES_KEPT_MAX + 5; i++)
    given.push(data(frames.skip(10, i % 2 === 0 ? 'quota' : 'age')))
  const { skips, gaps, last, records: taken } = rowOf(given)
  assert.equal([skips.count, skips.ranges, skips.list.length], [1050, 105, RANGES_KEPT_MAX])
  assert.equal(skips.list.at(-1), { first: 1042, last: 1051, cause: 'quota' })
  assert.equal([gaps.count, last, taken], [0, 1051, 1])
})

test('what lies between the origin of an epoch and its first entry is a gap', () => {
  const began = event({ kind: 'epoch_began', ...at, origin: offset(10) })
  assert.is(rowOf([began, data(gatewayFrames('g1', 'data', { after: 10 }).seal(records(2)))]).gaps.count, 0)
  const row = rowOf([data(gatewayFrames('g1', 'data', { after: 14 }).seal(records(2))), began])
  assert.equal(row.gaps, { count: 4, ranges: 1, list: [{ first: 11, last: 14 }] })
})

test('a log that no longer keeps its beginning is not taken for a gap', () => {
  const began = event({ kind: 'epoch_began', ...at, origin: offset(0) })
  assert.is(
    rowOf([began, data(gatewayFrames('g1', 'data', { after: 500 }).seal(records(2)))], 40).gaps.count,
    0,
  )
})

test('lag is the announced head less what is here, for the current epoch only', () => {
  const hello = (epoch: typeof EPOCH, head: number) =>
    event({
      kind: 'hello',
      gateway,
      connection: 'c',
      version: 'v',
      streams: [{ name: streamName('data'), epoch, tail: offset(1), head: offset(head), waitingBytes: 9 }],
    })
  const taken = data(gatewayFrames('g1').seal(records(3)))
  assert.is(rowOf([taken, hello(EPOCH, 10)]).lag, 7)
  assert.is(rowOf([taken, hello(EPOCH, 2)]).lag, 0)
  assert.is(rowOf([taken, hello(epochOf(Buffer.alloc(8, 9)), 10)]).lag, undefined)
})

test('forks, dropped duplicates and refused frames are told per stream', () => {
  const view = folded(delivery, [
    data(gatewayFrames('g1').seal(records(3))),
    event({ kind: 'duplicates_dropped', ...at, count: 3 }),
    event({ kind: 'duplicates_dropped', ...at, count: 4 }),
    event({ kind: 'forked', ...at, parent: epochOf(Buffer.alloc(8, 1)), at: offset(2), held: offset(3) }),
    event({
      kind: 'frame_refused',
      gateway,
      stream: streamName('data'),
      code: 'frame_crc',
      because: 'x',
      count: 1,
    }),
    event({
      kind: 'frame_refused',
      gateway,
      stream: streamName('data'),
      code: 'frame_chain',
      because: 'y',
      count: 4,
    }),
  ])
  const { streams, refused } = deliveryPage(view, 'g1')
  assert.is(streams[0]!.duplicatesDropped, 7)
  assert.equal(streams[0]!.forks, [{ parent: '0101010101010101', at: 2, held: 3, atMs: START_MS }])
  assert.equal(refused, [{ stream: 'data', count: 5, code: 'frame_chain', because: 'y', atMs: START_MS }])
  assert.equal(deliveryPage(view, 'g'), { streams: [], refused: [] })
})

test.run()
