import * as fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { LANES, type Lane } from '../../../streams/mqtt/link.ts'
import { LANE_LIMITS, type LaneLimits, laneScheduler } from '../../../streams/mqtt/scheduler.ts'

const KB = 1_024

const open = (limits: LaneLimits = LANE_LIMITS) => {
  const written: string[] = []
  const socket = { held: 0 }
  const lanes = laneScheduler<string>(
    { write: message => written.push(message), writableLength: () => socket.held },
    limits,
  )
  return { written, socket, lanes }
}

test('a free socket gets everything at once, in order', () => {
  const { written, lanes } = open()
  for (const message of ['a', 'b', 'c']) assert.ok(lanes.offer('bulk', 10, message))
  assert.equal(written, ['a', 'b', 'c'])
})

test('bulk waits while the socket holds more than 64 KB, and quick lanes overtake it', () => {
  const { written, socket, lanes } = open()
  socket.held = 64 * KB + 1
  lanes.offer('backlog', 10, 'old')
  lanes.offer('bulk', 10, 'bulk')
  lanes.offer('live', 10, 'live')
  lanes.offer('interactive', 10, 'key')
  assert.equal(written, ['live', 'key'])
  socket.held = 64 * KB
  lanes.resume()
  assert.equal(written, ['live', 'key', 'bulk', 'old'])
})

test('when the socket has room again, lanes are served strictly in their order', () => {
  const { written, socket, lanes } = open()
  socket.held = 2 * KB * KB
  for (const lane of [...LANES].reverse()) for (const n of [1, 2]) lanes.offer(lane, 10, `${lane} ${n}`)
  assert.equal(written, [])
  socket.held = 0
  lanes.resume()
  assert.equal(
    written,
    LANES.flatMap(lane => [`${lane} 1`, `${lane} 2`]),
  )
})

test('a lane holds at most its limit, refuses the rest and counts it; other lanes are not touched', () => {
  const limits = { ...LANE_LIMITS, queuedBytesMax: { interactive: 100, live: 100, bulk: 100, backlog: 100 } }
  const { socket, lanes } = open(limits)
  socket.held = 2 * KB * KB
  assert.ok(lanes.offer('bulk', 60, 'a'))
  assert.ok(lanes.offer('bulk', 40, 'b'))
  assert.not(lanes.offer('bulk', 1, 'c'))
  assert.ok(lanes.offer('live', 100, 'd'))
  const stats = lanes.stats()
  assert.equal(stats.queuedBytes, { interactive: 0, live: 100, bulk: 100, backlog: 0 })
  assert.is(stats.refusedMessages.bulk, 1)
})

test('a message that is larger than the whole lane still passes, alone', () => {
  const limits = { ...LANE_LIMITS, queuedBytesMax: { ...LANE_LIMITS.queuedBytesMax, bulk: 10 } }
  const { socket, lanes } = open(limits)
  socket.held = 2 * KB * KB
  assert.ok(lanes.offer('bulk', 1_000, 'large'))
  assert.not(lanes.offer('bulk', 1, 'next'))
})

test('what is withdrawn is not written; what is left at the close is handed back', () => {
  const { written, socket, lanes } = open()
  socket.held = 2 * KB * KB
  lanes.offer('bulk', 10, 'a')
  lanes.offer('bulk', 10, 'b')
  lanes.withdraw('bulk', 'a')
  assert.is(lanes.stats().queuedBytes.bulk, 10)
  assert.equal(lanes.close(), ['b'])
  assert.not(lanes.offer('interactive', 1, 'late'))
  assert.equal(written, [])
})

test('a write that offers the next message from inside keeps the order', () => {
  const written: number[] = []
  const lanes = laneScheduler<number>({
    write: n => {
      if (n < 5) lanes.offer('bulk', 1, n + 1)
      written.push(n)
    },
    writableLength: () => 0,
  })
  lanes.offer('bulk', 1, 1)
  assert.equal(written, [1, 2, 3, 4, 5])
})

test('whatever is offered and drained: order in a lane holds, nothing is lost or repeated, bytes add up', () => {
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('offer' as const),
      lane: fc.constantFrom(...LANES),
      bytes: fc.integer({ min: 1, max: 40 * KB }),
    }),
    fc.record({ kind: fc.constant('drain' as const), held: fc.nat(2_000 * KB) }),
  )
  void fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), steps => {
      const written: { lane: Lane; n: number }[] = []
      const accepted: { lane: Lane; n: number }[] = []
      let held = 0
      const lanes = laneScheduler<{ lane: Lane; n: number }>({
        write: message => written.push(message),
        writableLength: () => held,
      })
      for (const [n, one] of steps.entries()) {
        if (one.kind === 'drain') {
          held = one.held
          lanes.resume()
        } else if (lanes.offer(one.lane, one.bytes, { lane: one.lane, n }))
          accepted.push({ lane: one.lane, n })
        const { queuedBytes } = lanes.stats()
        for (const lane of LANES) assert.ok(queuedBytes[lane] <= LANE_LIMITS.queuedBytesMax[lane])
      }
      held = 0
      lanes.resume()
      for (const lane of LANES)
        assert.equal(
          written.filter(m => m.lane === lane),
          accepted.filter(m => m.lane === lane),
        )
      assert.equal(lanes.stats().queuedBytes, { interactive: 0, live: 0, bulk: 0, backlog: 0 })
    }),
    { numRuns: 200 },
  )
})

test.run()
