// What every concern of the cloud gets. Concerns do not know each other: they meet here and in the log.

import type { Registry as MetricsRegistry } from 'prom-client'
import type { Observable, Subject } from 'rxjs'
import type { CloudSettings } from '../schemas/config.ts'
import type { CloudEvent } from '../schemas/events.ts'
import type { GatewayId, StreamName } from '../schemas/ids.ts'
import type { LatestChange, ViewName, ViewQueries } from '../schemas/views.ts'
import type { CloudWriter } from '../streams/log/cloudlog.ts'
import type { EmbeddedBroker } from '../streams/mqtt/embedded.ts'
import type { Clock, Random } from '../streams/run/clock.ts'

/** What comes from gateways. */
export type Uplink =
  | {
      readonly kind: 'connected'
      readonly gateway: GatewayId
      readonly connection: string
      readonly address: string
    }
  | {
      readonly kind: 'disconnected'
      readonly gateway: GatewayId
      readonly connection: string
      readonly because: string
    }
  | {
      readonly kind: 'hello'
      readonly gateway: GatewayId
      readonly connection: string
      readonly payload: Buffer
    }
  | {
      readonly kind: 'export'
      readonly gateway: GatewayId
      readonly connection: string
      readonly stream: StreamName
      readonly payload: Buffer
    }

/** The projections, as others ask them. */
export interface Views {
  /** Errors: worker_lost while the views are being loaded, query_refused. */
  query<N extends ViewName>(name: N, args: ViewQueries[N]['args']): Observable<ViewQueries[N]['answer']>
  readonly latest$: Observable<readonly LatestChange[]>
  readonly ready$: Observable<boolean>
}

export interface CloudContext {
  readonly version: string
  readonly settings: CloudSettings
  readonly clock: Clock
  readonly random: Random
  readonly log: CloudWriter
  readonly logFolder: string
  readonly broker: EmbeddedBroker
  readonly uplink$: Subject<Uplink>
  readonly views: Views
  readonly metrics: MetricsRegistry
  /** Random for each run of the process. */
  readonly run: string
  /** Records an event; emits once durable. */
  record(event: CloudEvent): Observable<void>
  /** Its first value asks every source to end. */
  readonly stop$: Observable<unknown>
}
