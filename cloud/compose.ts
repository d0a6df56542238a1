// All concerns of the cloud, and the context that they run in. Nothing else knows them all.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Registry as MetricsRegistry } from 'prom-client'
import { concat, filter, ignoreElements, map, type Observable, Subject, takeUntil } from 'rxjs'
import { isLoopback } from '../schemas/address.ts'
import type { CloudSettings } from '../schemas/config.ts'
import { fileBallast } from '../streams/log/ballast.ts'
import type { CloudWriter } from '../streams/log/cloudlog.ts'
import { LOG_CLASSES } from '../streams/log/cloudlog.ts'
import { openCloudWriter } from '../streams/log/cloudwriter.ts'
import { openLmdb } from '../streams/log/lmdb.ts'
import { openBroker } from '../streams/mqtt/embedded.ts'
import type { Clock, Random } from '../streams/run/clock.ts'
import { gaugesOf } from '../streams/run/gauges.ts'
import { hold } from '../streams/run/hold.ts'
import { launch } from '../streams/run/launch.ts'
import { loopDelay } from '../streams/run/loop-delay.ts'
import type { Concern, Lifecycle, Notice } from '../streams/run/supervise.ts'
import { serveApi } from './api/serve.ts'
import { serveEnrolment } from './bootstrap/serve.ts'
import { gatewayBroker } from './broker/concern.ts'
import { gatewayRules } from './broker/rules.ts'
import type { CloudContext, Uplink } from './context.ts'
import { ingestion } from './ingestion/concern.ts'
import { northSide } from './north/host.ts'
import type { Pki } from './pki/pki.ts'
import { projectionsHost } from './projections/host.ts'
import { admit } from './registry/admit.ts'
import type { Registry } from './registry/registry.ts'

export interface Cloud {
  readonly settings: CloudSettings
  readonly version: string
  readonly clock: Clock
  readonly random: Random
  readonly pki: Pki
  readonly registry: Registry
  readonly metrics: MetricsRegistry
  /** Its first value asks everything to end. */
  readonly stop$: Observable<unknown>
}

export const LOG_FOLDER = 'log'
const ANY_HOST = '::'
const LOOPBACK_HOST = '127.0.0.1'

/** Beyond loopback only when `init --host` named this machine for others. */
const listenHost = (given: string | undefined, hosts: readonly string[]): string =>
  given ?? (hosts.every(isLoopback) ? LOOPBACK_HOST : ANY_HOST)

/** By which name gateways reach this cloud. */
export const publicHost = (hosts: readonly string[]): string =>
  hosts.find(name => !isLoopback(name)) ?? 'localhost'

/** Runs while subscribed; completes after stop$. Errors: what is fatal in any concern. */
export const runCloud = (cloud: Cloud): Observable<Lifecycle> => {
  const { settings, clock, random, stop$ } = cloud
  const logFolder = join(settings.data, LOG_FOLDER)
  mkdirSync(logFolder, { recursive: true, mode: 0o700 })
  const cursors = openLmdb({ file: join(settings.data, 'cursors.mdb'), tables: ['cursors'] })
  const log$ = openCloudWriter({
    folder: logFolder,
    clock,
    ballast: fileBallast(join(settings.data, 'ballast')),
    reserveBytes: settings.disk.reserveBytes,
  })
  const life$ = hold(log$, log => {
    const projections = projectionsHost()
    const context = contextOf(cloud, log, logFolder, projections.views)
    registerGauges(cloud.metrics, context)
    const viewsFolder = join(settings.data, 'views')
    const views: Concern<CloudContext> = {
      name: 'projections',
      run: () => projections.run({ reader: log, logFolder, viewsFolder, clock }).pipe(takeUntil(stop$)),
    }
    const north: Concern<CloudContext> = {
      name: 'north',
      run: () =>
        northSide({
          ...settings.north,
          reader: log,
          logFolder,
          clock,
          channelOf: id => cloud.registry.get(id)?.dataChannel,
          arrived$: context.uplink$.pipe(
            filter(({ kind }) => kind === 'connected'),
            map(({ gateway }) => gateway),
          ),
        }).pipe(takeUntil(stop$)),
    }
    const api: Concern<CloudContext> = {
      name: 'api',
      run: () =>
        serveApi({
          host: settings.api.host,
          port: settings.api.port,
          version: cloud.version,
          clock,
          reader: log,
          logFolder,
          views: projections.views,
          registry: cloud.registry,
          cursors,
          metrics: cloud.metrics,
        }).pipe(takeUntil(stop$)),
    }
    const delay: Concern<CloudContext> = {
      name: 'loop-delay',
      run: () => loopDelay(cloud.metrics, 'cloud', clock).pipe(takeUntil(stop$)),
    }
    const concerns = [
      delay,
      ingestion,
      gatewayBroker,
      enrolment(cloud),
      ...(settings.projections.enabled ? [views] : []),
      ...(settings.north.enabled ? [north] : []),
      api,
    ]
    return launch({ concerns, context, clock, random, stop$, graceMs: settings.stopMsMax })
  })
  return concat(life$, cursors.close().pipe(ignoreElements()))
}

const enrolment = ({ settings, pki, registry }: Cloud): Concern<CloudContext> => ({
  name: 'enrolment',
  run: ({ clock, stop$ }) =>
    serveEnrolment({
      listen: { host: listenHost(settings.enrolment.host, settings.hosts), port: settings.enrolment.port },
      pki,
      registry,
      clock,
      gatewayAddress: `${publicHost(settings.hosts)}:${settings.gateways.port}`,
    }).pipe(
      map((notice): Notice => {
        switch (notice.kind) {
          case 'listening':
            return { kind: 'state', what: 'listening', facts: { address: `${notice.host}:${notice.port}` } }
          case 'enrolled':
            return { kind: 'state', what: 'enrolled', facts: { ...notice } }
          case 'refused':
            return { kind: 'rejected', what: 'enrolment', reason: `${notice.from}: ${notice.because}` }
          case 'limited':
            return { kind: 'limit', what: `enrolments_${notice.limit}`, count: 1 }
        }
      }),
      takeUntil(stop$),
    ),
})

const contextOf = (
  { settings, version, clock, random, pki, registry, metrics, stop$ }: Cloud,
  log: CloudWriter,
  logFolder: string,
  views: CloudContext['views'],
): CloudContext => {
  const uplink$ = new Subject<Uplink>()
  const record: CloudContext['record'] = event =>
    log.append('events', [{ kind: 'event', event }], []).pipe(map(() => undefined))
  const broker = openBroker({
    listeners: [
      {
        kind: 'tls',
        host: listenHost(settings.gateways.host, settings.hosts),
        port: settings.gateways.port,
        configKey: 'gateways.port',
        cert: pki.server.chain,
        key: pki.server.key,
        ca: pki.ca.certificate,
        ticketKeys: pki.ticketKeys,
      },
    ],
    rules: gatewayRules({
      clock,
      uplink$,
      find: commonName => registry.get(commonName),
      admit,
      activate: id => registry.activate(id),
      isAlive: (clientId, probe) => broker.isAlive(clientId, probe),
      record,
    }),
    clock,
    random,
    limits: { connectionsMax: settings.gateways.connectionsMax },
  })
  return {
    version,
    settings,
    clock,
    random,
    log,
    logFolder,
    broker,
    uplink$,
    views,
    metrics,
    record,
    stop$,
    run: random.bytes(8).toString('hex'),
  }
}

const registerGauges = (registry: MetricsRegistry, { broker, log }: CloudContext): void => {
  const gauge = gaugesOf(registry, 'cloud')
  gauge('connections', 'Gateways connected', [], set => set(broker.stats().connections))
  gauge('queued_bytes', "Waiting for gateways' sockets", [], set => set(broker.stats().queuedBytes))
  gauge('refused_publishes', 'Publishes refused since start', [], set => set(broker.stats().refusedPublishes))
  gauge('offenders_held_off', 'Clients held off for repeated offences', [], set =>
    set(broker.stats().offendersHeldOff),
  )
  gauge('log_head', 'Entries of the log, by class', ['class'], set => {
    for (const logClass of LOG_CLASSES) set(log.head(logClass), { class: logClass })
  })
}
