// One MQTT connection as streams. Subscribing to `state$` connects and keeps connected; unsubscribing disconnects.

import type { Observable } from 'rxjs'

export type LinkState =
  | { readonly kind: 'connecting'; readonly attempt: number }
  /** `connection` is random for each; `resumed`: the TLS session was. */
  | { readonly kind: 'up'; readonly connection: string; readonly resumed: boolean }
  | { readonly kind: 'down'; readonly because: string; readonly retryInMs: number }

export interface Incoming {
  readonly topic: string
  readonly payload: Buffer
}

/** Who overtakes whom, first to last. */
export const LANES = ['interactive', 'live', 'bulk', 'backlog'] as const
export type Lane = (typeof LANES)[number]

export interface Outgoing {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1
  readonly lane: Lane
}

export interface Link {
  /** Shared, and told to late subscribers: the connection lives while this has a subscriber. */
  readonly state$: Observable<LinkState>
  /**
   * SUBSCRIBE on the first subscriber of a filter, again at each connection before `up`; QoS 1. Use filters that do
   * not overlap: a broker may send a message once for each.
   */
  messages(filter: string): Observable<Incoming>
  /**
   * Cold. QoS 1 completes on PUBACK, which means taken by the broker, not stored by the cloud; QoS 0 when handed to
   * the socket. Errors with link_down, link_lost or lane_full; never retried here.
   */
  publish(message: Outgoing): Observable<never>
}
