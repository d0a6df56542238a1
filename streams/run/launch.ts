// Runs all concerns of a program, and stops them in two steps, because unsubscription cannot wait.
//
// First the concerns' sources see stop$ (through their context) and end, and work in flight completes; what
// has not ended `graceMs` later is cut. A fatal fault of one unsubscribes all.

import { defer, delay, map, merge, type Observable, ReplaySubject, share, take, takeWhile } from 'rxjs'
import type { Clock, Random } from './clock.ts'
import { BACKOFF, type Backoff, type Concern, type Lifecycle, supervise } from './supervise.ts'

export interface Launch<C> {
  readonly concerns: readonly Concern<C>[]
  /** Gives the same stop$ to the concerns. */
  readonly context: C
  readonly clock: Clock
  readonly random: Random
  /** Its first value asks everything to end. */
  readonly stop$: Observable<unknown>
  readonly graceMs: number
  readonly backoff?: Backoff
}

/** Completes when every concern has stopped or was cut. Errors with the fatal fault of any. */
export const launch = <C>(options: Launch<C>): Observable<Lifecycle> =>
  defer(() => {
    const { concerns, context, clock, random, graceMs, backoff = BACKOFF } = options
    const stop$ = options.stop$.pipe(
      take(1),
      share({ connector: () => new ReplaySubject<unknown>(1), resetOnComplete: false }),
    )
    const cut$ = stop$.pipe(delay(graceMs, clock.scheduler))
    return merge(
      ...concerns.map(concern =>
        merge(
          cut$.pipe(map((): Lifecycle => ({ kind: 'cut', concern: concern.name }))),
          supervise(concern, context, { backoff, clock, random, stop$ }),
        ).pipe(takeWhile(({ kind }) => kind !== 'stopped' && kind !== 'cut', true)),
      ),
    )
  })
