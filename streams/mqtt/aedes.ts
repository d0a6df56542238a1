// The only file that knows what aedes 1.2.0 does not declare: its persistence, the packet id counter of a client, the
// tree of its subscriptions and the publish call that ends each message's way. Everything else goes through its options.

import type { Readable } from 'node:stream'
import { Aedes, type AedesOptions, type AedesPublishPacket, type Client } from 'aedes'

export type AedesClient = Client
export type AedesPacket = AedesPublishPacket

export interface PacketRef {
  readonly cmd: string
  readonly messageId?: number
}

/** A message on its way to one client: written after `outgoingUpdate`, as that leaves it. */
export interface OutgoingPacket {
  readonly cmd: string
  messageId: number
  qos: number
  dup: boolean
  readonly brokerId?: string
  readonly brokerCounter?: number
}

/** What this broker keeps for itself of aedes' persistence. */
export interface Persistence {
  incomingGetPacket(client: Client, packet: PacketRef): Promise<unknown>
  incomingStorePacket(client: Client, packet: PacketRef): Promise<unknown>
  incomingDelPacket(client: Client, packet: PacketRef): Promise<unknown>
  cleanIncoming(client: Client): Promise<unknown>
  /** Before a message of a kept session, or its PUBREL, is written. */
  outgoingUpdate(client: Client, packet: OutgoingPacket): Promise<unknown>
  /** On PUBACK and PUBCOMP of a client; without an id when it was not forwarded. */
  outgoingClearMessageId(client: Client, packet: PacketRef): Promise<unknown>
  outgoingEnqueueCombi(subscriptions: readonly unknown[], packet: AedesPacket): Promise<unknown>
  /** Behind CONNACK: what is owed to a kept session. */
  outgoingStream(client: Client): Readable
  storeRetained(packet: AedesPacket): Promise<unknown>
  createRetainedStreamCombi(filters: readonly string[]): Readable
  addSubscriptions(client: Client, subscriptions: readonly Filter[]): Promise<unknown>
  removeSubscriptions(client: Client, filters: readonly string[]): Promise<unknown>
  /** A clean session begins. */
  cleanSubscriptions(client: Client): Promise<unknown>
  subscriptionsByClient(client: { readonly id: string }): Promise<readonly Filter[]>
  subscriptionsByTopic(topic: string): Promise<readonly unknown[]>
}

export interface Filter {
  readonly topic: string
  readonly qos: number
}

type Done = (error?: Error | null) => void

/** mqemitter: removal takes effect in a later turn, then `done` is called. */
interface Emitter {
  readonly _matcher: { match(topic: string): readonly unknown[] }
  on(filter: string, listener: unknown, done?: () => void): unknown
  removeListener(filter: string, listener: unknown, done?: () => void): unknown
}

interface Inside {
  readonly mq: Emitter
  persistence: Persistence
  counter: number
  publish(packet: unknown, client: Client | Done | null, done?: Done): void
}

interface ClientInside {
  _nextId: number
  subscriptions: Readonly<Record<string, { readonly qos: number }>>
}

/** A broker with aedes' in-memory persistence for wills, and `replaced` for all else. */
export const startAedes = async (options: AedesOptions, replaced: Persistence): Promise<Aedes> => {
  const broker = new Aedes(options)
  await broker.listen()
  const inside = broker as unknown as Inside
  const inner = inside.persistence
  inside.persistence = new Proxy(inner, {
    get: (target, name: keyof Persistence) => {
      const own = replaced[name]
      if (own !== undefined) return own
      const value = target[name]
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
  return broker
}

/** What clients publish ends here: no retained messages, no subscribers, no events. */
export const consumeOnly = (broker: Aedes): void => {
  const inside = broker as unknown as Inside
  const publish = inside.publish.bind(broker)
  inside.publish = (packet, client, done) => {
    if (client === null || typeof client === 'function' || done === undefined) publish(packet, client, done)
    else done(null)
  }
}

/** Topics whose listeners are remembered. */
const REMEMBERED_MAX = 10_000

/** Whether somebody who is connected subscribes to a topic. */
const audienceOf = ({ mq }: Inside): ((topic: string) => boolean) => {
  const remembered = new Map<string, boolean>()
  const [on, removeListener] = [mq.on.bind(mq), mq.removeListener.bind(mq)]
  mq.on = (filter, listener, done) => {
    const added = on(filter, listener, done)
    remembered.clear()
    return added
  }
  mq.removeListener = (filter, listener, done) =>
    removeListener(filter, listener, () => {
      remembered.clear()
      done?.()
    })
  return topic => {
    const known = remembered.get(topic)
    if (known !== undefined) return known
    const found = mq._matcher.match(topic).length > 0
    if (remembered.size >= REMEMBERED_MAX) remembered.clear()
    remembered.set(topic, found)
    return found
  }
}

/**
 * Before each message is routed; what `numbered` returns is called with the number that aedes knows it by. Its order
 * is that of routing: a subscriber drops what has a smaller one than it saw last. A client's message that nobody
 * subscribes to ends here: most of what devices say is for the log alone, and routing it would cost more than the log.
 */
export const beforeRouting = (
  broker: Aedes,
  numbered: (packet: object) => ((number: number) => void) | undefined,
): void => {
  const inside = broker as unknown as Inside
  const publish = inside.publish.bind(broker)
  const hasAudience = audienceOf(inside)
  inside.publish = (packet, client, done) => {
    const bind = typeof packet === 'object' && packet !== null ? numbered(packet) : undefined
    if (bind !== undefined) {
      inside.counter += 1
      Object.assign(packet as object, { brokerId: broker.id, brokerCounter: inside.counter })
      bind(inside.counter)
    } else if (done !== undefined && client !== null && !hasAudience(topicOf(packet))) {
      return done(null)
    }
    publish(packet, client, done)
  }
}

const topicOf = (packet: unknown): string =>
  typeof packet === 'object' && packet !== null && 'topic' in packet && typeof packet.topic === 'string'
    ? packet.topic
    : ''

/** The next packet id of a connection, from the same counter as aedes' own. */
export const nextMessageId = (client: Client): number => {
  const inside = client as unknown as ClientInside
  const id = inside._nextId
  inside._nextId = id >= 65_535 ? 1 : id + 1
  return id
}

export const subscriptionsOf = (client: Client): Readonly<Record<string, { readonly qos: number }>> =>
  (client as unknown as ClientInside).subscriptions

export const CONNACK_CODES = { identifier: 2, unavailable: 3, credentials: 4, unauthorised: 5 } as const

type AuthenticateError = Parameters<Parameters<Aedes['authenticate']>[3]>[0]

export const connackError = (code: keyof typeof CONNACK_CODES, because: string): AuthenticateError =>
  Object.assign(new Error(because), { returnCode: CONNACK_CODES[code] }) as unknown as AuthenticateError
