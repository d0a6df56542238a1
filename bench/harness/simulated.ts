// A gateway that speaks the real protocol without an edge behind it: TLS with its own certificate, MQTT, hello, frames
// within the cloud's credit, marks. What it sends was sealed before, so that a thousand of them cost little.
//
// It keeps the first ticket of a full handshake, as the edge does, and checks that a mark's chain is its own.

import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls, createSecureContext, type TLSSocket } from 'node:tls'
import { generate, type Packet, parser } from 'mqtt-packet'
import { packWhole } from '../../schemas/bundle.ts'
import { readHeader } from '../../schemas/frame.ts'
import { encodeHello, PROTOCOL_VERSION, parseMark } from '../../schemas/hello.ts'
import { CHAIN_ZERO, type Epoch, ORIGIN, type StreamName } from '../../schemas/ids.ts'
import { down, up } from '../../schemas/topics.ts'
import { systemClock, systemRandom } from '../../streams/run/clock.ts'
import type { SimulatedIdentity } from './identities.ts'

const clock = systemClock()
const KEEP_ALIVE_S = 60
/** As the edge begins before it knows the rate: 16 KB messages, 32 KB in flight (edge/export/pace.ts). */
const MESSAGE_BYTES = 16 * 1024
const WINDOW_BYTES = 32 * 1024
/** As the edge before its first growth: uniform in 0…1 s. */
const RETRY_MS_MAX = 1_000

export interface Backlog {
  readonly stream: StreamName
  readonly epoch: Epoch
  /** In order, from offset 1. */
  readonly frames: readonly Buffer[]
}

export interface Connected {
  readonly socket: TLSSocket
  readonly resumed: boolean
  /** Milliseconds from the first SYN to the SUBACK. */
  readonly readyMs: number
}

export interface Simulated {
  readonly identity: SimulatedIdentity
  /** Until SUBACK. Rejects when the connection ends before. `withTicket`: if there is one. */
  connect(options: { readonly port: number; readonly withTicket: boolean }): Promise<Connected>
  /** Until a ticket is there, for the next connect. */
  ticketed(): Promise<void>
  /** Connects, again if need be, and sends until the cloud's mark is behind the last frame. */
  deliver(options: {
    readonly port: number
    readonly withTicket: boolean
    readonly backlog: Backlog
  }): Promise<Delivered>
  close(): void
}

export interface Delivered {
  /** Connections that were lost or refused on the way. */
  readonly retries: number
  /** When the last SUBACK came, and when the last mark. */
  readonly readyAtMs: number
  readonly markedAtMs: number
}

/**
 * All of them share one event loop. A thousand first messages in one turn of it would leave every handshake that is
 * under way without an answer for a second; gateways with a processor each answer at once.
 */
const HANDSHAKES_BEGUN_A_TURN = 4
const waitingToBegin: (() => void)[] = []
const beginTurn = (): void => {
  for (const begin of waitingToBegin.splice(0, HANDSHAKES_BEGUN_A_TURN)) begin()
  if (waitingToBegin.length > 0) setImmediate(beginTurn)
}
const turn = (): Promise<void> =>
  new Promise(begin => {
    waitingToBegin.push(begin)
    if (waitingToBegin.length === 1) setImmediate(beginTurn)
  })

/** `address`: its own on loopback, as gateways in the field have their own. */
export const openSimulated = (identity: SimulatedIdentity, address: string): Simulated => {
  const { gateway, ca, cert, key } = identity
  // Once: reading keys is work of the generator that a fleet of real gateways has cores of its own for.
  const secureContext = createSecureContext({ ca, cert, key, minVersion: 'TLSv1.3' })
  let ticket: Buffer | undefined
  let current: Socket | undefined
  let handler: (packet: Packet) => void = () => undefined
  const topics = [down.mark(gateway), down.who(gateway), down.alive(gateway)]

  const connect: Simulated['connect'] = async ({ port, withTicket }) => {
    const startedMs = performance.now()
    const tcp = connectTcp({ host: '127.0.0.1', port, localAddress: address, noDelay: true })
    current = tcp
    await once(tcp, 'connect')
    await turn()
    const socket = connectTls({
      socket: tcp,
      host: 'localhost',
      servername: 'localhost',
      secureContext,
      ...(withTicket && ticket !== undefined ? { session: ticket } : {}),
    })
    current = socket
    socket.on('session', (session: Buffer) => {
      ticket ??= session
    })
    const packets = parser({ protocolVersion: 4 })
    const write = (packet: Packet): void => void socket.write(generate(packet))
    socket.on('data', (chunk: Buffer) => packets.parse(chunk))
    const ready = new Promise<void>((resolve, reject) => {
      const ended = (): void => reject(new Error(`${gateway}: the connection ended before its SUBACK`))
      tcp.on('error', reject)
      socket.on('error', reject)
      socket.on('close', ended)
      packets.on('error', reject)
      packets.on('packet', (packet: Packet) => {
        switch (packet.cmd) {
          case 'connack':
            if (packet.returnCode !== 0) return reject(new Error(`${gateway}: CONNACK ${packet.returnCode}`))
            return write({
              cmd: 'subscribe',
              messageId: 1,
              subscriptions: topics.map(topic => ({ topic, qos: 1 as const })),
            })
          case 'suback':
            return resolve()
          case 'publish':
            if (packet.qos > 0) write({ cmd: 'puback', messageId: packet.messageId ?? 0 })
        }
        handler(packet)
      })
    })
    await once(socket, 'secureConnect')
    write({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 4,
      clientId: gateway,
      clean: true,
      keepalive: KEEP_ALIVE_S,
      will: { topic: up.gone(gateway), payload: Buffer.alloc(0), qos: 1, retain: false },
    })
    await ready
    return { socket, resumed: socket.isSessionReused(), readyMs: performance.now() - startedMs }
  }

  /** One connection: hello, frames behind the mark, until all is marked. Rejects when the connection ends. */
  const drain = ({ socket }: Connected, { stream, epoch, frames }: Backlog): Promise<void> =>
    new Promise((resolve, reject) => {
      const headers = frames.map(readHeader)
      const last = headers.at(-1)
      const head = last?.last ?? ORIGIN
      let next: number | undefined
      let marked = -1
      let messageId = 1
      const publish = (topic: string, payload: Buffer): void => {
        messageId = (messageId % 65_535) + 1
        socket.write(
          generate({ cmd: 'publish', topic, payload, qos: 1, messageId, dup: false, retain: false }),
        )
      }
      const bytesFrom = (from: number, to: number): number =>
        frames.slice(from, to).reduce((sum, frame) => sum + frame.length, 0)
      const pump = (creditBytes: number): void => {
        while (next !== undefined && next < frames.length) {
          const room = Math.min(creditBytes, WINDOW_BYTES) - bytesFrom(marked, next)
          if (room <= 0) return
          let to = next + 1
          while (to < frames.length && bytesFrom(next, to + 1) <= Math.min(room, MESSAGE_BYTES)) to += 1
          publish(up.export(gateway, stream), packWhole(frames.slice(next, to)))
          next = to
        }
      }
      const lost = (): void => reject(new Error(`${gateway}: the connection ended before the last mark`))
      socket.once('close', lost)
      const connection = systemRandom.bytes(8).toString('hex')
      const hello = (): void =>
        publish(
          up.hello(gateway),
          encodeHello({
            protocol: PROTOCOL_VERSION,
            version: 'simulated',
            connection,
            bootId: clock.bootId,
            clock: { wallMs: clock.nowMs(), quality: clock.quality() },
            streams: [
              {
                name: stream,
                epoch,
                origin: { offset: ORIGIN, chain: CHAIN_ZERO },
                tail: headers[0]?.first ?? ORIGIN,
                head,
                mark: { offset: ORIGIN, chain: CHAIN_ZERO },
                waitingBytes: bytesFrom(0, frames.length),
              },
            ],
          }),
        )
      handler = packet => {
        if (packet.cmd !== 'publish') return
        if (packet.topic === down.who(gateway)) return hello()
        if (packet.topic !== down.mark(gateway) || typeof packet.payload === 'string') return
        const parsed = parseMark(packet.payload)
        if (!parsed.ok) return reject(new Error(`${gateway}: a mark that is none: ${parsed.because}`))
        const at = parsed.value.streams.find(each => each.name === stream)
        if (at === undefined) return
        // Frames and marks meet at whole frames: behind which one the cloud stands.
        const place = at.offset === 0 ? 0 : headers.findIndex(each => each.last === at.offset) + 1
        const own = place === 0 ? CHAIN_ZERO : headers[place - 1]?.chain
        if (own !== at.chain) return reject(new Error(`${gateway}: the mark at ${at.offset} is not ours`))
        marked = Math.max(marked, place)
        if (parsed.value.answers !== undefined) next = place
        if (marked === frames.length) {
          socket.off('close', lost)
          handler = () => undefined
          return resolve()
        }
        pump(parsed.value.creditBytes)
      }
      hello()
    })

  return {
    identity,
    connect,
    ticketed: async () => {
      for (let waits = 0; ticket === undefined && waits < 500; waits++)
        await new Promise(resolve => setTimeout(resolve, 10))
      if (ticket === undefined) throw new Error(`${gateway}: no ticket came within 5 s`)
    },
    deliver: async ({ port, withTicket, backlog }) => {
      for (let retries = 0; ; retries++) {
        try {
          const connected = await connect({ port, withTicket })
          const readyAtMs = performance.now()
          await drain(connected, backlog)
          return { retries, readyAtMs, markedAtMs: performance.now() }
        } catch (thrown) {
          current?.destroy()
          if (retries >= 20) throw thrown
          await new Promise(resolve => setTimeout(resolve, systemRandom.unit() * RETRY_MS_MAX))
        }
      }
    },
    close: () => current?.destroy(),
  }
}
