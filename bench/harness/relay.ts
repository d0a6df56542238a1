// A TCP relay between a gateway and its cloud: what a network does to a connection, and a count of what went through.
//
//   as it comes   without rate and delay, chunks go through as they are read
//   thin          with a rate, each direction of the link has its own token bucket, for all its connections together
//   bounded       what waits for the rate is at most `queueBytes` and one read (64 KB) of each connection; then the
//                 socket is not read, and the kernel's window holds the sender
//   ordered       a delay line keeps the order; what is on the line when the network is cut is lost
//
// A relay alone is no thin link to its sender: on loopback the kernel took 4 MB for a socket that nobody read, and 4.6
// MB in front of 1 Mbit/s (64 KB segments make it grow the send buffer at once). `writableLength` stays 0 and nothing is
// ever dropped: that link is a queue of any length, and its latency is what the sender's own window makes of it.
// namespace.ts has a link with segments of 1,448 bytes and a router that drops.

import { connect, createServer, type Server, type Socket } from 'node:net'
import { type Direction, openDirection } from './direction.ts'

export interface Network {
  /** Bytes a second, each direction apart. Undefined: as fast as it goes. */
  readonly rate?: number
  /** One way. */
  readonly delayMs?: number
  /** What a router holds in front of the link; by default 150 ms of the rate. */
  readonly queueBytes?: number
}

export interface RelayOptions extends Network {
  /** 127.0.0.1 */
  readonly host?: string
}

export interface Relay {
  readonly port: number
  /** Refuses, as a closed port does, and resets what is there. */
  cut(): Promise<void>
  restore(): Promise<void>
  /** Accepts and forwards nothing, in either direction, until `resume`: a black hole behind an open port. */
  stall(): void
  resume(): void
  /** The cloud's connections end; the gateway is not told, and what it sends goes nowhere. */
  forgetCloud(): void
  /** The gateway's connections end; the cloud is not told, and what it sends goes nowhere. */
  forgetGateway(): void
  change(network: Network): void
  /** Bytes from the gateway, and to it, as they left the relay. */
  readonly up: () => number
  readonly down: () => number
  close(): Promise<void>
}

export const openRelay = async (targetPort: number, options: RelayOptions = {}): Promise<Relay> => {
  const { host = '127.0.0.1' } = options
  const gateways = new Set<Socket>()
  const clouds = new Set<Socket>()
  const up: Direction = openDirection(options)
  const down: Direction = openDirection(options)
  let server: Server | undefined

  const serve = (gateway: Socket): void => {
    const cloud = connect({ host: '127.0.0.1', port: targetPort, noDelay: true, allowHalfOpen: true })
    gateway.setNoDelay(true)
    for (const [end, all] of [
      [gateway, gateways],
      [cloud, clouds],
    ] as const) {
      all.add(end)
      end.on('error', () => undefined)
      end.on('close', () => all.delete(end))
    }
    up.carry(gateway, cloud)
    down.carry(cloud, gateway)
  }
  const listen = (port: number): Promise<number> =>
    new Promise((resolve, reject) => {
      server = createServer({ allowHalfOpen: true }, serve)
      server.once('error', reject)
      server.listen(port, host, () => {
        const bound = server?.address()
        resolve(bound === null || bound === undefined || typeof bound === 'string' ? port : bound.port)
      })
    })
  const port = await listen(0)
  const forget = (sockets: Set<Socket>, direction: Direction): void => {
    for (const socket of sockets) {
      direction.forget(socket)
      socket.destroy()
    }
  }
  const cut = async (): Promise<void> => {
    const closing = server
    server = undefined
    up.drop()
    down.drop()
    for (const socket of [...gateways, ...clouds]) socket.destroy()
    if (closing !== undefined) await new Promise(resolve => closing.close(resolve))
  }
  return {
    port,
    cut,
    restore: async () => {
      await listen(port)
    },
    stall: () => {
      up.hold(true)
      down.hold(true)
    },
    resume: () => {
      up.hold(false)
      down.hold(false)
    },
    forgetCloud: () => forget(clouds, down),
    forgetGateway: () => forget(gateways, up),
    change: network => {
      up.change(network)
      down.change(network)
    },
    up: up.bytes,
    down: down.bytes,
    close: cut,
  }
}
