// Exactly once for incoming QoS 2: which packet ids are held between PUBREC and PUBCOMP (section 4.3.3, method A).
//
//   once      a message is taken once, however often and over how many connections its PUBLISH comes
//   shared    one that comes again while the first is being taken waits for that one's outcome
//   durable   with the owner's hooks, ids survive a restart; without, they live in memory
//   scoped    a clean session's ids end with its connection, others belong to the client id

import { lastValueFrom } from 'rxjs'
import type { PacketRef } from './aedes.ts'
import type { BrokerRules, Peer } from './broker.ts'

/** Ids a client may hold: far above what a pipelining publisher reaches, far below 65,535. */
export const HELD_IDS_MAX = 1_000
/** Sessions that are remembered without a connection. */
const SESSIONS_MAX = 4_096

type Done = (error?: Error) => void

/** Whose ids: one per connection. */
export interface Qos2Owner {
  readonly peer: Peer
  readonly isClean: boolean
}

export interface Qos2 {
  /** Calls `take` unless the message is held or being taken; `done` when it is held. */
  receive(owner: Qos2Owner, packet: PacketRef, take: (done: Done) => void, done: Done): void
  /** Whether aedes must not route the packet (any more). */
  isHeld(owner: Qos2Owner, packet: PacketRef): boolean
  /** Settles once the id is free on disk. */
  release(owner: Qos2Owner, messageId: number): Promise<void>
  /** A clean session begins. */
  discard(owner: Qos2Owner): Promise<void>
  /** A connection ended. */
  forget(owner: Qos2Owner): void
  duplicates(): number
}

interface Session {
  readonly held: Set<number>
  readonly taking: Map<number, Done[]>
}

export const qos2 = (rules: BrokerRules): Qos2 => {
  const sessions = new Map<string, Session>()
  /** Packets that were taken just now: the one chance for aedes to route them. */
  const fresh = new WeakSet<PacketRef>()
  let duplicates = 0

  const keyOf = ({ peer, isClean }: Qos2Owner) =>
    isClean ? `connection ${peer.connection}` : `client ${peer.clientId}`
  const sessionOf = (owner: Qos2Owner): Session => {
    const key = keyOf(owner)
    const known = sessions.get(key)
    if (known !== undefined) return known
    const created: Session = { held: new Set(), taking: new Map() }
    sessions.set(key, created)
    const [oldest] = sessions.keys()
    if (sessions.size > SESSIONS_MAX && oldest !== undefined) sessions.delete(oldest)
    return created
  }
  const holds = (owner: Qos2Owner, messageId: number): boolean =>
    sessions.get(keyOf(owner))?.held.has(messageId) === true ||
    (!owner.isClean && rules.isHeldQos2?.(owner.peer, messageId) === true)

  return {
    receive: (owner, packet, take, done) => {
      const id = packet.messageId ?? 0
      const session = sessionOf(owner)
      const taking = session.taking.get(id)
      if (taking !== undefined) {
        duplicates += 1
        taking.push(done)
        return
      }
      if (holds(owner, id)) {
        duplicates += 1
        done()
        return
      }
      if (session.held.size + session.taking.size >= HELD_IDS_MAX) {
        done(new Error(`more than ${HELD_IDS_MAX} QoS 2 messages without PUBREL`))
        return
      }
      const waiting: Done[] = [done]
      session.taking.set(id, waiting)
      take(error => {
        session.taking.delete(id)
        if (error === undefined) {
          session.held.add(id)
          fresh.add(packet)
        }
        for (const settle of waiting) settle(error)
      })
    },
    isHeld: (owner, packet) => !fresh.delete(packet) && holds(owner, packet.messageId ?? 0),
    release: async (owner, messageId) => {
      if (!owner.isClean && rules.releaseQos2 !== undefined)
        await lastValueFrom(rules.releaseQos2(owner.peer, messageId), { defaultValue: undefined })
      sessions.get(keyOf(owner))?.held.delete(messageId)
    },
    discard: async ({ peer }) => {
      sessions.delete(keyOf({ peer, isClean: false }))
      if (rules.discardQos2 !== undefined)
        await lastValueFrom(rules.discardQos2(peer), { defaultValue: undefined })
    },
    forget: owner => {
      const session = sessions.get(keyOf(owner))
      if (session === undefined) return
      const isIdle = session.held.size === 0 && session.taking.size === 0
      if (owner.isClean || isIdle) sessions.delete(keyOf(owner))
    },
    duplicates: () => duplicates,
  }
}
