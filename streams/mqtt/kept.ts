// Sessions that outlive their connections: who they are, what they subscribed to, what waits for them.
//
//   from a subscription on   a client that keeps its session but never subscribed has nothing to keep
//   bounded                  for a new session beyond the limit the longest absent one goes; a full queue takes no more
//   no ghosts                whatever ends a session takes its queue along, on disk as well

import type { Qos } from '../../schemas/records.ts'
import type { AedesClient } from './aedes.ts'
import type { Held } from './broker.ts'
import { type Filters, openFilters } from './filters.ts'
import { type Item, newItem, openQueue, type Queue } from './queue.ts'
import {
  bytesOf,
  type KeptSession,
  type MemoryChange,
  type QueuedMessage,
  type RetainedMessage,
  type SessionLimits,
} from './session.ts'

export interface Session {
  readonly clientId: string
  readonly subscriptions: Map<string, Qos>
  readonly queue: Queue
  left: number
  present: AedesClient | undefined
}

export interface Kept {
  readonly filters: Filters
  of(clientId: string): Session | undefined
  /** Undefined: as many are present as are kept. `evicted` are the changes that made room. */
  begin(client: AedesClient): { readonly session: Session; readonly evicted: MemoryChange[] } | undefined
  mayBegin(): boolean
  /** Its subscriptions and its queue go; the changes say so to the disk. */
  end(session: Session): MemoryChange[]
  arrived(client: AedesClient): void
  /** The session whose client left, if it is to be kept. */
  leave(client: AedesClient): Session | undefined
  addFilter(session: Session, filter: string, qos: Qos): void
  dropFilter(session: Session, filter: string): void
  /** A place for the message in the queue of each session that it is for. */
  plan(message: RetainedMessage): Item[]
  removeItem(item: Item): void
  /** As the disk should have it. */
  row(clientId: string): KeptSession | undefined
  restoreSession(row: KeptSession): boolean
  restoreQueued(message: QueuedMessage): boolean
  count(): number
  queued(): Held
  readonly counters: { droppedQueued: number; evictedSessions: number }
}

const NOTHING = Buffer.alloc(0)

export const messageOf = (item: Item): QueuedMessage => ({
  clientId: item.clientId,
  sequence: item.sequence,
  topic: item.topic,
  payload: item.isReleased ? NOTHING : item.payload,
  qos: item.qos,
  // The ids of QoS 1 need not outlive the process: a repetition under another id is allowed.
  messageId: item.qos === 2 ? item.messageId : undefined,
  isReleased: item.isReleased,
})

export const openKept = (limits: SessionLimits): Kept => {
  const sessions = new Map<string, Session>()
  const filters = openFilters()
  const counters = { droppedQueued: 0, evictedSessions: 0 }
  const total = { messages: 0, bytes: 0 }
  let sequence = 0
  let departures = 0

  const longestAbsent = (): Session | undefined => {
    let found: Session | undefined
    for (const session of sessions.values())
      if (session.present === undefined && session.left < (found?.left ?? Number.POSITIVE_INFINITY))
        found = session
    return found
  }
  const hasRoom = ({ queue }: Session, bytes: number): boolean =>
    queue.size() < limits.queuedMessagesMax &&
    queue.bytes() + bytes <= limits.queuedBytesMax &&
    total.bytes + bytes <= limits.queuedBytesTotalMax
  const addItem = (session: Session, item: Item): void => {
    session.queue.add(item)
    total.messages += 1
    total.bytes += bytesOf(item)
  }
  const removeItem = (item: Item): void => {
    const queue = sessions.get(item.clientId)?.queue
    if (queue?.sequenced(item.sequence) !== item) return
    queue.remove(item)
    total.messages -= 1
    total.bytes -= bytesOf(item)
  }
  const create = (clientId: string, left: number): Session => {
    const session: Session = {
      clientId,
      subscriptions: new Map(),
      queue: openQueue(),
      left,
      present: undefined,
    }
    sessions.set(clientId, session)
    return session
  }
  const end: Kept['end'] = session => {
    const { clientId, subscriptions, queue } = session
    const items = [...queue.items()]
    for (const item of items) removeItem(item)
    for (const filter of subscriptions.keys()) filters.remove(filter, clientId)
    sessions.delete(clientId)
    return [
      { kind: 'session', clientId, session: undefined },
      ...items.map((item): MemoryChange => ({ kind: 'queued', sequence: item.sequence, message: undefined })),
    ]
  }
  const addFilter: Kept['addFilter'] = (session, filter, qos) => {
    session.subscriptions.set(filter, qos)
    if (qos > 0) filters.add(filter, session.clientId, qos)
    else filters.remove(filter, session.clientId)
  }

  return {
    filters,
    of: clientId => sessions.get(clientId),
    begin: client => {
      const evicted: MemoryChange[] = []
      if (sessions.size >= limits.sessionsMax) {
        const oldest = longestAbsent()
        if (oldest === undefined) return undefined
        counters.evictedSessions += 1
        evicted.push(...end(oldest))
      }
      const session = create(client.id, departures)
      session.present = client
      session.queue.setLive(client)
      return { session, evicted }
    },
    mayBegin: () => sessions.size < limits.sessionsMax || longestAbsent() !== undefined,
    end,
    arrived: client => {
      const session = sessions.get(client.id)
      if (session !== undefined) session.present = client
    },
    leave: client => {
      const session = sessions.get(client.id)
      if (session?.present !== client) return undefined
      session.present = undefined
      session.left = ++departures
      return session
    },
    addFilter,
    dropFilter: (session, filter) => {
      session.subscriptions.delete(filter)
      filters.remove(filter, session.clientId)
    },
    plan: message => {
      const items: Item[] = []
      const bytes = bytesOf(message)
      for (const [clientId, granted] of filters.match(message.topic)) {
        const session = sessions.get(clientId)
        if (session === undefined) continue
        if (!hasRoom(session, bytes)) {
          counters.droppedQueued += 1
          continue
        }
        const qos = granted < message.qos ? granted : message.qos
        const item = newItem(
          { ...message, clientId, sequence: ++sequence, qos, messageId: undefined, isReleased: false },
          false,
        )
        addItem(session, item)
        items.push(item)
      }
      return items
    },
    removeItem,
    row: clientId => {
      const session = sessions.get(clientId)
      if (session === undefined) return undefined
      const { subscriptions, left } = session
      return { clientId, left, subscriptions: [...subscriptions].map(([topic, qos]) => ({ topic, qos })) }
    },
    restoreSession: ({ clientId, subscriptions, left }) => {
      departures = Math.max(departures, left)
      if (sessions.size >= limits.sessionsMax) return false
      const session = create(clientId, left)
      for (const { topic, qos } of subscriptions) addFilter(session, topic, qos)
      return true
    },
    restoreQueued: message => {
      sequence = Math.max(sequence, message.sequence)
      const session = sessions.get(message.clientId)
      if (session === undefined) return false
      if (!hasRoom(session, bytesOf(message))) {
        counters.droppedQueued += 1
        return false
      }
      addItem(session, newItem(message, true))
      return true
    },
    count: () => sessions.size,
    queued: () => ({ ...total }),
    counters,
  }
}
