// What aedes asks, answered from the owner's rules: who may connect, publish and subscribe, and who gets what.

import type { AedesOptions } from 'aedes'
import { defer, firstValueFrom, takeUntil } from 'rxjs'
import { filterMatches, isFilter, TOPIC_BYTES_MAX, topicLevels } from '../../schemas/topics.ts'
import { isFatal, reasonOf } from '../run/fault.ts'
import { type AedesClient, type AedesPacket, connackError, subscriptionsOf } from './aedes.ts'
import type { BrokerRules, Peer, Received, Verdict } from './broker.ts'
import type { Connections, Entry } from './connections.ts'
import type { BrokerLimits } from './limits.ts'
import type { Offenders } from './offenders.ts'
import { type OpenPersistence, type Plan, QUEUED } from './persistence.ts'
import type { Qos2 } from './qos2.ts'

export interface Counters {
  received: number
  held: number
  refusedPublishes: number
  refusedSubscribes: number
  dropped: number
}

type Refusal = Extract<Verdict, { kind: 'refuse' }>

const NO_VERDICT: Refusal = { kind: 'refuse', code: 'unavailable', because: 'no verdict' }

export interface HooksOptions {
  readonly rules: BrokerRules
  readonly limits: BrokerLimits
  readonly connections: Connections
  readonly exactlyOnce: Qos2
  readonly sessions: OpenPersistence
  readonly offending: Offenders
  readonly counters: Counters
  /** A defect in a rule. */
  readonly fail: (thrown: unknown) => void
}

const whoIs = ({ certificate, address }: Entry, clientId: string) =>
  `${certificate?.commonName ?? clientId} ${address}`

const bytesOf = (payload: Buffer | string): Buffer =>
  Buffer.isBuffer(payload) ? payload : Buffer.from(payload)

/** What both SUBSCRIBE and the store of subscriptions ask. */
export const subscriptionGate =
  (rules: BrokerRules, limits: BrokerLimits) =>
  (entry: Entry | undefined, filter: string): boolean =>
    entry?.peer !== undefined &&
    isFilter(filter) &&
    topicLevels(filter) <= limits.topicLevelsMax &&
    !/^\$(share|SYS)(\/|$)/.test(filter) && // aedes grants shared subscriptions, then never delivers to them.
    rules.refuseSubscribe(entry.peer, filter) === undefined

export const brokerHooks = (options: HooksOptions): AedesOptions => {
  const { rules, limits, connections, exactlyOnce, sessions, offending, counters, fail } = options
  const maySubscribe = subscriptionGate(rules, limits)

  const refusePublish = (peer: Peer, topic: string, payloadBytes: number): string | undefined => {
    if (topic.length > TOPIC_BYTES_MAX) return `a topic of more than ${TOPIC_BYTES_MAX} bytes`
    if (topicLevels(topic) > limits.topicLevelsMax)
      return `a topic of more than ${limits.topicLevelsMax} levels`
    if (payloadBytes > limits.packetBytesMax) return `a payload of more than ${limits.packetBytesMax} bytes`
    return rules.refusePublish(peer, topic)
  }
  const refusalBefore = (entry: Entry, peer: Peer): Refusal | undefined => {
    const refuse = (code: Refusal['code'], because: string): Refusal => ({ kind: 'refuse', code, because })
    const heldOffMs = offending.heldOffMs(whoIs(entry, peer.clientId))
    if (heldOffMs > 0)
      return refuse('unavailable', `held off for ${Math.ceil(heldOffMs / 1000)} s: it was refused too often`)
    const { willTopic } = entry
    const willRefused = willTopic === undefined ? undefined : refusePublish(peer, willTopic, 0)
    if (willRefused !== undefined) return refuse('unauthorised', `will: ${willRefused}`)
    if (Buffer.byteLength(peer.clientId) > limits.clientIdBytesMax)
      return refuse('identifier', `a client id of more than ${limits.clientIdBytesMax} bytes`)
    return undefined
  }

  /** What the message changes for clients that are away is durable before it is acknowledged. */
  const takeWith = (plan: Plan, received: Received, settle: (error?: Error) => void): void => {
    const kept = (): void => {
      plan.keep()
      settle()
    }
    const failed = (error: Error): void => {
      plan.cancel()
      settle(error)
    }
    rules.take({ ...received, changes: plan.changes }, error => {
      if (error !== undefined) return failed(error)
      if (rules.takesChanges === true) return kept()
      plan.save().then(kept, thrown => {
        failed(thrown instanceof Error ? thrown : new Error(reasonOf(thrown)))
        if (isFatal(thrown)) fail(thrown)
      })
    })
  }

  /** Through the subscriber's own lane: else one that does not read would stop what all others get. */
  const forward = (client: AedesClient, packet: AedesPacket): AedesPacket | null => {
    const entry = connections.of(client)
    if (entry === undefined) return null
    const granted = Object.entries(subscriptionsOf(client))
      .filter(([filter]) => filterMatches(filter, packet.topic))
      .reduce((most, [, { qos }]) => Math.max(most, qos), 0)
    const qos = Math.min(granted, packet.qos)
    // Behind CONNACK, whatever it subscribes to by now.
    if (!entry.isClean && packet.brokerId === QUEUED) return packet
    // Retained messages were not queued: they come with each SUBSCRIBE.
    if (!entry.isClean && !packet.retain && qos > 0) return sessions.isDue(client, packet) ? packet : null
    if (qos === 2) return packet
    const isSent = entry.downlink.offer({
      topic: packet.topic,
      payload: bytesOf(packet.payload),
      qos: qos === 1 ? 1 : 0,
      retain: packet.retain,
      lane: 'live',
    })
    if (!isSent) counters.dropped += 1
    return null
  }

  return {
    connectTimeout: 2 * limits.unauthenticatedMsMax, // Ours comes first.
    maxInflightInbound: 0, // qos2.ts has the limit, and checks it before a message is taken.
    maxTopicLevels: limits.topicLevelsMax,
    queueLimit: 32_768, // Packets behind a CONNECT in one read; those of a client that does not await its CONNACK.
    preConnect: (client, packet, done) => {
      const entry = connections.of(client)
      if (entry !== undefined) entry.willTopic = packet.will?.topic
      done(null, entry !== undefined)
    },
    authenticate: (client, username, password, done) => {
      const entry = connections.of(client)
      if (entry === undefined) return
      const { connection, address, certificate } = entry
      const peer: Peer = { clientId: client.id, username, address, connection, certificate }
      entry.peer = peer
      entry.isClean = client.clean
      const refuse = ({ code, because }: Refusal) => {
        connections.refused(entry, because, code)
        done(connackError(code, because), false)
      }
      const fallShort = (because: string) => refuse({ kind: 'refuse', code: 'unavailable', because })
      const allow = () => {
        const older = connections.byClientId.get(peer.clientId)
        if (older !== undefined) older.because ??= 'a newer connection with the same client id'
        if (!entry.isClean) {
          sessions.arrived(client)
          return done(null, true)
        }
        exactlyOnce.discard({ peer, isClean: true }).then(
          () => done(null, true),
          thrown => fallShort(reasonOf(thrown)),
        )
      }
      const early = refusalBefore(entry, peer)
      if (early !== undefined) return refuse(early)
      const verdict$ = defer(() => rules.connect(peer, password)).pipe(takeUntil(entry.left$))
      firstValueFrom(verdict$, { defaultValue: NO_VERDICT }).then(
        verdict => (verdict.kind === 'allow' ? allow() : refuse(verdict)),
        thrown => {
          fallShort(reasonOf(thrown))
          if (isFatal(thrown)) fail(thrown)
        },
      )
    },
    authorizePublish: (client, packet, done) => {
      const entry = client === null ? undefined : connections.of(client)
      const peer = entry?.peer
      if (entry === undefined || peer === undefined) return done(new Error('unknown connection'))
      // A will comes after the close; its topic was checked at CONNECT.
      const isWill = entry.client.closed
      if (entry.isCondemned && !isWill) return done(new Error(entry.because ?? 'refused'))
      const payload = bytesOf(packet.payload)
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
        isClean: entry.isClean,
      }
      const takeIt = (settle: (error?: Error) => void) => {
        counters.received += 1
        counters.held += 1
        const taken = (error?: Error) => {
          counters.held -= 1
          if (error !== undefined) entry.because ??= `not taken: ${error.message}`
          settle(error)
        }
        const plan = rules.routing === 'forward' ? sessions.plan(packet, received, packet.retain) : undefined
        if (plan === undefined) rules.take(received, taken)
        else takeWith(plan, received, taken)
      }
      if (packet.qos === 2 && messageId !== undefined)
        exactlyOnce.receive({ peer, isClean: entry.isClean }, packet, takeIt, done)
      else takeIt(done)
    },
    authorizeSubscribe: (client, subscription, done) => {
      const held = subscriptionsOf(client)
      const isFull =
        held[subscription.topic] === undefined && Object.keys(held).length >= limits.subscriptionsMax
      const mayKeep = client.clean || sessions.kept.of(client.id) !== undefined || sessions.kept.mayBegin()
      if (!isFull && mayKeep && maySubscribe(connections.of(client), subscription.topic))
        return done(null, subscription)
      counters.refusedSubscribes += 1
      done(null, null) // SUBACK 0x80
    },
    authorizeForward: (client, packet) => forward(client, packet),
  }
}
