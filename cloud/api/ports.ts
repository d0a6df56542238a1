// What the API is given: it knows no other concern.

import type { Registry as Metrics } from 'prom-client'
import type { Observable } from 'rxjs'
import type { GatewayRecord } from '../../schemas/registry.ts'
import type { LatestChange, ViewName, ViewQueries } from '../../schemas/views.ts'
import type { CloudReader } from '../../streams/log/cloudlog.ts'
import type { Store } from '../../streams/log/store.ts'
import type { Clock } from '../../streams/run/clock.ts'

export interface ViewsPort {
  /** Errors: worker_lost while the views are being loaded, query_refused. */
  query<N extends ViewName>(name: N, args: ViewQueries[N]['args']): Observable<ViewQueries[N]['answer']>
  readonly latest$: Observable<readonly LatestChange[]>
  readonly ready$: Observable<boolean>
}

export interface RegistryPort {
  /** By id, in order. */
  list(): readonly GatewayRecord[]
  get(id: string): GatewayRecord | undefined
}

export interface ApiOptions {
  readonly host: string
  /** 0: any free one. */
  readonly port: number
  readonly version: string
  readonly clock: Clock
  readonly reader: CloudReader
  readonly logFolder: string
  readonly views: ViewsPort
  readonly registry: RegistryPort
  /** With the table `cursors`; nobody else writes to it while the API runs. */
  readonly cursors: Store
  readonly metrics: Metrics
  /** Why the cloud is not ready, in words; none when it is. */
  readonly notReady?: () => readonly string[]
}
