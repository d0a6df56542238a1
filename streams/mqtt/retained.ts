// Retained messages: the last of each topic, in the order in which they were planned, within limits.
//
// A message is planned before it is stored anywhere and kept once it is durable; plans of one topic may be kept in
// another order than they were made, and the newest plan wins, as it does on disk.

import { filterMatches } from '../../schemas/topics.ts'
import type { Held } from './broker.ts'
import { bytesOf, type MemoryChange, type RetainedMessage, type SessionLimits } from './session.ts'

export interface RetainedPlan {
  readonly change: MemoryChange
  /** It is stored now, behind all that was planned up to here. */
  restamp(): void
  keep(): void
  cancel(): void
}

export interface Retained {
  /** An empty payload clears. One that finds no room clears as well: an older value would pass for the newest. */
  plan(message: RetainedMessage): RetainedPlan | undefined
  matching(filters: readonly string[]): RetainedMessage[]
  /** False: no room. */
  restore(message: RetainedMessage): boolean
  held(): Held
}

interface Open {
  plans: number
  keptStamp: number
}

export const openRetained = (limits: SessionLimits, dropped: () => void): Retained => {
  const messages = new Map<string, RetainedMessage>()
  const open = new Map<string, Open>()
  let bytes = 0
  const planned = { messages: 0, bytes: 0 }
  let stamps = 0

  const bytesAt = (topic: string): number => {
    const known = messages.get(topic)
    return known === undefined ? 0 : bytesOf(known)
  }
  const hasRoom = (message: RetainedMessage): boolean =>
    (messages.has(message.topic) || messages.size + planned.messages < limits.retainedMessagesMax) &&
    bytes + planned.bytes - bytesAt(message.topic) + bytesOf(message) <= limits.retainedBytesMax
  const set = (topic: string, message: RetainedMessage | undefined): void => {
    bytes += (message === undefined ? 0 : bytesOf(message)) - bytesAt(topic)
    if (message === undefined) messages.delete(topic)
    else messages.set(topic, message)
  }

  return {
    plan: given => {
      const { topic } = given
      const fits = given.payload.length > 0 && hasRoom(given)
      if (given.payload.length > 0 && !fits) dropped()
      if (!fits && !messages.has(topic) && !open.has(topic)) return undefined
      const message = fits ? given : undefined
      const own = open.get(topic) ?? { plans: 0, keptStamp: 0 }
      open.set(topic, own)
      own.plans += 1
      const weight = message === undefined ? 0 : bytesOf(message)
      planned.messages += message === undefined ? 0 : 1
      planned.bytes += weight
      let stamp = ++stamps
      const end = (): void => {
        planned.messages -= message === undefined ? 0 : 1
        planned.bytes -= weight
        own.plans -= 1
        if (own.plans === 0) open.delete(topic)
      }
      return {
        change: { kind: 'retained', topic, message },
        restamp: () => {
          stamp = ++stamps
        },
        keep: () => {
          end()
          if (stamp < own.keptStamp) return
          own.keptStamp = stamp
          set(topic, message)
        },
        cancel: end,
      }
    },
    matching: filters => {
      const found = new Set<RetainedMessage>()
      for (const filter of filters) {
        const exact = /[+#]/.test(filter) ? undefined : messages.get(filter)
        if (exact !== undefined) found.add(exact)
        if (!/[+#]/.test(filter)) continue
        for (const message of messages.values()) if (filterMatches(filter, message.topic)) found.add(message)
      }
      return [...found]
    },
    restore: message => {
      if (!hasRoom(message)) return false
      set(message.topic, message)
      return true
    },
    held: () => ({ messages: messages.size, bytes }),
  }
}
