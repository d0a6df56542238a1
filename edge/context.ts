// What every concern of the edge gets. Concerns do not know each other: they meet here and in the log.

import type { Observable } from 'rxjs'
import type { EdgeSettings, StreamSettings } from '../schemas/config.ts'
import type { GatewayId, StreamName } from '../schemas/ids.ts'
import type { Streams } from '../streams/log/streams.ts'
import type { MqttLink } from '../streams/mqtt/client.ts'
import type { LinkState } from '../streams/mqtt/link.ts'
import type { Clock, Random } from '../streams/run/clock.ts'

export interface EdgeContext {
  readonly gateway: GatewayId
  readonly version: string
  readonly settings: EdgeSettings
  readonly clock: Clock
  readonly random: Random
  readonly streams: Streams
  /** Of every stream, highest priority first. */
  readonly streamSettings: ReadonlyMap<StreamName, StreamSettings>
  readonly link: MqttLink
  /** As last seen, for `status`. */
  readonly vitals: Vitals
  /** Records an event in the stream `events`; emits once durable. */
  record(kind: string, facts: Readonly<Record<string, unknown>>): Observable<void>
  /** Its first value asks every source to end. */
  readonly stop$: Observable<unknown>
}

/** What concerns leave for a person who asks how things are. */
export interface Vitals {
  link: LinkState
  /** Bytes a millisecond to the cloud's disk, as last measured. */
  rate: number
  lastMarkAtMs: number | undefined
}
