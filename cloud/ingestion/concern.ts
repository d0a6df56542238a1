// Ingestion as a concern: marks and questions go out through the broker, what happened becomes notices.

import { catchError, defer, EMPTY, map, merge, mergeMap, type Observable, Subject, takeUntil } from 'rxjs'
import { down } from '../../schemas/topics.ts'
import type { Outgoing } from '../../streams/mqtt/link.ts'
import { isFatal, unreachable } from '../../streams/run/fault.ts'
import type { Concern, Notice } from '../../streams/run/supervise.ts'
import type { CloudContext } from '../context.ts'
import { CREDIT_LIMITS } from './credit.ts'
import { ingest } from './ingest.ts'
import type { IngestionNotice } from './ports.ts'

export const ingestion: Concern<CloudContext> = {
  name: 'ingestion',
  run: ({ log, clock, broker, uplink$, settings, stop$, run, version }): Observable<Notice> =>
    defer(() => {
      const outgoing$ = new Subject<{ readonly to: string; readonly message: Outgoing }>()
      const notices$ = ingest({
        log,
        clock,
        uplink$,
        opening: { kind: 'cloud_started', run, version },
        credit: { ...CREDIT_LIMITS, budgetBytes: settings.credit.budgetBytes },
        close: (gateway, because) => broker.close(gateway, because),
        sendMark: (gateway, payload) =>
          outgoing$.next({
            to: gateway,
            message: { topic: down.mark(gateway), payload, qos: 0, lane: 'live' },
          }),
        sendWho: gateway =>
          outgoing$.next({
            to: gateway,
            message: { topic: down.who(gateway), payload: Buffer.alloc(0), qos: 1, lane: 'live' },
          }),
      }).pipe(map(noticeOf))
      const sent$ = outgoing$.pipe(
        mergeMap(({ to, message }) =>
          broker.send(to, message).pipe(
            // It left in the meantime: it will say hello when it is back.
            catchError((thrown: unknown) => {
              if (isFatal(thrown)) throw thrown
              return EMPTY
            }),
          ),
        ),
      )
      return merge(sent$, notices$).pipe(takeUntil(stop$))
    }),
}

const noticeOf = (notice: IngestionNotice): Notice => {
  switch (notice.kind) {
    case 'durable':
      return { kind: 'progress', what: `records_${notice.class}`, count: notice.records }
    case 'duplicates':
      return { kind: 'progress', what: 'duplicates_dropped', count: notice.count }
    case 'refused':
      return { kind: 'rejected', what: 'frame', reason: `${notice.gateway}: ${notice.because}` }
    case 'commit_failed':
      return notice.eventsForgotten > 0
        ? { kind: 'limit', what: 'events_waiting', count: notice.eventsForgotten }
        : { kind: 'rejected', what: 'commit', reason: notice.because }
    case 'blocked':
      return { kind: 'state', what: 'no_credit_while_the_log_is_full', facts: { forMs: notice.forMs } }
    default:
      return unreachable(notice)
  }
}
