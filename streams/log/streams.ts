// A gateway's log: several independently ordered streams in one file, with one group commit for all.

import { map, Observable } from 'rxjs'
import type { Codec } from '../../schemas/frame.ts'
import { STREAMS_MAX } from '../../schemas/hello.ts'
import { type StreamName, streamName } from '../../schemas/ids.ts'
import type { Clock, Random } from '../run/clock.ts'
import { fault } from '../run/fault.ts'
import { type Ballast, type Committer, groupCommit } from './commit.ts'
import type { Patience, StreamLog } from './log.ts'
import { framesTable, STREAMS_TABLE } from './meta.ts'
import type { Store, Write } from './store.ts'
import { openStream, type StreamLimits } from './stream.ts'

export interface StreamsOptions {
  readonly store: Store
  readonly clock: Clock
  readonly random: Random
  readonly ballast: Ballast
  readonly streams: ReadonlyMap<StreamName, StreamLimits>
  readonly reserveBytes: number
  readonly sealWaitMsMax: number
  readonly codec: Codec
}

export interface Streams {
  readonly store: Store
  readonly all: readonly StreamLog[]
  /** Errors: stream_unknown. */
  stream(name: StreamName): StreamLog
  /** Rows of other tables, on their own. */
  put(writes: readonly Write[], patience: Patience): Observable<void>
}

export const tablesOf = (streams: Iterable<StreamName>): string[] => [
  STREAMS_TABLE,
  ...[...streams].map(framesTable),
]

/** Streams that the log holds, whatever the configuration says now. */
export const storedStreams = (store: Store): StreamName[] =>
  store.scan(STREAMS_TABLE, { limit: STREAMS_MAX }).map(([key]) => streamName(key.toString()))

/** Open while subscribed. Errors: log_gap, log_unreadable. The store stays the caller's. */
export const openStreams = (options: StreamsOptions): Observable<Streams> => {
  const { store, clock, ballast, reserveBytes, sealWaitMsMax } = options
  return new Observable<Committed>(subscriber => {
    let committer: Committer | undefined
    const controls = [...options.streams].map(([name, limits]) =>
      openStream({ ...options, name, limits }, () => {
        if (committer === undefined) throw fault('log_closed')
        return committer
      }),
    )
    const settle = (durable: boolean): void => {
      for (const control of controls) control.settle(durable)
    }
    return groupCommit({ store, clock, ballast, reserveBytes, waitMsMax: sealWaitMsMax, settle }).subscribe({
      next: opened => {
        committer = opened
        for (const job of controls.map(control => control.introduce()))
          if (job !== undefined) opened.submit(job, 'wait')
        subscriber.next({ committer: opened, all: controls.map(control => control.log) })
      },
      error: thrown => subscriber.error(thrown),
    })
  }).pipe(
    map(({ committer, all }) => ({
      store,
      all,
      stream: name => {
        const known = all.find(log => log.name === name)
        if (known === undefined) throw fault('stream_unknown', { stream: name })
        return known
      },
      put: (writes, patience) =>
        new Observable<void>(subscriber => {
          committer.submit(
            {
              prepare: () => writes,
              reserved: true,
              done: () => {
                subscriber.next()
                subscriber.complete()
              },
              failed: thrown => subscriber.error(thrown),
            },
            patience,
          )
        }),
    })),
  )
}

interface Committed {
  readonly committer: Committer
  readonly all: readonly StreamLog[]
}
