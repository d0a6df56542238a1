import { concat, defer, map, merge, NEVER, Observable, of, takeUntil, throwError, timer } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Clock } from '../../../streams/run/clock.ts'
import { fault } from '../../../streams/run/fault.ts'
import { type Concern, type Lifecycle, type Notice, supervise } from '../../../streams/run/supervise.ts'
import { drawing, timeline } from './virtual.ts'

const lost = (): Observable<never> =>
  throwError(() => fault('link_lost', { address: 'cloud', because: 'cut' }))
const concern = (run: () => Observable<Notice>): Concern<null> => ({ name: 'c', run })
const brief = (life: Lifecycle) => (life.kind === 'restarting' ? `wait ${life.inMs}` : life.kind)
const progress: Notice = { kind: 'progress', what: 'w', count: 1 }
const backoff = { firstMs: 10, maxMs: 25, stableMs: 1_000 }

const life = (
  subject: Concern<null>,
  untilMs: number,
  share = 1,
  stop$: (clock: Clock) => Observable<unknown> = () => NEVER,
) =>
  timeline(untilMs, ({ clock }) =>
    supervise(subject, null, { backoff, clock, random: drawing(share), stop$: stop$(clock) }).pipe(
      map(brief),
    ),
  )

test('the cap of the wait doubles with each fault, up to its limit', () => {
  assert.equal(life(concern(lost), 60), [
    [0, 'started'],
    [0, 'wait 10'],
    [10, 'started'],
    [10, 'wait 20'],
    [30, 'started'],
    [30, 'wait 25'],
    [55, 'started'],
    [55, 'wait 25'],
  ])
})

test('the wait is drawn from the whole range between nothing and the cap', () => {
  assert.equal(life(concern(lost), 14, 0.5), [
    [0, 'started'],
    [0, 'wait 5'],
    [5, 'started'],
    [5, 'wait 10'],
  ])
  assert.equal(life(concern(lost), 2, 0.1), [
    [0, 'started'],
    [0, 'wait 1'],
    [1, 'started'],
    [1, 'wait 2'],
  ])
})

test('notices do not forget the growth, a run of the stable time does', () => {
  const runsMs = [5, 999, 1_000, 5]
  let run = 0
  const flapping = concern(() =>
    defer(() => {
      const untilMs = runsMs[run++] ?? 5
      return concat(of(progress), timer(untilMs).pipe(map(() => progress)), lost())
    }),
  )
  const waits = life(flapping, 2_100).filter(([, what]) => String(what).startsWith('wait'))
  assert.equal(waits, [
    [5, 'wait 10'],
    [1_014, 'wait 20'],
    [2_034, 'wait 10'],
    [2_049, 'wait 20'],
    [2_074, 'wait 25'],
  ])
})

test('an attempt says how many faults the concern has behind it', () => {
  const attempts = timeline(31, ({ clock }) =>
    supervise(concern(lost), null, { backoff, clock, random: drawing(1), stop$: NEVER }).pipe(
      map(l => (l.kind === 'started' ? l.attempt : l.kind)),
    ),
  )
  assert.equal(
    attempts.map(([, what]) => what),
    [0, 'restarting', 1, 'restarting', 2, 'restarting'],
  )
})

test('a fatal fault is told and not retried', () => {
  const error = fault('log_gap', { file: 'f', expected: 1, found: 2 })
  assert.equal(
    life(
      concern(() => throwError(() => error)),
      100,
    ),
    [
      [0, 'started'],
      [0, 'failed'],
      [0, error],
    ],
  )
})

test('an error without a code is a defect and as fatal, also when run itself throws', () => {
  const defect = new TypeError('x is not a function')
  const throwing = concern(() => {
    throw defect
  })
  assert.equal(life(throwing, 100), [
    [0, 'started'],
    [0, 'failed'],
    [0, defect],
  ])
})

test('a restart tells the code and the reason of the fault', () => {
  const told = timeline(1, ({ clock }) =>
    supervise(concern(lost), null, { backoff, clock, random: drawing(1), stop$: NEVER }),
  )
  assert.equal(told[1]?.[1], {
    kind: 'restarting',
    concern: 'c',
    code: 'link_lost',
    because: 'connection to cloud lost: cut',
    inMs: 10,
  })
})

test('a concern that ends normally has stopped and is not restarted', () => {
  assert.equal(
    life(
      concern(() => of(progress)),
      1_000,
    ),
    [
      [0, 'started'],
      [0, 'noticed'],
      [0, 'stopped'],
      [0, 'complete'],
    ],
  )
})

test('a stop ends the wait for a restart at once', () => {
  const stop$ = (): Observable<unknown> => merge(timer(3), NEVER)
  assert.equal(life(concern(lost), 100, 1, stop$), [
    [0, 'started'],
    [0, 'wait 10'],
    [3, 'stopped'],
    [3, 'complete'],
  ])
})

test('a fault after a stop leads to no restart', () => {
  const stop$ = (): Observable<unknown> => merge(timer(3), NEVER)
  assert.equal(
    life(
      concern(() => concat(timer(5).pipe(map(() => progress)), lost())),
      100,
      1,
      stop$,
    ),
    [
      [0, 'started'],
      [5, 'noticed'],
      [5, 'stopped'],
      [5, 'complete'],
    ],
  )
})

test('unsubscribing frees the concern, also while it waits', () => {
  let running = 0
  const held = concern(
    () =>
      new Observable<Notice>(() => {
        running += 1
        return () => {
          running -= 1
        }
      }),
  )
  timeline(10, ({ clock }) =>
    supervise(held, null, { backoff, clock, random: drawing(1), stop$: NEVER }).pipe(takeUntil(timer(5))),
  )
  assert.is(running, 0)
})

test.run()
