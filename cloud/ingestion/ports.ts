// What ingestion is given, and what it tells.

import type { Observable } from 'rxjs'
import type { CloudEvent } from '../../schemas/events.ts'
import type { GatewayId } from '../../schemas/ids.ts'
import type { CloudWriter, LogClass } from '../../streams/log/cloudlog.ts'
import type { Clock } from '../../streams/run/clock.ts'
import type { Uplink } from '../context.ts'
import type { CreditLimits } from './credit.ts'

export interface IngestionPorts {
  readonly log: CloudWriter
  readonly clock: Clock
  readonly uplink$: Observable<Uplink>
  readonly sendMark: (gateway: GatewayId, payload: Buffer) => void
  /** Asks one gateway for a hello. */
  readonly sendWho: (gateway: GatewayId) => void
  /** Ends a connection whose gateway does not keep to its credit. */
  readonly close: (gateway: GatewayId, because: string) => void
  readonly credit?: CreditLimits
  /** Recorded before anything else. */
  readonly opening?: CloudEvent
}

export type IngestionNotice =
  | { readonly kind: 'durable'; readonly class: LogClass; readonly records: number; readonly bytes: number }
  | { readonly kind: 'duplicates'; readonly gateway: GatewayId; readonly count: number }
  | { readonly kind: 'refused'; readonly gateway: GatewayId; readonly because: string }
  | { readonly kind: 'commit_failed'; readonly because: string; readonly eventsForgotten: number }
  | { readonly kind: 'blocked'; readonly forMs: number }
