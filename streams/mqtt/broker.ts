// An embedded MQTT 3.1.1 broker as streams. Subscribing to `run$` listens; unsubscribing closes every connection.

import type { Observable } from 'rxjs'
import type { Qos } from '../../schemas/records.ts'

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
}

export type Verdict =
  | { readonly kind: 'allow' }
  /** MQTT 3.1.1 CONNACK codes 2 to 5. */
  | { readonly kind: 'refuse'; readonly code: 'identifier' | 'unavailable' | 'credentials' | 'unauthorised'; readonly because: string }

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
}
