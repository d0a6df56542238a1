// A port on which a broker's clients arrive: plain TCP, or TLS 1.3 with a required client certificate and admission
// in front of it. Hands over connections that are ready for MQTT; no Nagle on any of them.

import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls'
import type { Clock } from '../run/clock.ts'
import { type Fault, fault } from '../run/fault.ts'
import {
  ADMISSION_LIMITS,
  type Admission,
  type AdmissionLimits,
  type AdmissionRefusal,
  addressOf,
  admission,
} from './admission.ts'
import type { PeerCertificate, RefusalCode } from './broker.ts'
import { codeOf, connectionReason, wordsFor } from './reasons.ts'

interface At {
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** Of the configuration, for "set {key} to another port". */
  readonly configKey?: string
}

export interface ServerIdentity {
  /** PEM. */
  readonly cert: Buffer | string
  readonly key: Buffer | string
  /** Whose client certificates are accepted. */
  readonly ca: Buffer | string
}

export interface PlainListener extends At {
  readonly kind: 'plain'
}

export interface TlsListener extends At, ServerIdentity {
  readonly kind: 'tls'
  /** 48 random bytes: with the same ones, tickets outlive a restart. */
  readonly ticketKeys?: Buffer
}

export type Listener = PlainListener | TlsListener

export interface ListenerHandlers {
  readonly listening: (host: string, port: number) => void
  readonly arrived: (socket: Socket, address: string, certificate: PeerCertificate | undefined) => void
  readonly refused: (address: string, because: string, code: RefusalCode) => void
  readonly failed: (thrown: Fault) => void
}

export interface OpenListener {
  readonly admission: Admission | undefined
  rotateTickets(keys: Buffer): void
  /** New certificates for new connections; those that are there stay. */
  renew(identity: ServerIdentity): void
  close(): void
}

/** A day: a gateway that was away overnight still resumes. Node's default is five minutes. */
const SESSION_TIMEOUT_S = 86_400
/** Fixed, because Node's default depends on the command line, and a ticket counts only under the same one. */
const SESSION_ID_CONTEXT = 'headgate'
/** The kernel may cap it (net.core.somaxconn). */
const BACKLOG = 4_096

export const openListener = (
  listener: Listener,
  clock: Clock,
  handlers: ListenerHandlers,
  limits: AdmissionLimits = ADMISSION_LIMITS,
): OpenListener =>
  listener.kind === 'plain' ? openPlain(listener, handlers) : openTls(listener, clock, handlers, limits)

const openPlain = (listener: PlainListener, handlers: ListenerHandlers): OpenListener => {
  const server = createServer({ noDelay: true }, socket => {
    socket.setNoDelay(true)
    handlers.arrived(socket, addressOf(socket), undefined)
  })
  listen(server, listener, handlers)
  return {
    admission: undefined,
    rotateTickets: () => undefined,
    renew: () => undefined,
    close: () => server.close(),
  }
}

const openTls = (
  listener: TlsListener,
  clock: Clock,
  handlers: ListenerHandlers,
  limits: AdmissionLimits,
): OpenListener => {
  let ticketKeys = listener.ticketKeys
  const secureServer: TlsServer = createTlsServer({
    cert: listener.cert,
    key: listener.key,
    ca: listener.ca,
    minVersion: 'TLSv1.3',
    requestCert: true,
    rejectUnauthorized: true,
    sessionIdContext: SESSION_ID_CONTEXT,
    sessionTimeout: SESSION_TIMEOUT_S,
    handshakeTimeout: 2 * limits.handshakeMsMax, // Admission's own comes first.
    ...(ticketKeys === undefined ? {} : { ticketKeys }),
  })
  /** By remote address and port: the TLS socket does not name the one that it wraps. */
  const inHandshake = new Map<string, Socket>()
  const keyOf = (socket: Socket) => `${socket.remoteAddress} ${socket.remotePort}`

  const gate = admission(
    clock,
    {
      admit: socket => {
        const key = keyOf(socket)
        inHandshake.set(key, socket)
        socket.once('close', () => inHandshake.delete(key))
        secureServer.emit('connection', socket)
      },
      refused: (address, because) => {
        if (because !== 'ended') handlers.refused(address, ADMISSION_WORDS[because], 'admission')
      },
    },
    limits,
  )
  secureServer.on('secureConnection', secured => {
    const raw = inHandshake.get(keyOf(secured))
    if (raw !== undefined) gate.release(raw)
    secured.setNoDelay(true)
    handlers.arrived(secured, addressOf(secured), certificateOf(secured))
  })
  secureServer.on('tlsClientError', (thrown, secured) => {
    handlers.refused(addressOf(secured), refusalOf(thrown, secured), 'tls')
  })

  const server = createServer({ pauseOnConnect: true, noDelay: true }, socket => {
    socket.setNoDelay(true)
    gate.enter(socket)
  })
  listen(server, listener, handlers)
  return {
    admission: gate,
    rotateTickets: keys => {
      ticketKeys = keys
      secureServer.setTicketKeys(keys)
    },
    renew: ({ cert, key, ca }) =>
      // Without the keys every ticket that is out there would be void.
      secureServer.setSecureContext({
        cert,
        key,
        ca,
        minVersion: 'TLSv1.3',
        sessionIdContext: SESSION_ID_CONTEXT,
        sessionTimeout: SESSION_TIMEOUT_S,
        ticketKeys: ticketKeys ?? secureServer.getTicketKeys(),
      }),
    close: () => {
      server.close()
      gate.close()
    },
  }
}

const ADMISSION_WORDS: Readonly<Record<AdmissionRefusal, string>> = {
  silent: 'it said nothing',
  not_tls: 'not TLS',
  list_full: 'too many connections wait for their TLS handshake',
  turn_too_late: 'it waited too long for its TLS handshake',
  handshake_too_slow: 'the TLS handshake took too long',
  ended: 'it went away before its TLS handshake',
}

/** A client certificate that does not verify shows as a plain close; the reason stands on the socket. */
const refusalOf = (thrown: Error, secured: TLSSocket): string => {
  const verification: unknown = secured.authorizationError
  if (typeof verification === 'string') return wordsFor(verification)
  if (verification instanceof Error) return connectionReason(verification)
  return codeOf(thrown) === 'ECONNRESET' ? 'it gave up during the TLS handshake' : connectionReason(thrown)
}

/** As an X509Certificate: what `getPeerCertificate` makes of it costs as much as a quarter of a resumed handshake. */
const certificateOf = (secured: TLSSocket): PeerCertificate | undefined => {
  const certificate = secured.getPeerX509Certificate()
  if (certificate === undefined) return undefined
  // Several common names are no identity: none of them can be the one that the registry knows.
  const names = certificate.subject.split('\n').filter(line => line.startsWith('CN='))
  return {
    commonName: names.length === 1 ? (names[0]?.slice('CN='.length) ?? '') : '',
    serial: certificate.serialNumber.toUpperCase(),
    notAfterMs: Date.parse(certificate.validTo),
    resumed: secured.isSessionReused(),
  }
}

const listen = (server: Server, { host, port, configKey = 'port' }: At, handlers: ListenerHandlers) => {
  const where = `${host}:${port}`
  server.on('error', thrown =>
    handlers.failed(
      codeOf(thrown) === 'EADDRINUSE'
        ? fault('port_in_use', { address: where, key: configKey }, thrown)
        : fault(
            'listen_failed',
            { address: where, because: connectionReason(thrown), key: configKey },
            thrown,
          ),
    ),
  )
  server.listen({ host, port, backlog: BACKLOG }, () => handlers.listening(host, portOf(server.address())))
}

const portOf = (address: AddressInfo | string | null): number =>
  typeof address === 'object' && address !== null ? address.port : 0
