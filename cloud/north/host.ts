// The concern that runs the north side's worker thread: tells it of new heads and of its gateways' channels.

import { ignoreElements, map, merge, mergeMap, type Observable, switchMap, tap, throwError } from 'rxjs'
import { isLoopback } from '../../schemas/address.ts'
import type { ChannelId, GatewayId } from '../../schemas/ids.ts'
import type { CloudReader } from '../../streams/log/cloudlog.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { fault } from '../../streams/run/fault.ts'
import type { Notice } from '../../streams/run/supervise.ts'
import { runWorker, workerUrl } from '../../streams/run/worker.ts'
import { AGE_MS_MAX } from './fan-out.ts'
import type { NorthUsers } from './rules.ts'
import type { FromNorth, NorthData, ToNorth } from './worker.ts'

export interface NorthOptions {
  readonly host: string
  readonly port: number
  readonly reader: Pick<CloudReader, 'head$'>
  readonly logFolder: string
  readonly clock: Clock
  readonly channelOf: (gateway: GatewayId) => ChannelId | undefined
  /** Who has connected: the worker hears of its channel before it reads its frames, and need not ask. */
  readonly arrived$: Observable<GatewayId>
  /** Undefined: on loopback, everybody of this machine. */
  readonly users?: NorthUsers
  /** also: records of a backlog as well. */
  readonly backlog?: 'skip' | 'also'
}

/** Beyond these, the worker asks: gateways that connect and send nothing are not remembered without end. */
const ARRIVED_MAX = 10_000

/** Errors: listen_failed, worker_lost. */
export const northSide = (options: NorthOptions): Observable<Notice> => {
  const { host, port, reader, logFolder, clock, channelOf, arrived$, users, backlog = 'skip' } = options
  if (!isLoopback(host)) {
    const because = 'without TLS, tokens would be readable: only loopback addresses are served for now'
    return throwError(() =>
      fault('listen_failed', { address: `${host}:${port}`, because, key: 'north.host' }),
    )
  }
  const data: NorthData = {
    logFolder,
    host,
    port,
    users,
    ageMsMax: backlog === 'skip' ? AGE_MS_MAX : undefined,
  }
  return runWorker({ name: 'north', url: workerUrl(import.meta.url, './worker'), data, clock }).pipe(
    switchMap(worker => {
      const tell = (message: ToNorth) => worker.tell(message)
      const channelFor = (gateway: GatewayId) => ({ gateway, channel: channelOf(gateway) })
      // With the next head: a message for each of a thousand gateways that come at once would cost a fifth of a second.
      let arrived: GatewayId[] = []
      let dropped = 0
      const announced$ = reader.head$('data').pipe(
        tap(head => {
          tell({ kind: 'announce', head, channels: arrived.map(channelFor) })
          arrived = []
        }),
        ignoreElements(),
      )
      const notices$ = worker.told$.pipe(
        map(message => message as FromNorth),
        mergeMap((message): Notice[] => {
          switch (message.kind) {
            case 'which':
              tell({ kind: 'channel', ...channelFor(message.gateway) })
              return []
            case 'broker': {
              const { state } = message
              if (state.kind === 'refused')
                return [{ kind: 'rejected', what: `north client ${state.address}`, reason: state.because }]
              return [{ kind: 'state', what: 'listening', facts: { address: `${state.host}:${state.port}` } }]
            }
            case 'counts': {
              const lost = message.counts.dropped - dropped
              dropped = message.counts.dropped
              const counted: Notice = { kind: 'state', what: 'north', facts: { ...message.counts } }
              return lost > 0
                ? [{ kind: 'limit', what: 'subscriberQueueBytesMax', count: lost }, counted]
                : [counted]
            }
          }
        }),
      )
      const gathered$ = arrived$.pipe(
        tap(gateway => {
          if (arrived.length < ARRIVED_MAX) arrived.push(gateway)
        }),
        ignoreElements(),
      )
      return merge(gathered$, announced$, notices$)
    }),
  )
}
