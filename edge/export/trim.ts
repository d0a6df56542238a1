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
  share,
  tap,
} from 'rxjs'
import type { Offset } from '../../schemas/ids.ts'
import type { Position, StreamLog } from '../../streams/log/log.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { isFatal, reasonOf } from '../../streams/run/fault.ts'

export interface TrimLimits {
  readonly everyMs: number
  readonly bytes: number
}

export const TRIM_LIMITS: TrimLimits = { everyMs: 30_000, bytes: 4 * 1024 * 1024 }

export type TrimNotice = { readonly kind: 'trim_failed'; readonly because: string }

/** Runs beside the uplink; a trim that fails is tried again with the next one. */
export const trimming = (
  log: StreamLog,
  marked$: Observable<{ readonly at: Position; readonly bytes: number }>,
  clock: Clock,
  limits: TrimLimits = TRIM_LIMITS,
): Observable<TrimNotice> =>
  defer(() => {
    let sinceBytes = 0
    let through: Offset | undefined
    const noted$ = marked$.pipe(
      tap(({ at, bytes }) => {
        through = at.offset
        sinceBytes += bytes
      }),
      share(),
    )
    const due$ = merge(
      noted$.pipe(filter(() => sinceBytes >= limits.bytes)),
      interval(limits.everyMs, clock.scheduler),
    )
    const trimmed$ = due$.pipe(
      filter(() => sinceBytes > 0),
      exhaustMap(() => {
        sinceBytes = 0
        return through === undefined ? EMPTY : trimThrough(log, through)
      }),
    )
    return trimmed$
  })

/** One step of a trim takes a bounded number of frames. */
const trimThrough = (log: StreamLog, through: Offset): Observable<TrimNotice> => {
  let reached = log.state().tail - 1
  return log.trim(through).pipe(
    expand(trimmed => {
      if (trimmed <= reached) return EMPTY
      reached = trimmed
      return log.trim(through)
    }),
    ignoreElements(),
    map((nothing: never) => nothing),
    catchError((thrown: unknown) => {
      if (isFatal(thrown)) throw thrown
      return of({ kind: 'trim_failed', because: reasonOf(thrown) } as const)
    }),
  )
}
