// TLS 1.3 over a TCP connection, and the session ticket that makes the next handshake cheap.
//
// The first ticket of a full handshake is kept: a resumed connection brings no new one. It is dropped when the
// certificates change and when TLS failed with it, but not when the network did.

import { isIP, type Socket } from 'node:net'
import { connect, type TLSSocket } from 'node:tls'
import { isTlsFailure } from './reasons.ts'

export interface TlsIdentity {
  /** PEM. */
  readonly ca: Buffer | string
  readonly cert: Buffer | string
  readonly key: Buffer | string
  /** The name that the server's certificate has to bear; the address' host without it. */
  readonly servername?: string
}

export interface TicketHolder {
  /** Starts a handshake on a connected socket. */
  secure(socket: Socket, host: string, identity: TlsIdentity): TLSSocket
  /** The connection failed before its CONNACK. */
  failed(thrown: unknown): void
}

const sameIdentity = (one: TlsIdentity | undefined, other: TlsIdentity): boolean =>
  one !== undefined &&
  one.servername === other.servername &&
  [[one.ca, other.ca] as const, [one.cert, other.cert] as const, [one.key, other.key] as const].every(
    ([before, now]) => Buffer.from(before).equals(Buffer.from(now)),
  )

export const ticketHolder = (): TicketHolder => {
  let identity: TlsIdentity | undefined
  let ticket: Buffer | undefined

  return {
    secure: (socket, host, wanted) => {
      if (!sameIdentity(identity, wanted)) ticket = undefined
      identity = wanted
      const { ca, cert, key, servername } = wanted
      const named = servername ?? (isIP(host) === 0 ? host : undefined)
      const offered = ticket
      const secured = connect({
        socket,
        host, // Checked against the certificate where no name is sent (an IP address).
        ca,
        cert,
        key,
        minVersion: 'TLSv1.3',
        ...(named === undefined ? {} : { servername: named }),
        ...(offered === undefined ? {} : { session: offered }),
      })
      let kept = false
      secured.on('session', (session: Buffer) => {
        if (kept || identity !== wanted) return
        kept = true
        ticket = session
      })
      return secured
    },
    failed: thrown => {
      if (isTlsFailure(thrown)) ticket = undefined
    },
  }
}
