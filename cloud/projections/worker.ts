// The worker thread that folds the cloud's log into its views and answers questions about them.
//
// It opens the log with read transactions of its own; marks, sessions and commands never wait for what it does.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { workerData } from 'node:worker_threads'
import { filter, interval, lastValueFrom, map, merge, mergeMap, Observable, of, tap } from 'rxjs'
import { z } from 'zod'
import type { LatestChange } from '../../schemas/views.ts'
import { type FoldState, fold } from '../../streams/fold/fold.ts'
import { LOG_CLASSES, type LogClass } from '../../streams/log/cloudlog.ts'
import { type OpenReader, openCloudReader } from '../../streams/log/cloudreader.ts'
import { openLmdb } from '../../streams/log/lmdb.ts'
import type { Store } from '../../streams/log/store.ts'
import { systemClock } from '../../streams/run/clock.ts'
import { lowerPriority } from '../../streams/run/priority.ts'
import { serveHost, type WorkerSays } from '../../streams/run/worker-side.ts'
import { drainChanged, watchLatest } from './latest.ts'
import { answerView, mountViews, VIEW_TABLES } from './views.ts'

const dataSchema = z.strictObject({
  logFolder: z.string(),
  viewsFolder: z.string(),
  keepAliveMs: z.number().positive(),
})
export type ProjectionsData = z.output<typeof dataSchema>

export type ToProjections =
  | { readonly kind: 'announce'; readonly class: LogClass; readonly head: number }
  | { readonly kind: 'watch'; readonly on: boolean }
export type FromProjections =
  | { readonly kind: 'latest'; readonly changes: readonly LatestChange[] }
  | { readonly kind: 'folded'; readonly keys: number; readonly missed: number }

const toSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('announce'), class: z.enum(LOG_CLASSES), head: z.int().min(0) }),
  z.strictObject({ kind: z.literal('watch'), on: z.boolean() }),
])

/** How often watchers are told, and of how many values at most: what changes faster is seen at this pace. */
const CHANGES_EVERY_MS = 250
const CHANGES_MAX = 1_000

interface Files {
  readonly reader: OpenReader
  readonly store: Store
}

const openFiles = ({ logFolder, viewsFolder }: ProjectionsData): Observable<Files> =>
  new Observable(subscriber => {
    mkdirSync(viewsFolder, { recursive: true })
    const reader = openCloudReader({ folder: logFolder })
    const store = openLmdb({ file: join(viewsFolder, 'views.mdb'), tables: VIEW_TABLES })
    subscriber.next({ reader, store })
    return () => {
      reader.close().subscribe()
      store.close().subscribe()
    }
  })

const main = (data: ProjectionsData, told$: Observable<unknown>): Observable<WorkerSays> =>
  openFiles(data).pipe(
    mergeMap(({ reader, store }) => {
      const clock = systemClock()
      const views = mountViews()
      const limits = { keepAliveMs: data.keepAliveMs }
      const tell = (message: FromProjections): WorkerSays => ({ kind: 'tell', message })

      const heard$ = told$.pipe(
        map(message => toSchema.parse(message)),
        tap(message => {
          if (message.kind === 'announce') reader.announce(message.class, message.head)
          else watchLatest(views.latest.view, message.on)
        }),
        filter((_): _ is never => false),
      )
      const changes$ = interval(CHANGES_EVERY_MS, clock.scheduler).pipe(
        map(() => drainChanged(views.latest.view, CHANGES_MAX)),
        filter(changes => changes.length > 0),
        map(changes => tell({ kind: 'latest', changes })),
      )
      const ready = (state: FoldState): WorkerSays => {
        const answer = (name: string, args: unknown) =>
          answerView({ views, reader, limits, nowMs: clock.nowMs(), state }, name, args)
        return { kind: 'ready', answer }
      }
      const folded$ = fold({ reader, members: Object.values(views), store, clock }).pipe(
        // Said again after each commit: with it goes the state that "status" tells of.
        mergeMap(state => of(ready(state), tell({ kind: 'folded', keys: state.keys, missed: state.missed }))),
      )
      return merge(heard$, changes$, folded$)
    }),
  )

lowerPriority() // Marks, sessions and live records come first; views follow when there is time.
const data = dataSchema.parse(workerData)
await lastValueFrom(
  serveHost(told$ => main(data, told$)),
  { defaultValue: undefined },
)
