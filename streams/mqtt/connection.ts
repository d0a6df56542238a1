// One attempt and what becomes of it: TCP, then TLS, then CONNECT, then a connection until it ends.
//
//   cheap first   TLS starts only where a bare TCP connect got through
//   limited       each step has its time limit; a connection without PINGRESP is lost
//   trusted late  the CONNACK is the proof: with TLS 1.3 a client is "secure" before the server refused it
//   never again   nothing is resent by mqtt.js: a lost connection ends its client and fails what was unacknowledged

import { connect as connectTcp, type Socket } from 'node:net'
import { MqttClient } from 'mqtt'
import { Observable, type Subscription } from 'rxjs'
import type { Clock, Random } from '../run/clock.ts'
import { fault, isFault } from '../run/fault.ts'
import type { Incoming } from './link.ts'
import { DISCONNECT_PACKET, packetMeter } from './packets.ts'
import { connackReason, connectionReason } from './reasons.ts'
import type { TicketHolder, TlsIdentity } from './secure.ts'

export interface Will {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1
}

export interface ConnectionLimits {
  readonly tcpWaitMsMax: number
  readonly tlsWaitMsMax: number
  readonly connackWaitMsMax: number
  /** For a DISCONNECT to leave a socket that still holds bytes. */
  readonly closeWaitMsMax: number
  readonly packetBytesMax: number
}

/** A satellite link answers within a second or two; a black hole never does. */
export const CONNECTION_LIMITS: ConnectionLimits = {
  tcpWaitMsMax: 5_000,
  tlsWaitMsMax: 10_000,
  connackWaitMsMax: 10_000,
  closeWaitMsMax: 1_000,
  packetBytesMax: 2 * 1_024 * 1_024,
}

export interface ConnectionOptions {
  readonly address: { readonly host: string; readonly port: number }
  /** Read at each attempt, so that a renewed certificate counts from the next one on. */
  readonly tls: TlsIdentity | (() => TlsIdentity) | 'plain'
  readonly clientId: string
  readonly username?: string
  readonly password?: Buffer
  readonly will?: Will
  /** 60; 300 on a metered link. A dead peer is noticed after one and a half of it. */
  readonly keepAliveS?: number
  readonly clock: Clock
  readonly random: Random
  readonly connectionLimits?: Partial<ConnectionLimits>
}

export interface Connection {
  readonly id: string
  readonly resumed: boolean
  readonly client: MqttClient
  readonly socket: Socket
}

/**
 * Cold: each subscription is one attempt. Emits once, on CONNACK; then errors with link_unreachable, link_refused or
 * link_lost. Unsubscribing sends DISCONNECT and closes.
 */
export const connectOnce = (
  options: ConnectionOptions,
  tickets: TicketHolder,
  onMessage: (message: Incoming) => void,
): Observable<Connection> =>
  new Observable(subscriber => {
    const { address, clock, random } = options
    const limits = { ...CONNECTION_LIMITS, ...options.connectionLimits }
    const where = `${address.host}:${address.port}`
    let stepLimit: Subscription | undefined
    let client: MqttClient | undefined
    let socket: Socket
    let isUp = false

    const fail = (code: 'link_unreachable' | 'link_refused' | 'link_lost', thrown: unknown) => {
      if (!isUp) tickets.failed(thrown)
      subscriber.error(
        isFault(thrown) ? thrown : fault(code, { address: where, because: connectionReason(thrown) }, thrown),
      )
    }
    const within = (waitMs: number, what: string) => {
      stepLimit?.unsubscribe()
      stepLimit = clock.scheduler.schedule(
        () => fail('link_unreachable', new Error(`${what} within ${waitMs} ms`)),
        waitMs,
      )
    }

    const speakMqtt = (stream: Socket, resumed: () => boolean) => {
      within(limits.connackWaitMsMax, 'no CONNACK')
      const meter = packetMeter(limits.packetBytesMax)
      const mqtt = openClient(stream, options)
      client = mqtt
      stream.on('data', (chunk: Buffer) => {
        if (!meter(chunk))
          fail('link_lost', new Error(`a packet of more than ${limits.packetBytesMax} bytes`))
      })
      mqtt.on('message', (topic, payload) => onMessage({ topic, payload }))
      mqtt.on('connect', () => {
        stepLimit?.unsubscribe()
        isUp = true
        subscriber.next({
          id: random.bytes(8).toString('hex'),
          resumed: resumed(),
          client: mqtt,
          socket: stream,
        })
      })
      mqtt.on('error', thrown => {
        const code = 'code' in thrown && typeof thrown.code === 'number' ? thrown.code : undefined
        if (code === undefined) fail(isUp ? 'link_lost' : 'link_refused', thrown)
        else fail('link_refused', new Error(connackReason(code)))
      })
      mqtt.on('close', () =>
        isUp
          ? fail('link_lost', new Error('closed by the other end'))
          : fail(
              'link_refused',
              new Error('it closed the connection without an answer: it may not accept this certificate'),
            ),
      )
    }

    const startTls = (identity: TlsIdentity) => {
      within(limits.tlsWaitMsMax, 'no TLS handshake')
      const secured = tickets.secure(socket, address.host, identity)
      secured.setNoDelay(true)
      const early = (thrown: Error) => fail('link_refused', thrown)
      const closed = () =>
        fail('link_refused', new Error('it closed the connection during the TLS handshake'))
      secured.on('error', early).on('close', closed)
      secured.once('secureConnect', () => {
        secured.off('close', closed).off('error', early)
        socket = secured
        speakMqtt(secured, () => secured.isSessionReused())
      })
      socket = secured
    }

    const readIdentity = (): TlsIdentity | 'plain' =>
      typeof options.tls === 'function' ? options.tls() : options.tls

    const tcp = connectTcp({ ...address, noDelay: true })
    socket = tcp
    within(limits.tcpWaitMsMax, 'no TCP connection')
    // Stays for the socket's life: under TLS its errors also come here.
    tcp.on('error', thrown => fail(isUp ? 'link_lost' : 'link_unreachable', thrown))
    tcp.once('connect', () => {
      tcp.setNoDelay(true)
      try {
        const identity = readIdentity()
        if (identity === 'plain') speakMqtt(tcp, () => false)
        else startTls(identity)
      } catch (thrown) {
        fail('link_unreachable', thrown) // Unreadable files; the next attempt reads them again.
      }
    })

    return () => {
      stepLimit?.unsubscribe()
      const last = socket
      const ended = client
      last.on('error', () => undefined)
      if (ended === undefined || !isUp || last.destroyed || !last.writable) {
        ended?.end(true)
        last.destroy()
        tcp.destroy()
        return
      }
      const finish = () => {
        given.unsubscribe()
        ended.end(true)
        last.destroy()
      }
      const given = clock.scheduler.schedule(finish, limits.closeWaitMsMax)
      last.once('close', finish)
      last.end(DISCONNECT_PACKET, finish)
    }
  })

const openClient = (stream: Socket, options: ConnectionOptions): MqttClient => {
  const { clientId, username, password, will, keepAliveS = 60, connectionLimits } = options
  const connackWaitMsMax = connectionLimits?.connackWaitMsMax ?? CONNECTION_LIMITS.connackWaitMsMax
  return new MqttClient(() => stream, {
    clientId,
    protocolVersion: 4,
    clean: true,
    keepalive: keepAliveS,
    reconnectPeriod: 0,
    resubscribe: false,
    queueQoSZero: false,
    connectTimeout: 2 * connackWaitMsMax, // Ours comes first.
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(will === undefined ? {} : { will: { ...will, retain: false } }),
  })
}
