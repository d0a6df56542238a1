// The broker's own persistence in the place of aedes': what survives connections, and restarts with a `SessionMemory`.
//
//   planned first   what a message changes is known before it is taken, so that the owner can store both together
//   durable first   SUBACK, PUBACK and PUBREC follow the memory's save
//   lazily freed    what was acknowledged is removed from the memory soon, not at once: a crash repeats it

import { Readable } from 'node:stream'
import { isFatal } from '../run/fault.ts'
import { type AedesClient, nextMessageId, type PacketRef, type Persistence } from './aedes.ts'
import { type Kept, messageOf, openKept, type Session } from './kept.ts'
import type { Qos2, Qos2Owner } from './qos2.ts'
import type { Item } from './queue.ts'
import { openRetained, type Retained } from './retained.ts'
import { openSaver } from './saver.ts'
import type { MemoryChange, RetainedMessage, SessionLimits, SessionMemory } from './session.ts'
import { openSubscribing } from './subscribing.ts'

export interface PersistenceOptions {
  readonly qos2: Qos2
  readonly limits: SessionLimits
  readonly subscriptionsMax: number
  readonly memory: SessionMemory | undefined
  readonly ownerOf: (client: AedesClient) => Qos2Owner | undefined
  /** True: the id belonged to a message of ours. */
  readonly acknowledged: (client: AedesClient, messageId: number) => boolean
  readonly maySubscribe: (client: AedesClient, filter: string) => boolean
  /** Closes the connection: what was asked cannot be answered. */
  readonly cut: (client: AedesClient, thrown: unknown) => void
  /** A defect in the memory. */
  readonly fail: (thrown: unknown) => void
}

/** What one message changes. Either `keep` or `cancel` is called, once. */
export interface Plan {
  readonly changes: readonly MemoryChange[]
  /** Saves the changes apart from the message. */
  save(): Promise<void>
  /** The changes are durable. */
  keep(): void
  cancel(): void
}

export interface OpenPersistence {
  readonly persistence: Persistence
  readonly kept: Kept
  readonly retained: Retained
  droppedRetained(): number
  /** Undefined when the message concerns nobody who is away. `packet` is the object that will be routed. */
  plan(packet: object, message: RetainedMessage, retain: boolean): Plan | undefined
  /** For `beforeRouting`. */
  numbered(packet: object): ((number: number) => void) | undefined
  /** For a kept session: the message waits in its queue and is to be sent now. */
  isDue(client: AedesClient, packet: PacketRef & NumberedPacket): boolean
  arrived(client: AedesClient): void
  left(client: AedesClient): void
  /** Errors: those of the memory's `load`. */
  restore(): void
}

export interface NumberedPacket {
  readonly brokerId?: string
  readonly brokerCounter?: number
}

/** In the place of a broker's id: the number is a queued message's `sequence`. */
export const QUEUED = 'queued'
const never = new Promise<never>(() => undefined)
const nobody: Promise<readonly unknown[]> = Promise.resolve([])
const nothing: Promise<undefined> = Promise.resolve(undefined)

export const openPersistence = (options: PersistenceOptions): OpenPersistence => {
  const { limits, memory } = options
  let droppedRetained = 0
  const kept = openKept(limits)
  const retained = openRetained(limits, () => {
    droppedRetained += 1
  })
  const routes = new WeakMap<object, readonly Item[]>()

  const saver = openSaver({ memory, row: kept.row, fail: options.fail })
  const { save } = saver
  const forget = (item: Item): void => {
    kept.removeItem(item)
    saver.noteGone(item.sequence)
  }

  const plan: OpenPersistence['plan'] = (packet, message, retain) => {
    if (!retain && (message.qos === 0 || kept.filters.isEmpty())) return undefined
    // A copy: the payload is a part of a larger read, which would be held with it.
    const own = { topic: message.topic, payload: Buffer.from(message.payload), qos: message.qos }
    const toRetain = retain ? retained.plan(own) : undefined
    const items = message.qos === 0 ? [] : kept.plan(own)
    if (toRetain === undefined && items.length === 0) return undefined
    const changes: MemoryChange[] = [
      ...(toRetain === undefined ? [] : [toRetain.change]),
      ...items.map(
        (item): MemoryChange => ({ kind: 'queued', sequence: item.sequence, message: messageOf(item) }),
      ),
    ]
    return {
      changes,
      save: () => {
        toRetain?.restamp()
        return save(changes)
      },
      keep: () => {
        toRetain?.keep()
        for (const item of items) {
          item.isKept = true
          // Its session ended meanwhile, and the disk may have heard of that before it heard of the message.
          if (kept.of(item.clientId)?.queue.sequenced(item.sequence) !== item) forget(item)
        }
        routes.set(packet, items)
      },
      cancel: () => {
        toRetain?.cancel()
        for (const item of items) kept.removeItem(item)
      },
    }
  }

  const itemOf = (session: Session | undefined, packet: NumberedPacket): Item | undefined =>
    packet.brokerId === QUEUED
      ? session?.queue.sequenced(packet.brokerCounter ?? 0)
      : session?.queue.routed(packet.brokerCounter ?? 0)

  const subscribing = openSubscribing({ ...options, kept, saver })

  const persistence: Persistence = {
    ...incoming(options),
    // All that clients publish was planned, and what was planned is in the queues.
    subscriptionsByTopic: () => nobody,
    outgoingEnqueueCombi: () => nothing,
    storeRetained: () => nothing,
    createRetainedStreamCombi: filters => Readable.from(retained.matching(filters).map(asRetained)),

    outgoingStream: client => {
      const queue = kept.of(client.id)?.queue
      if (client.clean || queue === undefined) return Readable.from([])
      return Readable.from(packetsOf(queue.drain(client)), { highWaterMark: 1 })
    },
    outgoingUpdate: async (client, packet) => {
      const session = kept.of(client.id)
      if (packet.cmd === 'pubrel' && packet.brokerId === undefined) {
        const item = session?.queue.sentAs(packet.messageId)
        if (item !== undefined) await release(item)
        return
      }
      const item = itemOf(session, packet)
      if (session === undefined || item === undefined) throw new Error('its session ended')
      const isRepeated = item.sentTo !== undefined || item.messageId !== undefined
      const before = item.messageId
      packet.messageId = session.queue.identify(item, packet.messageId, () => nextMessageId(client))
      item.sentTo = client
      if (packet.cmd === 'publish') {
        packet.qos = item.qos
        packet.dup = isRepeated
      }
      if (item.qos === 2 && before === undefined) await saveItem(item)
      item.onSent?.()
    },
    outgoingClearMessageId: async (client, packet) => {
      const { messageId } = packet
      if (messageId === undefined || options.acknowledged(client, messageId)) return undefined
      const item = kept.of(client.id)?.queue.sentAs(messageId)
      if (item === undefined || item.sentTo !== client) return undefined
      forget(item)
      return item
    },

    addSubscriptions: subscribing.add,
    removeSubscriptions: subscribing.remove,
    cleanSubscriptions: async client => {
      const session = kept.of(client.id)
      if (session !== undefined) await save(kept.end(session))
    },
    subscriptionsByClient: async ({ id }) =>
      [...(kept.of(id)?.subscriptions ?? [])].map(([topic, qos]) => ({ topic, qos })),
  }

  const saveItem = (item: Item): Promise<void> =>
    save([{ kind: 'queued', sequence: item.sequence, message: messageOf(item) }])
  const release = async (item: Item): Promise<void> => {
    item.isReleased = true
    await saveItem(item)
  }

  return {
    persistence,
    kept,
    retained,
    droppedRetained: () => droppedRetained,
    plan,
    numbered: packet => {
      const items = routes.get(packet)
      if (items === undefined || items.length === 0) return undefined
      routes.delete(packet)
      return number => {
        for (const item of items) kept.of(item.clientId)?.queue.route(item, number)
      }
    },
    isDue: (client, packet) => {
      const session = kept.of(client.id)
      const item = itemOf(session, packet)
      if (session === undefined || item === undefined) return false
      return item.sentTo !== client && (session.queue.isLive(client) || item.passedBy === client)
    },
    arrived: kept.arrived,
    left: client => {
      const session = kept.leave(client)
      if (session === undefined) return
      if (session.subscriptions.size + session.queue.size() === 0) kept.end(session)
      saver.noteSession(session.clientId)
    },
    restore: () => {
      if (memory === undefined) return
      const { retained: messages, sessions, queued } = memory.load()
      const drop: MemoryChange[] = []
      for (const message of messages)
        if (!retained.restore(message))
          drop.push({ kind: 'retained', topic: message.topic, message: undefined })
      // The latest departures first: they stay when there are more than may be kept.
      for (const session of sessions.toSorted((a, b) => b.left - a.left))
        if (!kept.restoreSession(session))
          drop.push({ kind: 'session', clientId: session.clientId, session: undefined })
      for (const message of queued)
        if (!kept.restoreQueued(message))
          drop.push({ kind: 'queued', sequence: message.sequence, message: undefined })
      save(drop).catch(thrown => {
        if (isFatal(thrown)) options.fail(thrown)
      })
    },
  }
}

const asRetained = (message: RetainedMessage) => ({ cmd: 'publish', ...message, retain: true })

async function* packetsOf(items: AsyncGenerator<Item>): AsyncGenerator<object> {
  for await (const { sequence, topic, payload, qos, messageId, isReleased } of items)
    yield {
      cmd: isReleased ? 'pubrel' : 'publish',
      brokerId: QUEUED,
      brokerCounter: sequence,
      topic,
      payload,
      qos: isReleased ? 1 : qos,
      retain: false,
      dup: false,
      messageId,
    }
}

/** What clients publish with QoS 2: see qos2.ts. */
const incoming = ({ qos2, ownerOf, cut }: PersistenceOptions) => ({
  incomingGetPacket: async (client: AedesClient, packet: PacketRef) => {
    const owner = ownerOf(client)
    if (owner !== undefined && qos2.isHeld(owner, packet)) return packet
    throw new Error('not held')
  },
  // `receive` holds it already.
  incomingStorePacket: () => nothing,
  incomingDelPacket: async (client: AedesClient, packet: PacketRef) => {
    const owner = ownerOf(client)
    if (owner === undefined) return
    try {
      await qos2.release(owner, packet.messageId ?? 0)
    } catch (thrown) {
      cut(client, thrown)
      await never // aedes would send PUBCOMP even on an error; PUBREL comes again over the next connection.
    }
  },
  cleanIncoming: () => nothing,
})
