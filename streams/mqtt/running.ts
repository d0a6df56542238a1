// A broker while it runs: one entry per connection, and aedes' hooks answered from the owner's rules.

import type { Socket } from 'node:net'
import type { Aedes, AedesOptions } from 'aedes'
import { type Subscription, defer, take, timer } from 'rxjs'
import { TOPIC_BYTES_MAX, filterMatches, isFilter } from '../../schemas/topics.ts'
import { isFatal, reasonOf } from '../run/fault.ts'
import { type AedesClient, type AedesPacket, connackError, consumeOnly, nextMessageId, startAedes, subscriptionsOf } from './aedes.ts'
import type { BrokerState, Peer, PeerCertificate, Received, RefusalCode, Verdict } from './broker.ts'
import { type Downlink, openDownlink } from './downlink.ts'
import { type OpenListener, openListener } from './listener.ts'
import type { BrokerLimits, BrokerOptions } from './embedded.ts'
import { offenders } from './offenders.ts'
import { packetMeter } from './packets.ts'
import { qos2 } from './qos2.ts'
import { connectionReason } from './reasons.ts'
import { boundedPersistence } from './session.ts'

export interface Entry {
  readonly connection: string
  readonly address: string
  readonly certificate: PeerCertificate | undefined
  readonly socket: Socket
  readonly client: AedesClient
  readonly downlink: Downlink
  peer: Peer | undefined
  isClean: boolean
  willTopic: string | undefined
  isUp: boolean
  /** Nothing more is taken from it: it broke a limit within the bytes that aedes is reading. */
  isCondemned: boolean
  isRefused: boolean
  because: string | undefined
  asking: Subscription | undefined
}

export interface Running {
  readonly entries: ReadonlyMap<AedesClient, Entry>
  readonly byClientId: ReadonlyMap<string, Entry>
  readonly listeners: readonly OpenListener[]
  readonly aedes: () => Aedes | undefined
  readonly counters: Counters
  heldOff(): number
  duplicates(): number
  stop(): void
}

export interface Counters {
  received: number
  held: number
  refusedPublishes: number
  refusedSubscribes: number
  dropped: number
}

export interface RunHandlers {
  readonly emit: (state: BrokerState) => void
  readonly fail: (thrown: unknown) => void
}

type Refusal = Extract<Verdict, { kind: 'refuse' }>

export const runBroker = (
  { listeners, rules, clock, random }: BrokerOptions,
  limits: BrokerLimits,
  { emit, fail }: RunHandlers,
): Running => {
  const entries = new Map<AedesClient, Entry>()
  /** Also those that just left: their wills come after the close. */
  const known = new WeakMap<AedesClient, Entry>()
  const byClientId = new Map<string, Entry>()
  const keptSessions = new Set<string>()
  const counters: Counters = { received: 0, held: 0, refusedPublishes: 0, refusedSubscribes: 0, dropped: 0 }
  const exactlyOnce = qos2(rules)
  const offending = offenders(clock)
  const open: OpenListener[] = []
  let aedes: Aedes | undefined
  let isStopped = false

  const ownerOf = (client: AedesClient) => {
    const entry = known.get(client)
    return entry?.peer === undefined ? undefined : { peer: entry.peer, isClean: entry.isClean }
  }
  const whoIs = ({ certificate, address }: Entry, clientId: string) => `${certificate?.commonName ?? clientId} ${address}`
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

  const arrived = (socket: Socket, address: string, certificate: PeerCertificate | undefined) => {
    const broker = aedes
    if (broker === undefined || entries.size >= limits.connectionsMax) {
      socket.on('error', () => undefined)
      socket.destroy()
      emit({ kind: 'refused', address, because: `more than ${limits.connectionsMax} connections`, code: 'limit' })
      return
    }
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
      asking: undefined,
    }
    entries.set(client, entry)
    known.set(client, entry)
    const limit = timer(limits.unauthenticatedMsMax, clock.scheduler).subscribe(() => {
      if (!entry.isUp) cut(entry, `no accepted CONNECT within ${limits.unauthenticatedMsMax} ms`)
    })
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
      left(entry)
    })
  }

  const left = (entry: Entry) => {
    entries.delete(entry.client)
    entry.asking?.unsubscribe()
    entry.downlink.close()
    const { peer, because } = entry
    if (peer !== undefined) {
      exactlyOnce.forget({ peer, isClean: entry.isClean })
      if (byClientId.get(peer.clientId) === entry) byClientId.delete(peer.clientId)
    }
    if (entry.isUp && peer !== undefined) emit({ kind: 'disconnected', peer, because: because ?? 'closed by the client' })
    else refused(entry, because ?? 'it left before its CONNECT was accepted', 'protocol')
  }

  const refusalBefore = (entry: Entry, peer: Peer): Refusal | undefined => {
    const refuse = (code: Refusal['code'], because: string): Refusal => ({ kind: 'refuse', code, because })
    const heldOffMs = offending.heldOffMs(whoIs(entry, peer.clientId))
    if (heldOffMs > 0) return refuse('unavailable', `held off for ${Math.ceil(heldOffMs / 1000)} s: it was refused too often`)
    const { willTopic } = entry
    const willRefused = willTopic === undefined ? undefined : refusePublish(peer, willTopic, 0)
    if (willRefused !== undefined) return refuse('unauthorised', `will: ${willRefused}`)
    if (!entry.isClean && !keptSessions.has(peer.clientId) && keptSessions.size >= limits.keptSessionsMax)
      return refuse('unavailable', `more than ${limits.keptSessionsMax} sessions are kept`)
    return undefined
  }

  const refusePublish = (peer: Peer, topic: string, payloadBytes: number): string | undefined => {
    if (topic.length > TOPIC_BYTES_MAX) return `a topic of more than ${TOPIC_BYTES_MAX} bytes`
    if (topic.split('/', limits.topicLevelsMax + 1).length > limits.topicLevelsMax) return `a topic of more than ${limits.topicLevelsMax} levels`
    if (payloadBytes > limits.packetBytesMax) return `a payload of more than ${limits.packetBytesMax} bytes`
    return rules.refusePublish(peer, topic)
  }
  const maySubscribe = (entry: Entry, filter: string): boolean =>
    entry.peer !== undefined &&
    isFilter(filter) &&
    filter.split('/').length <= limits.topicLevelsMax &&
    !/^\$(share|SYS)(\/|$)/.test(filter) && // aedes grants shared subscriptions, then never delivers to them.
    rules.refuseSubscribe(entry.peer, filter) === undefined

  const hooks: AedesOptions = {
    connectTimeout: 2 * limits.unauthenticatedMsMax, // Ours comes first.
    maxInflightInbound: 0, // qos2.ts has the limit, and checks it before a message is taken.
    maxTopicLevels: limits.topicLevelsMax,
    preConnect: (client, packet, done) => {
      const entry = known.get(client)
      if (entry !== undefined) entry.willTopic = packet.will?.topic
      done(null, entry !== undefined)
    },
    authenticate: (client, username, password, done) => {
      const entry = known.get(client)
      if (entry === undefined) return
      const { connection, address, certificate } = entry
      const peer: Peer = { clientId: client.id, username, address, connection, certificate }
      entry.peer = peer
      entry.isClean = client.clean
      const refuse = ({ code, because }: Refusal) => {
        refused(entry, because, code)
        done(connackError(code, because), false)
      }
      const fallShort = (because: string) => refuse({ kind: 'refuse', code: 'unavailable', because })
      const allow = () => {
        if (entry.isClean) keptSessions.delete(peer.clientId)
        else keptSessions.add(peer.clientId)
        if (!entry.isClean) return done(null, true)
        exactlyOnce.discard({ peer, isClean: true }).then(() => done(null, true), thrown => fallShort(reasonOf(thrown)))
      }
      const early = refusalBefore(entry, peer)
      if (early !== undefined) return refuse(early)
      let isAnswered = false
      entry.asking = defer(() => rules.connect(peer, password)).pipe(take(1)).subscribe({
        next: verdict => {
          isAnswered = true
          if (verdict.kind === 'allow') allow()
          else refuse(verdict)
        },
        error: thrown => {
          fallShort(reasonOf(thrown))
          if (isFatal(thrown)) fail(thrown)
        },
        complete: () => {
          if (!isAnswered) fallShort('no verdict')
        },
      })
    },
    authorizePublish: (client, packet, done) => {
      const entry = client === null ? undefined : known.get(client)
      const peer = entry?.peer
      if (entry === undefined || peer === undefined) return done(new Error('unknown connection'))
      // A will comes after the close; its topic was checked at CONNECT.
      const isWill = entry.client.closed
      if (entry.isCondemned && !isWill) return done(new Error(entry.because ?? 'refused'))
      const payload = Buffer.isBuffer(packet.payload) ? packet.payload : Buffer.from(packet.payload)
      const because = refusePublish(peer, packet.topic, payload.length)
      if (because !== undefined) {
        counters.refusedPublishes += 1
        offending.offended(whoIs(entry, peer.clientId))
        entry.because ??= `refused publish to ${packet.topic}: ${because}`
        return done(new Error(because))
      }
      const { messageId } = packet
      const received: Received = {
        peer,
        topic: packet.topic,
        payload,
        qos: packet.qos,
        retain: packet.retain,
        dup: packet.dup,
        messageId,
      }
      const takeIt = (settle: (error?: Error) => void) => {
        counters.received += 1
        counters.held += 1
        rules.take(received, error => {
          counters.held -= 1
          if (error !== undefined) entry.because ??= `not taken: ${error.message}`
          settle(error)
        })
      }
      if (packet.qos === 2 && messageId !== undefined)
        exactlyOnce.receive({ peer, isClean: entry.isClean }, packet, takeIt, done)
      else takeIt(done)
    },
    authorizeSubscribe: (client, subscription, done) => {
      const entry = known.get(client)
      const held = subscriptionsOf(client)
      const isFull = held[subscription.topic] === undefined && Object.keys(held).length >= limits.subscriptionsMax
      if (entry !== undefined && !isFull && maySubscribe(entry, subscription.topic)) return done(null, subscription)
      counters.refusedSubscribes += 1
      done(null, null) // SUBACK 0x80
    },
    authorizeForward: (client, packet) => forward(client, packet),
  }

  /** Through the subscriber's own lane: else one that does not read would stop what all others get. */
  const forward = (client: AedesClient, packet: AedesPacket): AedesPacket | null => {
    const entry = known.get(client)
    if (entry === undefined) return null
    const granted = Object.entries(subscriptionsOf(client))
      .filter(([filter]) => filterMatches(filter, packet.topic))
      .reduce((most, [, { qos }]) => Math.max(most, qos), 0)
    const qos = Math.min(granted, packet.qos)
    if (qos === 2 || (qos > 0 && !entry.isClean)) return packet // Kept sessions need aedes' own queue.
    const payload = Buffer.isBuffer(packet.payload) ? packet.payload : Buffer.from(packet.payload)
    const isSent = entry.downlink.offer({ topic: packet.topic, payload, qos: qos === 1 ? 1 : 0, retain: packet.retain, lane: 'live' })
    if (!isSent) counters.dropped += 1
    return null
  }

  const persistence = boundedPersistence({
    qos2: exactlyOnce,
    ownerOf,
    acknowledged: (client, messageId) => known.get(client)?.downlink.acknowledged(messageId) === true,
    maySubscribe: (client, filter) => {
      const entry = known.get(client)
      return entry !== undefined && maySubscribe(entry, filter)
    },
    dropped: count => {
      counters.dropped += count
    },
    cut: (client, thrown) => {
      const entry = known.get(client)
      if (entry !== undefined) cut(entry, reasonOf(thrown))
    },
  })

  const started = (broker: Aedes) => {
    if (isStopped) {
      broker.close()
      return
    }
    aedes = broker
    if (rules.routing === 'consume') consumeOnly(broker)
    const failed = (client: AedesClient, thrown: Error) => {
      const entry = known.get(client)
      if (entry !== undefined) entry.because ??= connectionReason(thrown)
    }
    broker.on('clientError', failed)
    broker.on('connectionError', failed)
    broker.on('connackSent', ({ returnCode }, client) => {
      const entry = known.get(client)
      if (returnCode !== 0 || entry?.peer === undefined) return
      const older = byClientId.get(entry.peer.clientId)
      if (older !== undefined) older.because ??= 'a newer connection with the same client id'
      entry.isUp = true
      byClientId.set(entry.peer.clientId, entry)
      emit({ kind: 'connected', peer: entry.peer })
    })
    const handlers = {
      listening: (host: string, port: number) => emit({ kind: 'listening', host, port }),
      arrived,
      refused: (address: string, because: string, code: RefusalCode) => emit({ kind: 'refused', address, because, code }),
      failed: fail,
    }
    for (const listener of listeners) open.push(openListener(listener, clock, handlers, limits.admission))
  }
  startAedes(hooks, persistence).then(started).catch(fail)

  return {
    entries,
    byClientId,
    listeners: open,
    aedes: () => aedes,
    counters,
    heldOff: offending.heldOff,
    duplicates: exactlyOnce.duplicates,
    stop: () => {
      isStopped = true
      for (const listener of open) listener.close()
      for (const entry of [...entries.values()]) cut(entry, 'the broker stops')
      aedes?.close()
    },
  }
}
