// The connections of a running broker, from the arrival of a socket to its close.
//
//   one entry    a connection has one, from before its CONNECT until its socket closed
//   bounded      so many, each with a time limit for its CONNECT and a size limit for its packets
//   told once    of each connection `connected` and `disconnected` are emitted once, or `refused` once

import type { Socket } from 'node:net'
import type { Aedes } from 'aedes'
import { Subject } from 'rxjs'
import type { Clock, Random } from '../run/clock.ts'
import { type AedesClient, nextMessageId } from './aedes.ts'
import type { BrokerState, Peer, PeerCertificate, RefusalCode } from './broker.ts'
import { type Downlink, openDownlink } from './downlink.ts'
import { gatherWrites } from './gather.ts'
import type { BrokerLimits } from './limits.ts'
import { packetMeter } from './packets.ts'

export interface Entry {
  readonly connection: string
  readonly address: string
  readonly certificate: PeerCertificate | undefined
  readonly socket: Socket
  readonly client: AedesClient
  readonly downlink: Downlink
  peer: Peer | undefined
  /** Its session ends with the connection. */
  isClean: boolean
  willTopic: string | undefined
  isUp: boolean
  /** Nothing more is taken from it: it broke a limit within the bytes that aedes is reading. */
  isCondemned: boolean
  isRefused: boolean
  because: string | undefined
  /** Emits when the socket closed. */
  readonly left$: Subject<void>
}

export interface Connections {
  readonly live: ReadonlyMap<AedesClient, Entry>
  readonly byClientId: ReadonlyMap<string, Entry>
  /** Also of a connection that just closed: its will comes after that. */
  of(client: AedesClient): Entry | undefined
  arrived(broker: Aedes, socket: Socket, address: string, certificate: PeerCertificate | undefined): void
  /** CONNACK 0 was sent. */
  accepted(entry: Entry, peer: Peer): void
  refused(entry: Entry, because: string, code: RefusalCode): void
  cut(entry: Entry, because: string): void
}

export interface ConnectionsOptions {
  readonly clock: Clock
  readonly random: Random
  readonly limits: BrokerLimits
  readonly emit: (state: BrokerState) => void
  readonly left: (entry: Entry) => void
}

export const openConnections = ({ clock, random, limits, emit, left }: ConnectionsOptions): Connections => {
  const live = new Map<AedesClient, Entry>()
  const known = new WeakMap<AedesClient, Entry>()
  const byClientId = new Map<string, Entry>()

  const cut = (entry: Entry, because: string) => {
    entry.because ??= because
    entry.isCondemned = true
    entry.client.close()
    entry.socket.destroy()
  }
  const refused = (entry: Entry, because: string, code: RefusalCode) => {
    if (entry.isRefused) return
    entry.isRefused = true
    emit({ kind: 'refused', address: entry.address, because, code })
  }
  const ended = (entry: Entry) => {
    live.delete(entry.client)
    entry.left$.next()
    entry.downlink.close()
    left(entry)
    const { peer, because } = entry
    if (peer !== undefined && byClientId.get(peer.clientId) === entry) byClientId.delete(peer.clientId)
    if (entry.isUp && peer !== undefined)
      emit({ kind: 'disconnected', peer, because: because ?? 'closed by the client' })
    else refused(entry, because ?? 'it left before its CONNECT was accepted', 'protocol')
  }

  const arrived: Connections['arrived'] = (broker, socket, address, certificate) => {
    if (live.size >= limits.connectionsMax) {
      socket.on('error', () => undefined)
      socket.destroy()
      emit({
        kind: 'refused',
        address,
        because: `more than ${limits.connectionsMax} connections`,
        code: 'limit',
      })
      return
    }
    gatherWrites(socket)
    const client = broker.handle(socket)
    const entry: Entry = {
      connection: random.bytes(8).toString('hex'),
      address,
      certificate,
      socket,
      client,
      downlink: openDownlink(socket, address, () => nextMessageId(client), limits.lanes),
      peer: undefined,
      isClean: true,
      willTopic: undefined,
      isUp: false,
      isCondemned: false,
      isRefused: false,
      because: undefined,
      left$: new Subject(),
    }
    live.set(client, entry)
    known.set(client, entry)
    const limit = clock.scheduler.schedule(() => {
      if (!entry.isUp) cut(entry, `no accepted CONNECT within ${limits.unauthenticatedMsMax} ms`)
    }, limits.unauthenticatedMsMax)
    const meter = packetMeter(limits.packetBytesMax)
    // Heard within aedes' own read, before it parses the chunk.
    socket.on('data', (chunk: Buffer) => {
      if (entry.isCondemned || meter(chunk)) return
      entry.isCondemned = true
      entry.because ??= `a packet of more than ${limits.packetBytesMax} bytes`
      socket.destroy()
    })
    socket.once('close', () => {
      limit.unsubscribe()
      ended(entry)
    })
  }

  return {
    live,
    byClientId,
    of: client => known.get(client),
    arrived,
    accepted: (entry, peer) => {
      entry.isUp = true
      byClientId.set(peer.clientId, entry)
      emit({ kind: 'connected', peer })
    },
    refused,
    cut,
  }
}
