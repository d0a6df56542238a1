// Trims a stream at its mark, in batches: each trim costs a commit, and flash wears.

import {
  catchError,
  defer,
  EMPTY,
  exhaustMap,
  expand,
  filter,
  ignoreElements,
  interval,
  map,
  merge,
  type Observable,
  of,
  tap,
} from 'rxjs'
import type { Offset } from '../../schemas/ids.ts'
import type { StreamLog } from '../../streams/log/log.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { isFatal, reasonOf } from '../../streams/run/fault.ts'

export interface TrimLimits {
  readonly everyMs: number
  readonly bytes: number
}

export const TRIM_LIMITS: TrimLimits = { everyMs: 30_000, bytes: 4 * 1024 * 1024 }

export type TrimNotice = { readonly kind: 'trim_failed'; readonly because: string }

/**
 * Runs as long as the exporter, not as a connection: on a link that flaps faster than `everyMs` it still trims.
 * `markedBytes$`: bytes that a mark of this stream has covered. A trim that fails is tried again with the next one.
 */
export const trimming = (
  log: StreamLog,
  markedBytes$: Observable<number>,
  clock: Clock,
  limits: TrimLimits = TRIM_LIMITS,
): Observable<TrimNotice> =>
  defer(() => {
    let sinceBytes = 0
    const much$ = markedBytes$.pipe(
      tap(bytes => {
        sinceBytes += bytes
      }),
      filter(() => sinceBytes >= limits.bytes),
    )
    return merge(much$, interval(limits.everyMs, clock.scheduler)).pipe(
      filter(() => log.marked().offset >= log.state().tail),
      exhaustMap(() => {
        sinceBytes = 0
        return trimThrough(log, log.marked().offset)
      }),
    )
  })

/** One step of a trim takes a bounded number of frames. */
const trimThrough = (log: StreamLog, through: Offset): Observable<TrimNotice> => {
  let reached = log.state().tail - 1
  return log.trim(through).pipe(
    expand(trimmed => {
      if (trimmed <= reached || trimmed >= through) return EMPTY
      reached = trimmed
      return log.trim(through, 'now')
    }),
    ignoreElements(),
    map((nothing: never) => nothing),
    catchError((thrown: unknown) => {
      if (isFatal(thrown)) throw thrown
      return of({ kind: 'trim_failed', because: reasonOf(thrown) } as const)
    }),
  )
}
