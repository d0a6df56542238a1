// How long the event loop keeps a timer waiting: a histogram that only grows, so that anyone can take the quantiles of
// any span of time from two scrapes.

import { Histogram, type Registry } from 'prom-client'
import { defer, ignoreElements, interval, type Observable, tap } from 'rxjs'
import type { Clock } from './clock.ts'

/** A delay shorter than this is not told apart; a hundred wake-ups a second are 0.1 % of a core. */
const EVERY_MS = 10
const BUCKETS_S = [1, 2, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1_000, 2_000, 5_000].map(
  ms => ms / 1_000,
)

/** `headgate_<program>_event_loop_delay_seconds`. Measures while subscribed; never emits. */
export const loopDelay = (registry: Registry, program: 'edge' | 'cloud', clock: Clock): Observable<never> =>
  defer(() => {
    const histogram = new Histogram({
      name: `headgate_${program}_event_loop_delay_seconds`,
      help: 'By how much timers of the main loop came late',
      buckets: BUCKETS_S,
      registers: [registry],
    })
    let dueMs = clock.monoMs() + EVERY_MS
    return interval(EVERY_MS, clock.scheduler).pipe(
      tap(() => {
        const nowMs = clock.monoMs()
        histogram.observe(Math.max(0, nowMs - dueMs) / 1_000)
        dueMs = nowMs + EVERY_MS
      }),
      ignoreElements(),
    )
  })
