// The concern that runs the projections' worker thread, and the port by which others ask its views.
//
// The port outlives the worker: while the worker is being restarted, questions are refused with worker_lost, and
// watchers go on waiting. The main thread parses nothing here.

import {
  BehaviorSubject,
  defer,
  filter,
  finalize,
  ignoreElements,
  map,
  merge,
  mergeMap,
  type Observable,
  Subject,
  share,
  switchMap,
  tap,
  throwError,
} from 'rxjs'
import type { LatestChange, ViewName, ViewQueries } from '../../schemas/views.ts'
import { type CloudReader, LOG_CLASSES } from '../../streams/log/cloudlog.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { fault } from '../../streams/run/fault.ts'
import type { Notice } from '../../streams/run/supervise.ts'
import { type RunningWorker, runWorker, workerUrl } from '../../streams/run/worker.ts'
import type { FromProjections, ProjectionsData, ToProjections } from './worker.ts'

export interface ProjectionsOptions {
  /** The writer's side: its heads are announced to the worker. */
  readonly reader: Pick<CloudReader, 'head$'>
  readonly logFolder: string
  /** Made when missing; may be deleted at any time while the cloud is stopped: it is a fold over the log. */
  readonly viewsFolder: string
  readonly clock: Clock
  /** 60 s: what gateways are configured to. */
  readonly keepAliveMs?: number
}

export interface Views {
  /** Cold; one answer. Errors: worker_lost while the worker starts, query_refused. */
  query<N extends ViewName>(name: N, args: ViewQueries[N]['args']): Observable<ViewQueries[N]['answer']>
  /** Changed values at most every 250 ms. The worker keeps a list only while somebody watches. */
  readonly latest$: Observable<readonly LatestChange[]>
  /** Emits when the worker has loaded its views, and undefined when it is gone. */
  readonly ready$: Observable<boolean>
}

export interface ProjectionsHost {
  readonly views: Views
  /** Runs until unsubscribed. Errors: worker_lost. */
  run(options: ProjectionsOptions): Observable<Notice>
}

export const projectionsHost = (): ProjectionsHost => {
  const worker$ = new BehaviorSubject<RunningWorker | undefined>(undefined)
  const said$ = new Subject<FromProjections>()

  const watching = (on: boolean) => {
    const message: ToProjections = { kind: 'watch', on }
    worker$.value?.tell(message)
  }
  const latest$ = merge(
    // Each new worker has to be told again.
    worker$.pipe(
      tap(() => watching(true)),
      ignoreElements(),
    ),
    said$,
  ).pipe(
    mergeMap(message => (message.kind === 'latest' ? [message.changes] : [])),
    finalize(() => watching(false)),
    share(),
  )

  const views: Views = {
    query: (name, args) =>
      defer(() => {
        const lost = () =>
          fault('worker_lost', {
            name: 'projections',
            because: 'it is being restarted: ask again in a moment',
          })
        const asked$ = worker$.value?.ask(name, args) ?? throwError(lost)
        // The answer's type is fixed by the name, on both sides of the thread; a structured clone cannot carry it.
        return asked$ as Observable<ViewQueries[typeof name]['answer']>
      }),
    latest$,
    ready$: worker$.pipe(map(worker => worker !== undefined)),
  }

  const run = ({
    reader,
    logFolder,
    viewsFolder,
    clock,
    keepAliveMs = 60_000,
  }: ProjectionsOptions): Observable<Notice> => {
    const data: ProjectionsData = { logFolder, viewsFolder, keepAliveMs }
    return runWorker({ name: 'projections', url: workerUrl(import.meta.url, './worker'), data, clock }).pipe(
      switchMap(worker => {
        worker$.next(worker)
        const announced$ = merge(
          ...LOG_CLASSES.map(logClass =>
            reader.head$(logClass).pipe(
              tap(head => {
                const message: ToProjections = { kind: 'announce', class: logClass, head }
                worker.tell(message)
              }),
            ),
          ),
        ).pipe(ignoreElements())
        const notices$ = worker.told$.pipe(
          map(message => message as FromProjections),
          tap(message => said$.next(message)),
          filter(message => message.kind === 'folded'),
          mergeMap(({ keys, missed }): Notice[] => [
            ...(keys > 0 ? [{ kind: 'progress', what: 'views_changed', count: keys } as const] : []),
            ...(missed > 0
              ? [{ kind: 'limit', what: 'entries_gone_before_folded', count: missed } as const]
              : []),
          ]),
        )
        return merge(announced$, notices$)
      }),
      finalize(() => worker$.next(undefined)),
    )
  }
  return { views, run }
}
