// The process behind `startSessionCloud`: the cloud's broker, ingestion, log and views as cloud/compose.ts puts them
// together, and one who types: small messages down a gateway's session, and their way back.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Registry as MetricsRegistry } from 'prom-client'
import { map, NEVER, type Observable, Subject } from 'rxjs'
import { gatewayBroker } from '../../cloud/broker/concern.ts'
import { gatewayRules } from '../../cloud/broker/rules.ts'
import { LOG_FOLDER } from '../../cloud/compose.ts'
import type { CloudContext, Uplink } from '../../cloud/context.ts'
import { ingestion } from '../../cloud/ingestion/concern.ts'
import { openPki } from '../../cloud/pki/pki.ts'
import { projectionsHost } from '../../cloud/projections/host.ts'
import { admit } from '../../cloud/registry/admit.ts'
import { openRegistry } from '../../cloud/registry/registry.ts'
import { cloudSchema } from '../../schemas/config.ts'
import { gatewayId } from '../../schemas/ids.ts'
import { down, up } from '../../schemas/topics.ts'
import { VERSION } from '../../schemas/version.ts'
import { fileBallast } from '../../streams/log/ballast.ts'
import type { CloudWriter } from '../../streams/log/cloudlog.ts'
import { openCloudWriter } from '../../streams/log/cloudwriter.ts'
import type { Received } from '../../streams/mqtt/broker.ts'
import { type EmbeddedBroker, openBroker } from '../../streams/mqtt/embedded.ts'
import { systemClock, systemRandom } from '../../streams/run/clock.ts'
import { hold } from '../../streams/run/hold.ts'
import { launch } from '../../streams/run/launch.ts'
import type { Concern, Lifecycle } from '../../streams/run/supervise.ts'
import type { CloudSaid, Echo, SessionCloudOptions } from './session-probe.ts'

const options = JSON.parse(process.argv[2] ?? '{}') as SessionCloudOptions
const clock = systemClock()
const random = systemRandom
const settings = cloudSchema.parse({ data: options.folder })
const gateway = gatewayId(options.gateway)
const pki = openPki(join(options.folder, 'pki'), { clock, random })
const registry = openRegistry(join(options.folder, 'registry.mdb'), { clock, random })
const logFolder = join(options.folder, LOG_FOLDER)
mkdirSync(logFolder, { recursive: true, mode: 0o700 })

/** Stream id, offset and a key, about as long as a session's message will be. */
const MESSAGE_BYTES = 32
/** For echoes that are on their way. */
const FINISH_MS = 1_000

const say = (said: CloudSaid): void => void process.send?.(said)
const echoes: { sentAtMs: number; readonly sentMs: number; roundTripMs?: number }[] = []

const type = (broker: EmbeddedBroker): void => {
  const payload = Buffer.alloc(MESSAGE_BYTES)
  payload.writeUInt32BE(echoes.length)
  echoes.push({ sentAtMs: Date.now(), sentMs: performance.now() })
  // While the link is down there is nobody to type to: that message counts as lost.
  broker
    .send(gateway, { topic: down.session(gateway), payload, qos: 0, lane: 'interactive' })
    .subscribe({ error: () => undefined })
}
const heard = ({ topic, payload }: Received): void => {
  const echo = topic === up.session(gateway) ? echoes[payload.readUInt32BE(0)] : undefined
  if (echo !== undefined) echo.roundTripMs ??= performance.now() - echo.sentMs
}

const contextOf = (log: CloudWriter, views: CloudContext['views']): CloudContext => {
  const uplink$ = new Subject<Uplink>()
  const record: CloudContext['record'] = event =>
    log.append('events', [{ kind: 'event', event }], []).pipe(map(() => undefined))
  const rules = gatewayRules({
    clock,
    uplink$,
    find: commonName => registry.get(commonName),
    admit,
    activate: id => registry.activate(id),
    isAlive: (clientId, probe) => broker.isAlive(clientId, probe),
    record,
  })
  const broker: EmbeddedBroker = openBroker({
    listeners: [
      {
        kind: 'tls',
        host: '127.0.0.1',
        port: options.port,
        cert: pki.server.chain,
        key: pki.server.key,
        ca: pki.ca.certificate,
        ticketKeys: pki.ticketKeys,
      },
    ],
    rules: {
      ...rules,
      take: (received, done) => {
        heard(received)
        rules.take(received, done)
      },
    },
    clock,
    random,
    limits: { connectionsMax: settings.gateways.connectionsMax },
  })
  return {
    version: VERSION,
    settings,
    clock,
    random,
    log,
    logFolder,
    broker,
    uplink$,
    views,
    metrics: new MetricsRegistry(),
    record,
    stop$: NEVER,
    run: random.bytes(8).toString('hex'),
  }
}

const listenToHarness = (broker: EmbeddedBroker): void => {
  let typing: NodeJS.Timeout | undefined
  process.on('message', message => {
    clearInterval(typing)
    if ((message as { kind: string }).kind === 'begin')
      typing = setInterval(() => type(broker), options.everyMs)
    else
      setTimeout(() => {
        const all = echoes.map(
          ({ sentAtMs, roundTripMs }): Echo => ({
            sentAtMs,
            ...(roundTripMs === undefined ? {} : { roundTripMs }),
          }),
        )
        say({ kind: 'echoes', echoes: all })
      }, FINISH_MS)
  })
}

const run = (log: CloudWriter): Observable<Lifecycle> => {
  const projections = projectionsHost()
  const context = contextOf(log, projections.views)
  const views: Concern<CloudContext> = {
    name: 'projections',
    run: () => projections.run({ reader: log, logFolder, viewsFolder: join(options.folder, 'views'), clock }),
  }
  listenToHarness(context.broker)
  const concerns = [ingestion, gatewayBroker, views]
  return launch({ concerns, context, clock, random, stop$: NEVER, graceMs: 0 })
}

const log$ = openCloudWriter({
  folder: logFolder,
  clock,
  ballast: fileBallast(join(options.folder, 'ballast')),
  reserveBytes: settings.disk.reserveBytes,
})
hold(log$, run).subscribe({
  next: life => {
    if (life.kind === 'noticed' && life.concern === 'broker' && life.notice.kind === 'state')
      say({ kind: 'listening' })
  },
  error: thrown => {
    throw thrown
  },
})
