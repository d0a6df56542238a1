// Drops what is older than a stream's maxAgeHours, for a declared skip.

import { catchError, concatMap, from, interval, map, type Observable, of, takeUntil } from 'rxjs'
import type { StreamLog } from '../../streams/log/log.ts'
import { isFatal, reasonOf } from '../../streams/run/fault.ts'
import type { Concern, Notice } from '../../streams/run/supervise.ts'
import type { EdgeContext } from '../context.ts'

/** Ages are in hours: a minute is soon enough, and one small read a stream. */
const LOOK_MS = 60_000
const HOUR_MS = 3_600_000

export const expiry: Concern<EdgeContext> = {
  name: 'expiry',
  run: ({ streamSettings, streams, clock, stop$ }) => {
    const aged = streams.all.flatMap(log => {
      const hours = streamSettings.get(log.name)?.maxAgeHours ?? 0
      return hours > 0 ? [{ log, ageMs: hours * HOUR_MS }] : []
    })
    return interval(LOOK_MS, clock.scheduler).pipe(
      concatMap(() => from(aged)),
      concatMap(({ log, ageMs }) => expire(log, clock.nowMs() - ageMs)),
      takeUntil(stop$),
    )
  },
}

const expire = (log: StreamLog, beforeMs: number): Observable<Notice> => {
  const through = log.expiredThrough(beforeMs)
  if (through === undefined) return of()
  const { tail } = log.state()
  return log.drop(through, 'age').pipe(
    map((): Notice => ({ kind: 'limit', what: `max_age_${log.name}`, count: through - tail + 1 })),
    catchError((thrown: unknown) => {
      if (isFatal(thrown)) throw thrown
      return of<Notice>({ kind: 'rejected', what: 'expiry', reason: reasonOf(thrown) })
    }),
  )
}
