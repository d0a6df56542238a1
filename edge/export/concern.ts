// The uplink as a concern: what it says becomes notices, and what a person should know later becomes an event.

import {
  catchError,
  concat,
  ignoreElements,
  map,
  merge,
  mergeMap,
  type Observable,
  of,
  takeUntil,
  tap,
} from 'rxjs'
import { isFatal, reasonOf, unreachable } from '../../streams/run/fault.ts'
import type { Concern, Notice } from '../../streams/run/supervise.ts'
import type { EdgeContext } from '../context.ts'
import { type ExportNotice, exportLog } from './export.ts'
import { TRIM_LIMITS } from './trim.ts'

export const uplinkConcern: Concern<EdgeContext> = {
  name: 'export',
  run: context => {
    const { gateway, version, link, clock, random, streams, settings, stop$, vitals } = context
    const trim = { ...TRIM_LIMITS, bytes: trimBytes(context) }
    const exported$ = exportLog({ gateway, version, link, clock, random, streams: streams.all, trim }).pipe(
      mergeMap(notice => tell(context, notice)),
    )
    const states$ = link.state$.pipe(
      tap(state => {
        vitals.link = state
      }),
      map(
        (state): Notice => ({
          kind: 'state',
          what: `link_${state.kind}`,
          facts: { ...state, address: settings.cloud.address },
        }),
      ),
    )
    return merge(states$, exported$).pipe(takeUntil(stop$))
  },
}

/** Of the smallest quota a quarter at most: a full stream must get room sooner than its publishers are held. */
const trimBytes = ({ streamSettings }: EdgeContext): number =>
  [...streamSettings.values()].reduce(
    (least, { maxBytes }) => Math.min(least, maxBytes / 4),
    TRIM_LIMITS.bytes,
  )

const tell = (context: EdgeContext, notice: ExportNotice): Observable<Notice> => {
  switch (notice.kind) {
    case 'marked':
      context.vitals.rate = notice.rate
      context.vitals.lastMarkAtMs = context.clock.nowMs()
      return of({ kind: 'progress', what: 'bytes_marked', count: notice.bytes })
    case 'greeted':
      return of({ kind: 'progress', what: 'hello', count: 1 })
    case 'interrupted':
    case 'trim_failed':
      return of({ kind: 'rejected', what: notice.kind, reason: notice.because })
    case 'declared':
    case 'forked':
    case 'mark_refused': {
      const { kind, ...facts } = notice
      const said: Notice = { kind: 'state', what: kind, facts }
      return concat(of(said), recorded(context, kind, facts))
    }
    default:
      return unreachable(notice)
  }
}

/** An event that cannot be stored is told, and is no reason to stop exporting. */
const recorded = (
  context: EdgeContext,
  kind: string,
  facts: Readonly<Record<string, unknown>>,
): Observable<Notice> =>
  context.record(kind, facts).pipe(
    ignoreElements(),
    catchError((thrown: unknown) => {
      if (isFatal(thrown)) throw thrown
      return of<Notice>({ kind: 'rejected', what: 'event', reason: reasonOf(thrown) })
    }),
  )
