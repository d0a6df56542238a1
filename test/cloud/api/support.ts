// The API over a real log in a temporary folder, with the real worker threads behind it.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Counter, Registry as Metrics } from 'prom-client'
import { filter, firstValueFrom, Observable, timeout } from 'rxjs'
import type { ApiOptions } from '../../../cloud/api/ports.ts'
import { serveApi } from '../../../cloud/api/serve.ts'
import { projectionsHost } from '../../../cloud/projections/host.ts'
import { channelId, gatewayId } from '../../../schemas/ids.ts'
import type { GatewayRecord } from '../../../schemas/registry.ts'
import { noBallast } from '../../../streams/log/ballast.ts'
import type { CloudBody, CloudWriter, LogClass } from '../../../streams/log/cloudlog.ts'
import { openCloudWriter } from '../../../streams/log/cloudwriter.ts'
import { memoryStore } from '../../../streams/log/memory.ts'
import { systemClock } from '../../../streams/run/clock.ts'
import type { Notice } from '../../../streams/run/supervise.ts'

// biome-ignore lint/suspicious/noExplicitAny: what the API answers is what the tests look into.
export type Answer = any

export const clock = systemClock()

const record = (id: string): GatewayRecord =>
  ({
    id: gatewayId(id),
    name: `Gateway ${id}`,
    labels: { site: id === 'g1' ? 'north' : 'south' },
    state: 'active',
    controlChannel: channelId(`${id}-ctrl`),
    dataChannel: channelId(`${id}-data`),
    registeredAtMs: 0,
    lastSeq: 1,
  }) as unknown as GatewayRecord

export interface Running {
  readonly url: string
  readonly writer: CloudWriter
  readonly options: ApiOptions
  readonly notices: Notice[]
  append(logClass: LogClass, ...bodies: CloudBody[]): Promise<unknown>
  get(path: string, init?: RequestInit): Promise<{ status: number; body: Answer; headers: Headers }>
  /** Ends the API; what is open ends with it. */
  stop(): void
}

interface Setting {
  readonly projections?: boolean
  /** Told of each page that is asked for. */
  readonly onPage?: () => void
}

export const withApi = async (
  body: (running: Running) => Promise<void>,
  { projections = true, onPage }: Setting = {},
): Promise<void> => {
  const folder = mkdtempSync(join(tmpdir(), 'api-'))
  const logFolder = join(folder, 'log')
  let writer: CloudWriter | undefined
  const open = openCloudWriter({ folder: logFolder, clock, ballast: noBallast, reserveBytes: 0 }).subscribe(
    opened => {
      writer = opened
    },
  )
  const host = projectionsHost()
  const folding = projections
    ? host.run({ reader: writer!, logFolder, viewsFolder: join(folder, 'views'), clock }).subscribe()
    : undefined
  if (projections) await firstValueFrom(host.views.ready$.pipe(filter(Boolean), timeout(20_000)))
  const metrics = new Metrics()
  new Counter({ name: 'headgate_test_total', help: 'A counter.', registers: [metrics] }).inc()
  const gateways = ['g1', 'g2'].map(record)
  const options: ApiOptions = {
    host: '127.0.0.1',
    port: 0,
    version: '0.1.0',
    clock,
    reader: {
      ...writer!,
      head: logClass => {
        if (logClass === 'data') onPage?.()
        return writer!.head(logClass)
      },
    },
    logFolder,
    views: host.views,
    registry: { list: () => gateways, get: id => gateways.find(gateway => gateway.id === id) },
    cursors: memoryStore(),
    metrics,
  }
  const notices: Notice[] = []
  const served$ = serveApi(options)
  let serving: { unsubscribe(): void } | undefined
  const url = await firstValueFrom(
    new Observable<string>(subscriber => {
      serving = served$.subscribe({
        next: notice => {
          notices.push(notice)
          if (notice.kind === 'state') subscriber.next(String(notice.facts['address']))
        },
        error: thrown => subscriber.error(thrown),
      })
    }),
  )
  const stop = () => serving?.unsubscribe()
  try {
    await body({
      url,
      writer: writer!,
      options,
      notices,
      append: (logClass, ...bodies) => firstValueFrom(writer!.append(logClass, bodies, [])),
      get: async (path, init) => {
        const response = await fetch(url + path, init)
        const text = await response.text()
        const json = response.headers.get('content-type')?.includes('application/json') ?? false
        return { status: response.status, body: json ? JSON.parse(text) : text, headers: response.headers }
      },
      stop,
    })
  } finally {
    stop()
    folding?.unsubscribe()
    open.unsubscribe()
    await new Promise(resolve => setTimeout(resolve, 250))
    rmSync(folder, { recursive: true, force: true })
  }
}

export const until = async (fits: () => Promise<boolean>, withinMs = 10_000): Promise<void> => {
  const endsAt = Date.now() + withinMs
  while (!(await fits())) {
    if (Date.now() > endsAt) throw new Error('it did not come to pass')
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

export const linesOf = (text: string): Answer[] =>
  text
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line))
