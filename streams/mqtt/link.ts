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
  /** Shared: the connection lives while this has a subscriber. */
  readonly state$: Observable<LinkState>
  /** SUBSCRIBE on the first subscriber of a filter, again at each connection; QoS 1. */
  messages(filter: string): Observable<Incoming>
  /**
   * Cold. QoS 1 completes on PUBACK, which means taken by the broker, not stored by the cloud; QoS 0 when handed to
   * the socket. Errors with link_down or link_lost; never retried here.
   */
  publish(message: Outgoing): Observable<never>
}
