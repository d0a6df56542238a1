// The worker thread of the north side: its broker, its reader of the log, and the fan-out between them.

import { workerData } from 'node:worker_threads'
import {
  EMPTY,
  filter,
  from,
  lastValueFrom,
  map,
  merge,
  mergeMap,
  Observable,
  of,
  Subject,
  take,
  tap,
} from 'rxjs'
import { z } from 'zod'
import { type ChannelId, channelIdSchema, type GatewayId, gatewayIdSchema } from '../../schemas/ids.ts'
import { type OpenReader, openCloudReader } from '../../streams/log/cloudreader.ts'
import type { BrokerState } from '../../streams/mqtt/broker.ts'
import { openBroker } from '../../streams/mqtt/embedded.ts'
import { systemClock, systemRandom } from '../../streams/run/clock.ts'
import { serveHost, type WorkerSays } from '../../streams/run/worker-side.ts'
import { type FanOutCounts, fanOut } from './fan-out.ts'
import { openInterest } from './interest.ts'
import { northRules } from './rules.ts'

const dataSchema = z.strictObject({
  logFolder: z.string(),
  host: z.string(),
  port: z.int(),
  users: z.union([z.record(z.string(), z.string()), z.undefined()]),
  ageMsMax: z.union([z.number(), z.undefined()]),
})
export type NorthData = z.output<typeof dataSchema>

const channelSchema = z.strictObject({
  gateway: gatewayIdSchema,
  channel: z.union([channelIdSchema, z.undefined()]),
})
type GatewayChannel = z.output<typeof channelSchema>
const toSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('announce'), head: z.int(), channels: z.array(channelSchema) }),
  channelSchema.extend({ kind: z.literal('channel') }),
])
export type ToNorth =
  /** `channels`: of gateways that came since the last one. */
  | { readonly kind: 'announce'; readonly head: number; readonly channels: readonly GatewayChannel[] }
  | ({ readonly kind: 'channel' } & GatewayChannel)
export type FromNorth =
  | { readonly kind: 'which'; readonly gateway: GatewayId }
  | { readonly kind: 'counts'; readonly counts: FanOutCounts }
  | { readonly kind: 'broker'; readonly state: NorthState }
export type NorthState =
  | { readonly kind: 'listening'; readonly host: string; readonly port: number }
  | { readonly kind: 'refused'; readonly address: string; readonly because: string }

const openReader = (folder: string): Observable<OpenReader> =>
  new Observable(subscriber => {
    const reader = openCloudReader({ folder })
    subscriber.next(reader)
    return () => {
      reader.close().subscribe()
    }
  })

const main = (
  { logFolder, host, port, users, ageMsMax }: NorthData,
  told$: Observable<unknown>,
): Observable<WorkerSays> =>
  openReader(logFolder).pipe(
    mergeMap(reader => {
      const clock = systemClock()
      const interest = openInterest()
      const channels = new Map<GatewayId, ChannelId>()
      const asked$ = new Subject<FromNorth>()
      const answered$ = new Subject<GatewayChannel>()
      const broker = openBroker({
        listeners: [{ kind: 'plain', host, port, configKey: 'north.port' }],
        rules: northRules(users, interest),
        clock,
        random: systemRandom,
      })

      const learn = ({ gateway, channel }: GatewayChannel): void => {
        if (channel !== undefined) channels.set(gateway, channel)
        answered$.next({ gateway, channel })
      }
      const heard$ = told$.pipe(
        tap(message => {
          const said = toSchema.parse(message)
          if (said.kind === 'channel') return learn(said)
          said.channels.forEach(learn)
          reader.announce('data', said.head)
        }),
        mergeMap(() => EMPTY),
      )
      const channelOf = (gateway: GatewayId): Observable<ChannelId | undefined> => {
        const known = channels.get(gateway)
        if (known !== undefined) return of(known)
        return new Observable(subscriber => {
          subscriber.add(
            answered$
              .pipe(
                filter(answer => answer.gateway === gateway),
                map(({ channel }) => channel),
                take(1),
              )
              .subscribe(subscriber),
          )
          asked$.next({ kind: 'which', gateway })
        })
      }
      const fanned$ = fanOut({
        reader,
        port: broker,
        clock,
        isWanted: interest.isWanted,
        channelOf,
        ageMsMax,
      })
      const states$ = broker.run$.pipe(
        mergeMap((state: BrokerState): FromNorth[] => {
          switch (state.kind) {
            case 'connected':
              interest.connected(state.peer.clientId)
              return []
            case 'disconnected':
              interest.disconnected(state.peer.clientId)
              return []
            case 'listening':
              return [{ kind: 'broker', state: { kind: 'listening', host: state.host, port: state.port } }]
            case 'refused':
              return [
                {
                  kind: 'broker',
                  state: { kind: 'refused', address: state.address, because: state.because },
                },
              ]
          }
        }),
      )
      const messages$ = merge(
        asked$,
        states$,
        fanned$.pipe(map((counts): FromNorth => ({ kind: 'counts', counts }))),
      )
      const ready: WorkerSays = { kind: 'ready', answer: () => undefined }
      return merge(
        heard$,
        from([ready]),
        messages$.pipe(map((message): WorkerSays => ({ kind: 'tell', message }))),
      )
    }),
  )

const data = dataSchema.parse(workerData)
await lastValueFrom(
  serveHost(told$ => main(data, told$)),
  { defaultValue: undefined },
)
