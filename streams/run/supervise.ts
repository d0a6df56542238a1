// Keeps a concern running: restarts it after transient faults, reports every step.
//
// Waits are drawn uniformly from 0 to a cap that doubles with each fault; only a run of `stableMs` forgets
// the growth, because a concern that fails after its first success would otherwise be restarted at full speed
// for ever. A fatal fault is reported, then passed on. Once asked to stop, nothing is started again.

import {
  catchError,
  concat,
  defer,
  ignoreElements,
  map,
  mergeMap,
  type Observable,
  of,
  race,
  take,
  takeUntil,
  tap,
  throwError,
  timer,
} from 'rxjs'
import type { Facts, FaultCode } from '../../schemas/faults.ts'
import type { Clock, Random } from './clock.ts'
import { isFatal, isFault, reasonOf } from './fault.ts'

/** One job of a program as a pipeline: subscription starts it, its completion ends it for good. */
export interface Concern<Context> {
  readonly name: string
  run(context: Context): Observable<Notice>
}

/** What a concern tells while it runs. */
export type Notice =
  | { readonly kind: 'progress'; readonly what: string; readonly count: number }
  /** One item could not be used; the concern goes on. */
  | { readonly kind: 'rejected'; readonly what: string; readonly reason: string }
  | { readonly kind: 'state'; readonly what: string; readonly facts: Facts }
  /** A limit, by its name, was reached `count` times. */
  | { readonly kind: 'limit'; readonly what: string; readonly count: number }

export type Lifecycle =
  /** `attempt`: restarts since the concern last ran stably. */
  | { readonly kind: 'started'; readonly concern: string; readonly attempt: number }
  | { readonly kind: 'noticed'; readonly concern: string; readonly notice: Notice }
  | {
      readonly kind: 'restarting'
      readonly concern: string
      readonly inMs: number
      readonly code: FaultCode | undefined
      readonly because: string
    }
  /** It ended by itself, or after being asked to. */
  | { readonly kind: 'stopped'; readonly concern: string }
  /** It did not end within the grace time. */
  | { readonly kind: 'cut'; readonly concern: string }
  /** A fatal fault; the error itself follows. */
  | {
      readonly kind: 'failed'
      readonly concern: string
      readonly code: FaultCode | undefined
      readonly because: string
    }

export interface Backoff {
  readonly firstMs: number
  readonly maxMs: number
  /** A run of this length forgets earlier faults. */
  readonly stableMs: number
}

/** A second is longer than most hiccups; a minute keeps a person's mend from having to wait for a restart. */
export const BACKOFF: Backoff = { firstMs: 1_000, maxMs: 60_000, stableMs: 60_000 }

export interface Supervision {
  readonly backoff: Backoff
  readonly clock: Clock
  readonly random: Random
  /** After its first value nothing is restarted; it replays that value to late subscribers. */
  readonly stop$: Observable<unknown>
}

/**
 * Runs until the concern completes, or stop$ and then its next fault, or a fatal fault, which is the error.
 */
export const supervise = <C>(
  concern: Concern<C>,
  context: C,
  { backoff, clock, random, stop$ }: Supervision,
): Observable<Lifecycle> =>
  defer(() => {
    const named = { concern: concern.name }
    const stopped: Lifecycle = { kind: 'stopped', ...named }
    let failures = 0
    let startedAtMs = 0
    let stopping = false

    const waitMs = (): number => {
      if (clock.monoMs() - startedAtMs >= backoff.stableMs) failures = 0
      const capMs = Math.min(backoff.firstMs * 2 ** failures, backoff.maxMs)
      failures += 1
      return Math.round(random.unit() * capMs)
    }

    const once$ = defer(() => {
      startedAtMs = clock.monoMs()
      return concat(
        of<Lifecycle>({ kind: 'started', ...named, attempt: failures }),
        defer(() => concern.run(context)).pipe(
          map((notice): Lifecycle => ({ kind: 'noticed', ...named, notice })),
        ),
        of(stopped),
      )
    })

    return once$.pipe(
      catchError((thrown: unknown, again: Observable<Lifecycle>) => {
        const told = { ...named, code: isFault(thrown) ? thrown.code : undefined, because: reasonOf(thrown) }
        if (isFatal(thrown))
          return concat(
            of<Lifecycle>({ kind: 'failed', ...told }),
            throwError(() => thrown),
          )
        if (stopping) return of(stopped)
        const inMs = waitMs()
        const next$ = race(
          stop$.pipe(map(() => of(stopped))),
          timer(inMs, clock.scheduler).pipe(map(() => again)),
        )
        return concat(
          of<Lifecycle>({ kind: 'restarting', ...told, inMs }),
          next$.pipe(
            take(1),
            mergeMap(life$ => life$),
          ),
        )
      }),
      // Never emits: only a way to watch stop$ for as long as this lives.
      takeUntil(
        stop$.pipe(
          tap(() => {
            stopping = true
          }),
          ignoreElements(),
        ),
      ),
    )
  })
