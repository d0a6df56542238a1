// The process behind `startSessionEdge`: the edge's link, streams and exporter as edge/compose.ts puts them together,
// and an echo of what comes down a session. No devices: its log was filled before.

import { join } from 'node:path'
import { catchError, EMPTY, mergeMap, NEVER, takeUntil } from 'rxjs'
import { loadIdentity } from '../../edge/bootstrap/identity.ts'
import { LOG_FILE } from '../../edge/compose.ts'
import type { EdgeContext, Vitals } from '../../edge/context.ts'
import { uplinkConcern } from '../../edge/export/concern.ts'
import { HELD_TABLE } from '../../edge/ingest/held.ts'
import { MEMORY_TABLES } from '../../edge/ingest/memory.ts'
import { hostMetrics } from '../../edge/metrics/concern.ts'
import { edgeSchema, streamsOf } from '../../schemas/config.ts'
import { STREAM_EVENTS, streamName } from '../../schemas/ids.ts'
import { down, up } from '../../schemas/topics.ts'
import { VERSION } from '../../schemas/version.ts'
import { fileBallast } from '../../streams/log/ballast.ts'
import { openLmdb } from '../../streams/log/lmdb.ts'
import { openStreams, type Streams, storedStreams, tablesOf } from '../../streams/log/streams.ts'
import { openLink } from '../../streams/mqtt/client.ts'
import { systemClock, systemRandom } from '../../streams/run/clock.ts'
import { hold } from '../../streams/run/hold.ts'
import { launch } from '../../streams/run/launch.ts'
import type { Concern } from '../../streams/run/supervise.ts'
import type { EdgeSaid, SessionEdgeOptions } from './session-probe.ts'

const { folder, host, port, servername } = JSON.parse(process.argv[2] ?? '{}') as SessionEdgeOptions
const clock = systemClock()
const random = systemRandom
const settings = edgeSchema.parse({ data: folder })
const { gateway, ca, cert, key } = loadIdentity(join(folder, 'identity'), clock)
const vitals: Vitals = { link: { kind: 'connecting', attempt: 0 }, rate: 0, lastMarkAtMs: undefined }
const DATA = streamName('data')

/** A keystroke is not worth a PUBACK: the session's own offsets see to what is lost. */
const echo: Concern<EdgeContext> = {
  name: 'echo',
  run: ({ link, stop$ }) =>
    link.messages(down.session(gateway)).pipe(
      mergeMap(({ payload }) =>
        link
          .publish({ topic: up.session(gateway), payload, qos: 0, lane: 'interactive' })
          .pipe(catchError(() => EMPTY)),
      ),
      takeUntil(stop$),
    ),
}

const contextOf = (streams: Streams): EdgeContext => ({
  gateway,
  version: VERSION,
  settings,
  clock,
  random,
  streams,
  streamSettings,
  vitals,
  stop$: NEVER,
  record: () => EMPTY,
  link: openLink({
    address: { host, port },
    tls: { ca, cert, key, servername },
    clientId: gateway,
    will: { topic: up.gone(gateway), payload: Buffer.alloc(0), qos: 1 },
    clock,
    random,
  }),
})

const store = openLmdb({
  file: join(folder, LOG_FILE),
  tables: [...tablesOf(streamsOf(settings, []).keys()), HELD_TABLE, ...MEMORY_TABLES],
})
const streamSettings = streamsOf(settings, storedStreams(store))
const opened$ = openStreams({
  store,
  clock,
  random,
  ballast: fileBallast(join(folder, 'ballast')),
  streams: new Map(
    [...streamSettings].map(([name, { maxBytes: bytesMax, onFull }]) => [
      name,
      { bytesMax, onFull, reserved: name === STREAM_EVENTS },
    ]),
  ),
  reserveBytes: settings.disk.reserveBytes,
  sealWaitMsMax: settings.seal.waitMsMax,
  codec: settings.seal.compression,
})

hold(opened$, streams => {
  const context = contextOf(streams)
  process.on('message', () => {
    const data = streams.stream(DATA)
    const said: EdgeSaid = {
      kind: 'state',
      link: vitals.link.kind,
      head: data.state().head,
      marked: data.marked().offset,
      bytesPerSecond: Math.round(vitals.rate * 1_000),
    }
    process.send?.(said)
  })
  return launch({
    concerns: [uplinkConcern, hostMetrics, echo],
    context,
    clock,
    random,
    stop$: NEVER,
    graceMs: 0,
  })
}).subscribe({
  error: thrown => {
    throw thrown
  },
})
