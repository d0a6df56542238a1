import {
  concat,
  interval,
  map,
  mergeMap,
  NEVER,
  type Observable,
  of,
  takeUntil,
  throwError,
  timer,
} from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fault } from '../../../streams/run/fault.ts'
import { launch } from '../../../streams/run/launch.ts'
import type { Concern, Lifecycle, Notice } from '../../../streams/run/supervise.ts'
import { drawing, timeline } from './virtual.ts'

interface Context {
  readonly stop$: Observable<unknown>
}

const done: Notice = { kind: 'progress', what: 'w', count: 1 }
const work = () => timer(3).pipe(map(() => done))
/** Ends its source when asked to; its work in flight takes 3 ms. */
const polite: Concern<Context> = {
  name: 'polite',
  run: ({ stop$ }) => interval(3).pipe(takeUntil(stop$), mergeMap(work)),
}
const stuck: Concern<Context> = { name: 'stuck', run: () => NEVER }
const brief = (life: Lifecycle) => `${life.concern} ${life.kind}`

const run = (
  concerns: readonly Concern<Context>[],
  stop: (cold: (marbles: string) => Observable<unknown>) => Observable<unknown>,
) =>
  timeline(1_000, ({ cold, clock }) => {
    const stop$ = stop(cold)
    return launch({ concerns, context: { stop$ }, clock, random: drawing(1), stop$, graceMs: 10 }).pipe(
      map(brief),
    )
  })

test('a stop lets work in flight finish, then what is left is cut after the grace time', () => {
  assert.equal(
    run([polite, stuck], cold => cold('----x')),
    [
      [0, 'polite started'],
      [0, 'stuck started'],
      [6, 'polite noticed'],
      [6, 'polite stopped'],
      [14, 'stuck cut'],
      [14, 'complete'],
    ],
  )
})

test('a program of polite concerns ends before the grace time is over', () => {
  assert.equal(run([polite], cold => cold('----x')).slice(-2), [
    [6, 'polite stopped'],
    [6, 'complete'],
  ])
})

test('a concern that ends before the stop is not restarted, and the others go on', () => {
  const brief: Concern<Context> = { name: 'once', run: () => of(done) }
  assert.equal(
    run([brief, polite], cold => cold('----x')).map(([at, what]) => `${at} ${what}`),
    [
      '0 once started',
      '0 once noticed',
      '0 once stopped',
      '0 polite started',
      '6 polite noticed',
      '6 polite stopped',
      '6 complete',
    ],
  )
})

test('a transient fault restarts one concern and leaves the others alone', () => {
  const flaky: Concern<Context> = {
    name: 'flaky',
    run: () =>
      concat(
        timer(2).pipe(map(() => done)),
        throwError(() => fault('link_down')),
      ),
  }
  const seen = run([flaky, polite], cold => cold('1100ms x')).map(([, what]) => what)
  assert.ok(seen.includes('flaky restarting'))
  assert.is(seen.filter(what => what === 'polite started').length, 1)
  assert.is(seen.filter(what => what === 'flaky started').length, 1, 'the default cap of one second')
})

test('a fatal fault of one concern ends everything with that error', () => {
  const error = fault('log_gap', { file: 'f', expected: 1, found: 2 })
  const doomed: Concern<Context> = {
    name: 'doomed',
    run: () =>
      concat(
        timer(2).pipe(map(() => done)),
        throwError(() => error),
      ),
  }
  assert.equal(
    run([doomed, stuck], () => NEVER),
    [
      [0, 'doomed started'],
      [0, 'stuck started'],
      [2, 'doomed noticed'],
      [2, 'doomed failed'],
      [2, error],
    ],
  )
})

test('a concern that waits for its restart stops at once', () => {
  const broken: Concern<Context> = { name: 'broken', run: () => throwError(() => fault('link_down')) }
  assert.equal(
    run([broken], cold => cold('----x')),
    [
      [0, 'broken started'],
      [0, 'broken restarting'],
      [4, 'broken stopped'],
      [4, 'complete'],
    ],
  )
})

test('no concerns are a program that ends', () => {
  assert.equal(
    run([], () => NEVER),
    [[0, 'complete']],
  )
})

test.run()
