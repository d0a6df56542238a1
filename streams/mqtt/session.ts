// What the broker keeps in memory for clients: offline queues, retained messages, subscriptions; all of it bounded.
// Replaces the parts of aedes' in-memory persistence that would grow without limit or forget what matters.

import type { AedesClient, Filter, PacketRef, Persistence } from './aedes.ts'
import type { Qos2, Qos2Owner } from './qos2.ts'

export interface SessionLimits {
  /** QoS 1 and 2 messages that wait for one client, connected or not, that keeps its session. */
  readonly offlineMessagesMax: number
  readonly retainedMessagesMax: number
  readonly retainedBytesMax: number
}

export const SESSION_LIMITS: SessionLimits = {
  offlineMessagesMax: 1_000,
  retainedMessagesMax: 10_000,
  retainedBytesMax: 16 * 1_024 * 1_024,
}

export interface SessionHooks {
  readonly qos2: Qos2
  readonly ownerOf: (client: AedesClient) => Qos2Owner | undefined
  /** True: the id belonged to a message of ours. */
  readonly acknowledged: (client: AedesClient, messageId: number) => boolean
  readonly maySubscribe: (client: AedesClient, filter: string) => boolean
  readonly dropped: (count: number) => void
  /** Closes the connection: what was asked cannot be answered. */
  readonly cut: (client: AedesClient, thrown: unknown) => void
}

const never = new Promise<never>(() => undefined)

export const boundedPersistence = (hooks: SessionHooks, limits: SessionLimits = SESSION_LIMITS) => {
  const { qos2, ownerOf } = hooks
  /** Per client id: messages in aedes' queue. */
  const queued = new Map<string, number>()
  const retained = new Map<string, number>()
  let retainedBytes = 0

  return (inner: Persistence): Partial<Persistence> => ({
    incomingGetPacket: async (client, packet) => {
      const owner = ownerOf(client)
      if (owner !== undefined && qos2.isHeld(owner, packet)) return packet
      throw new Error('not held')
    },
    // `receive` holds it already.
    incomingStorePacket: async () => undefined,
    incomingDelPacket: async (client, packet) => {
      const owner = ownerOf(client)
      if (owner === undefined) return
      try {
        await qos2.release(owner, packet.messageId ?? 0)
      } catch (thrown) {
        hooks.cut(client, thrown)
        await never // aedes would send PUBCOMP even on an error; PUBREL comes again over the next connection.
      }
    },
    cleanIncoming: async () => undefined,

    outgoingEnqueueCombi: async (subscriptions, packet) => {
      const room = subscriptions.filter(
        ({ clientId }) => (queued.get(clientId) ?? 0) < limits.offlineMessagesMax,
      )
      hooks.dropped(subscriptions.length - room.length)
      for (const { clientId } of room) queued.set(clientId, (queued.get(clientId) ?? 0) + 1)
      await inner.outgoingEnqueueCombi(room, packet)
    },
    outgoingClearMessageId: async (client: AedesClient, packet: PacketRef) => {
      if (hooks.acknowledged(client, packet.messageId ?? 0)) return undefined
      const waiting = queued.get(client.id)
      // Also keeps aedes from making an entry for every client id that ever acknowledged something.
      if (waiting === undefined) return undefined
      const cleared = await inner.outgoingClearMessageId(client, packet)
      if (cleared === undefined) return undefined
      if (waiting > 1) queued.set(client.id, waiting - 1)
      else queued.delete(client.id)
      return cleared
    },

    storeRetained: async packet => {
      const before = retained.get(packet.topic) ?? 0
      const bytes = packet.payload.length
      const isNew = !retained.has(packet.topic)
      if (bytes === 0) retained.delete(packet.topic)
      else if (
        (isNew && retained.size >= limits.retainedMessagesMax) ||
        retainedBytes - before + bytes > limits.retainedBytesMax
      ) {
        hooks.dropped(1)
        return
      } else retained.set(packet.topic, bytes)
      retainedBytes += bytes - before
      await inner.storeRetained(packet)
    },
    // aedes stores a SUBSCRIBE's refused filters together with those it granted.
    addSubscriptions: async (client: AedesClient, filters: readonly Filter[]) =>
      inner.addSubscriptions(
        client,
        filters.filter(({ topic }) => hooks.maySubscribe(client, topic)),
      ),
  })
}
