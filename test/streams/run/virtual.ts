// Virtual time for tests: the clock's monotonic and wall time are the scheduler's frames.

import { type Observable, takeUntil, timer } from 'rxjs'
import { type RunHelpers, TestScheduler } from 'rxjs/testing'
import * as assert from 'uvu/assert'
import { bootIdOf } from '../../../schemas/ids.ts'
import type { Clock, Random } from '../../../streams/run/clock.ts'

export interface Virtual extends RunHelpers {
  readonly clock: Clock
}

/**
 * Everything that `make` emits until `untilMs`, each with its time; then 'complete' or the error, if it
 * ended.
 */
export const timeline = <T>(
  untilMs: number,
  make: (virtual: Virtual) => Observable<T>,
): [number, unknown][] => {
  const seen: [number, unknown][] = []
  const scheduler = new TestScheduler((actual, expected) => assert.equal(actual, expected))
  const clock: Clock = {
    nowMs: () => scheduler.now(),
    monoMs: () => scheduler.now(),
    bootId: bootIdOf(Buffer.alloc(8)),
    quality: () => 'synchronised',
    scheduler,
  }
  const note = (what: unknown) => seen.push([scheduler.now(), what])
  scheduler.run(helpers => {
    let over = false
    timer(untilMs, scheduler).subscribe(() => {
      over = true
    })
    make({ ...helpers, clock })
      .pipe(takeUntil(timer(untilMs, scheduler)))
      .subscribe({ next: note, error: note, complete: () => over || note('complete') })
  })
  return seen
}

/** Chance that always draws the same share. */
export const drawing = (share: number): Random => ({ bytes: count => Buffer.alloc(count), unit: () => share })
