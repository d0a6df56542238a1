// The gateway's own metrics into the stream `gateway`; Prometheus and status pages for those who are on it.

import { catchError, concatMap, filter, map, merge, type Observable, of, takeUntil } from 'rxjs'
import { STREAM_GATEWAY } from '../../schemas/ids.ts'
import type { TakenRecord } from '../../schemas/records.ts'
import { isFatal, reasonOf } from '../../streams/run/fault.ts'
import { type Page, type PagesListen, servePages } from '../../streams/run/pages.ts'
import type { Concern, Notice } from '../../streams/run/supervise.ts'
import type { EdgeContext } from '../context.ts'
import { metrics$ } from './metrics.ts'

export const hostMetrics: Concern<EdgeContext> = {
  name: 'metrics',
  run: ({ settings, streams, clock, stop$ }) => {
    const log = streams.stream(STREAM_GATEWAY)
    const seal = (record: TakenRecord): Observable<Notice> =>
      log.append([record], { patience: 'wait' }).pipe(
        map((): Notice => ({ kind: 'progress', what: 'sampled', count: 1 })),
        catchError((thrown: unknown) => {
          if (isFatal(thrown)) throw thrown
          return of<Notice[]>(
            { kind: 'limit', what: 'metrics_dropped', count: 1 },
            { kind: 'rejected', what: 'metrics', reason: reasonOf(thrown) },
          )
        }),
      )
    const { disks } = settings.metrics
    return metrics$({
      clock,
      intervalMs: metricsIntervalMs(settings),
      sources: { root: '/', mounts: disks },
    }).pipe(concatMap(seal), takeUntil(stop$))
  },
}

/** On a metered link a point every five minutes tells enough. */
const METERED_INTERVAL_MS = 300_000
const metricsIntervalMs = ({ cloud, metrics }: EdgeContext['settings']): number =>
  cloud.metered ? Math.max(METERED_INTERVAL_MS, metrics.intervalMs) : metrics.intervalMs

export const pagesConcern = (status: Page, metrics: Page, socketFile: string): Concern<EdgeContext> => ({
  name: 'pages',
  run: ({ settings, stop$ }) => {
    const { host, port } = settings.metrics
    const tcp: PagesListen = { kind: 'tcp', host, port, configKey: 'metrics.port' }
    const opened = [
      servePages({ kind: 'socket', file: socketFile }, { '/status': status, '/metrics': metrics }),
      ...(port === 0 ? [] : [servePages(tcp, { '/metrics': metrics })]),
    ]
    return merge(...opened).pipe(
      filter(bound => bound > 0),
      map(
        (bound): Notice => ({
          kind: 'state',
          what: 'metrics_listening',
          facts: { address: `${host}:${bound}` },
        }),
      ),
      takeUntil(stop$),
    )
  },
})
