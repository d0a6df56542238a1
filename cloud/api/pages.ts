// Pages of records from a worker thread, which runs while somebody reads and half a minute longer.

import { map, mergeMap, type Observable, ReplaySubject, share, take, takeUntil, timer } from 'rxjs'
import type { Clock } from '../../streams/run/clock.ts'
import { runWorker, workerUrl } from '../../streams/run/worker.ts'
import type { Page, PageQuery } from './page.ts'
import type { RecordsData } from './worker.ts'

/** Starting a thread takes 100 ms, keeping one 15 MB: readers that come and go share one. */
const IDLE_MS_MAX = 30_000

export interface PagesOptions {
  readonly logFolder: string
  readonly clock: Clock
  /** Ends the worker. */
  readonly stop$: Observable<unknown>
}

/** Cold; one page, or none once stopped. Errors: worker_lost, query_refused. */
export type ReadPage = (query: PageQuery) => Observable<Page>

export const recordPages = ({ logFolder, clock, stop$ }: PagesOptions): ReadPage => {
  const data: RecordsData = { logFolder }
  const worker$ = runWorker({
    name: 'records',
    url: workerUrl(import.meta.url, './worker'),
    data,
    clock,
  }).pipe(
    takeUntil(stop$),
    share({
      connector: () => new ReplaySubject(1),
      resetOnRefCountZero: () => timer(IDLE_MS_MAX, clock.scheduler),
    }),
  )
  return query =>
    worker$.pipe(
      take(1),
      mergeMap(worker => worker.ask('page', query)),
      // Made by readPage on the other side of the thread.
      map(answer => answer as Page),
    )
}
