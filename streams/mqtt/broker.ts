// An embedded MQTT 3.1.1 broker as streams. Subscribing to `run$` listens; unsubscribing closes every connection.

import type { Observable } from 'rxjs'
import type { Qos } from '../../schemas/records.ts'
import type { AdmissionStats } from './admission.ts'
import type { Outgoing } from './link.ts'
import type { MemoryChange } from './session.ts'

/** Who is connected, as the rules saw it. */
export interface Peer {
  readonly clientId: string
  readonly username: string | undefined
  readonly address: string
  /** Random for each connection. */
  readonly connection: string
  /** Of the client certificate, if the listener asks for one. */
  readonly certificate: PeerCertificate | undefined
}

export interface PeerCertificate {
  readonly commonName: string
  /** Upper-case hex without separators, as Node gives it. */
  readonly serial: string
  readonly notAfterMs: number
  /** The handshake was resumed: nothing was verified in it. */
  readonly resumed: boolean
}

export interface Received {
  readonly peer: Peer
  readonly topic: string
  readonly payload: Buffer
  readonly qos: Qos
  readonly retain: boolean
  readonly dup: boolean
  readonly messageId: number | undefined
  /** Of a clean session: its ids end with the connection, and are not to be held. */
  readonly isClean: boolean
  /** What the broker's memory has to hold before this message is acknowledged; see `BrokerRules.takesChanges`. */
  readonly changes?: readonly MemoryChange[]
}

export type Verdict =
  | { readonly kind: 'allow' }
  /** MQTT 3.1.1 CONNACK codes 2 to 5. */
  | {
      readonly kind: 'refuse'
      readonly code: 'identifier' | 'unavailable' | 'credentials' | 'unauthorised'
      readonly because: string
    }

/** What a broker's owner decides. All of it may be asked many times a second. */
export interface BrokerRules {
  connect(peer: Peer, password: Buffer | undefined): Observable<Verdict>
  /** A reason to refuse, or undefined. A refused publish closes the connection. */
  refusePublish(peer: Peer, topic: string): string | undefined
  refuseSubscribe(peer: Peer, filter: string): string | undefined
  /**
   * Takes a message. PUBACK or PUBREC is sent, and local subscribers get it, only when `done` was called; an error
   * disconnects the client without acknowledgement, so that it sends again.
   */
  take(message: Received, done: (error?: Error) => void): void
  /** `consume`: `take` is the only receiver; `forward`: subscribers get it as well. */
  readonly routing: 'consume' | 'forward'
  /** `take` stores a message's `changes` together with it. Else the broker saves them itself, after `done`. */
  readonly takesChanges?: boolean

  /**
   * QoS 2 over a restart. An id counts as held from the moment that `take` stored its message until `releaseQos2`
   * removed it; a PUBLISH with a held id is answered with PUBREC and never taken again. Without these hooks ids are
   * kept in memory only. Clients with clean sessions are never asked about: their ids start afresh.
   */
  isHeldQos2?(peer: Peer, messageId: number): boolean
  /** On PUBREL; PUBCOMP goes out when it completed. May be called twice for one id. */
  releaseQos2?(peer: Peer, messageId: number): Observable<void>
  /** A client came with a clean session: what its id held is forgotten before CONNACK. */
  discardQos2?(peer: Peer): Observable<void>
}

export type RefusalCode =
  | Extract<Verdict, { kind: 'refuse' }>['code']
  /** No TLS, or none that is accepted. */
  | 'tls'
  /** In front of TLS: silent, too slow, too many. */
  | 'admission'
  /** Not MQTT 3.1.1, or no CONNECT in time. */
  | 'protocol'
  /** Too many connections. */
  | 'limit'

export type BrokerState =
  | { readonly kind: 'listening'; readonly host: string; readonly port: number }
  /** Before the first message of the peer is taken. */
  | { readonly kind: 'connected'; readonly peer: Peer }
  | { readonly kind: 'disconnected'; readonly peer: Peer; readonly because: string }
  | {
      readonly kind: 'refused'
      readonly address: string
      readonly because: string
      readonly code: RefusalCode
    }

export interface Held {
  readonly messages: number
  readonly bytes: number
}

export interface BrokerStats {
  readonly connections: number
  readonly received: number
  /** Publishes that wait for `done`. */
  readonly held: number
  readonly refusedPublishes: number
  readonly refusedSubscribes: number
  /** QoS 2 messages that came again and were not taken again. */
  readonly duplicates: number
  /** Messages that a limit cost a subscriber: in a lane, in the queue of its session, or retained for it. */
  readonly dropped: number
  readonly retained: Held
  /** Of `dropped`: retained messages that found no room. */
  readonly droppedRetained: number
  /** Kept over disconnections, with what waits for their clients. */
  readonly sessions: number
  readonly queued: Held
  /** Of `dropped`: messages that a session's queue had no room for. */
  readonly droppedQueued: number
  /** Given up for newer ones: the longest absent first. */
  readonly evictedSessions: number
  /** Bytes that wait in the lanes of all connections. */
  readonly queuedBytes: number
  readonly offendersHeldOff: number
  /** Of the listeners with TLS. */
  readonly admission: readonly AdmissionStats[]
}

export interface Broker {
  /** Errors: port_in_use, listen_failed. */
  readonly run$: Observable<BrokerState>
  clients(): Peer[]
  /** To local subscribers. Completes when routed. */
  publish(message: {
    readonly topic: string
    readonly payload: Buffer
    readonly qos: Qos
    readonly retain?: boolean
  }): Observable<never>
  /**
   * To one connected client, whether it subscribed or not. Completes when handed to the socket (QoS 0) or on PUBACK
   * (QoS 1). Errors: link_down, link_lost, lane_full.
   */
  send(clientId: string, message: Outgoing): Observable<never>
  /** Emits once, whether the client acknowledges an empty QoS 1 message to `topic` in time. */
  isAlive(clientId: string, probe: { readonly topic: string; readonly withinMs: number }): Observable<boolean>
  close(clientId: string, because: string): void
  stats(): BrokerStats
}
