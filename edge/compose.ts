// All concerns of the edge, and the context that they run in. Nothing else knows them all.

import { join } from 'node:path'
import type { Registry } from 'prom-client'
import { concat, ignoreElements, map, type Observable } from 'rxjs'
import { addressOf } from '../schemas/address.ts'
import { type EdgeSettings, streamsOf } from '../schemas/config.ts'
import { STREAM_EVENTS } from '../schemas/ids.ts'
import { up } from '../schemas/topics.ts'
import { fileBallast } from '../streams/log/ballast.ts'
import { openLmdb } from '../streams/log/lmdb.ts'
import { openStreams, type Streams, storedStreams, tablesOf } from '../streams/log/streams.ts'
import { openLink } from '../streams/mqtt/client.ts'
import type { Clock, Random } from '../streams/run/clock.ts'
import { gaugesOf, type SetGauge } from '../streams/run/gauges.ts'
import { hold } from '../streams/run/hold.ts'
import { launch } from '../streams/run/launch.ts'
import type { Concern, Lifecycle } from '../streams/run/supervise.ts'
import type { Identity } from './bootstrap/identity.ts'
import type { EdgeContext, Vitals } from './context.ts'
import { uplinkConcern } from './export/concern.ts'
import { expiry } from './export/expire.ts'
import { foreignBroker } from './ingest/foreign.ts'
import { HELD_TABLE } from './ingest/held.ts'
import { localBroker } from './ingest/local.ts'
import { MEMORY_TABLES } from './ingest/memory.ts'
import { hostMetrics, pagesConcern } from './metrics/concern.ts'
import { localSigns$ } from './network/signs.ts'
import { statusOf } from './status.ts'

const KEEP_ALIVE_S = 60
const KEEP_ALIVE_METERED_S = 300

export const LOG_FILE = 'log.mdb'
export const STATUS_SOCKET = 'status.sock'

export interface Edge {
  readonly settings: EdgeSettings
  readonly identity: Identity
  readonly version: string
  readonly clock: Clock
  readonly random: Random
  readonly registry: Registry
  /** Its first value asks everything to end. */
  readonly stop$: Observable<unknown>
}

/** Runs while subscribed; completes after stop$. Errors: what is fatal in any concern. */
export const runEdge = (edge: Edge): Observable<Lifecycle> => {
  const { settings, clock, random, stop$ } = edge
  const file = join(settings.data, LOG_FILE)
  const configured = streamsOf(settings, [])
  const store = openLmdb({ file, tables: [...tablesOf(configured.keys()), HELD_TABLE, ...MEMORY_TABLES] })
  const streams = streamsOf(settings, storedStreams(store))
  const limits = [...streams].map(
    ([name, { maxBytes: bytesMax, onFull }]) =>
      [name, { bytesMax, onFull, reserved: name === STREAM_EVENTS }] as const,
  )
  const opened$ = openStreams({
    store,
    clock,
    random,
    ballast: fileBallast(join(settings.data, 'ballast')),
    streams: new Map(limits),
    reserveBytes: settings.disk.reserveBytes,
    sealWaitMsMax: settings.seal.waitMsMax,
    codec: settings.seal.compression,
  })
  const life$ = hold(opened$, opened => {
    const context = contextOf(edge, streams, opened)
    registerGauges(edge.registry, context)
    return launch({
      concerns: concernsOf(edge, context),
      context,
      clock,
      random,
      stop$,
      graceMs: settings.stopMsMax,
    })
  })
  return concat(life$, store.close().pipe(ignoreElements()))
}

const concernsOf = ({ settings, registry }: Edge, context: EdgeContext): Concern<EdgeContext>[] => {
  const status = { type: 'application/json', body: async () => JSON.stringify(statusOf(context)) }
  const metrics = { type: registry.contentType, body: () => registry.metrics() }
  const ingest = settings.local.broker === undefined ? localBroker : foreignBroker
  return [
    uplinkConcern,
    expiry,
    hostMetrics,
    pagesConcern(status, metrics, join(settings.data, STATUS_SOCKET)),
    ...(settings.local.enabled ? [ingest] : []),
  ]
}

const contextOf = (
  { settings, identity, version, clock, random, stop$ }: Edge,
  streamSettings: EdgeContext['streamSettings'],
  streams: Streams,
): EdgeContext => {
  const { gateway, ca, cert, key } = identity
  const address = addressOf(settings.cloud.address ?? identity.address)
  const link = openLink({
    address,
    tls: { ca, cert, key },
    clientId: gateway,
    will: { topic: up.gone(gateway), payload: Buffer.alloc(0), qos: 1 },
    keepAliveS: settings.cloud.metered ? KEEP_ALIVE_METERED_S : KEEP_ALIVE_S,
    clock,
    random,
    localSign$: localSigns$({ clock, root: '/' }),
  })
  const vitals: Vitals = { link: { kind: 'connecting', attempt: 0 }, rate: 0, lastMarkAtMs: undefined }
  const events = streams.stream(STREAM_EVENTS)
  return {
    gateway,
    version,
    settings,
    clock,
    random,
    streams,
    streamSettings,
    link,
    vitals,
    stop$,
    record: (kind, facts) =>
      events
        .append([
          {
            topic: `events/${kind}`,
            payload: Buffer.from(JSON.stringify({ kind, ...facts })),
            qos: 1,
            retain: false,
            receivedMonoMs: clock.monoMs(),
          },
        ])
        .pipe(map(() => undefined)),
  }
}

const registerGauges = (registry: Registry, { streams, link, vitals }: EdgeContext): void => {
  const gauge = gaugesOf(registry, 'edge')
  const each = (read: (log: Streams['all'][number]) => number) => (set: SetGauge) => {
    for (const log of streams.all) set(read(log), { stream: log.name })
  }
  gauge(
    'stream_head',
    'Offset of the last record',
    ['stream'],
    each(log => log.state().head),
  )
  gauge(
    'stream_marked',
    'Offset durable in the cloud',
    ['stream'],
    each(log => log.marked().offset),
  )
  gauge(
    'stream_waiting_records',
    'Records behind the mark',
    ['stream'],
    each(log => log.state().head - log.marked().offset),
  )
  gauge(
    'stream_bytes',
    'Pages of the log that a stream takes',
    ['stream'],
    each(log => log.state().bytes),
  )
  gauge('log_allocated_bytes', 'Blocks of the log file', [], set => set(streams.store.allocatedBytes()))
  gauge('link_up', '1 while connected to the cloud', [], set => set(vitals.link.kind === 'up' ? 1 : 0))
  gauge('link_queued_bytes', 'Waiting for the socket, by lane', ['lane'], set => {
    for (const [lane, bytes] of Object.entries(link.stats().queuedBytes)) set(bytes, { lane })
  })
}
