// What a broker keeps for clients that are away, as a port: retained messages, subscriptions, queued messages.
//
//   durable   what `save` completed for is in the next `load`, whatever ends the process
//   atomic    the changes of one `save` are there together, or not at all
//   ordered   a later `save` of the same thing wins

import type { Observable } from 'rxjs'
import type { Qos } from '../../schemas/records.ts'

export interface RetainedMessage {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: Qos
}

export interface KeptSession {
  readonly clientId: string
  readonly subscriptions: readonly { readonly topic: string; readonly qos: Qos }[]
  /** Counts departures: of two sessions, the smaller has been absent for longer. */
  readonly left: number
}

export interface QueuedMessage {
  readonly clientId: string
  /** Unique among all that are queued; larger came later. */
  readonly sequence: number
  readonly topic: string
  readonly payload: Buffer
  readonly qos: Qos
  /** The packet id that it was sent with. Stored for QoS 2 only: the id is what tells a repetition. */
  readonly messageId: number | undefined
  /** PUBREC came: only the PUBREL is owed, the payload is gone. */
  readonly isReleased: boolean
}

/** Without its object, what the key names is removed. */
export type MemoryChange =
  | { readonly kind: 'retained'; readonly topic: string; readonly message: RetainedMessage | undefined }
  | { readonly kind: 'session'; readonly clientId: string; readonly session: KeptSession | undefined }
  | { readonly kind: 'queued'; readonly sequence: number; readonly message: QueuedMessage | undefined }

export interface Remembered {
  readonly retained: readonly RetainedMessage[]
  readonly sessions: readonly KeptSession[]
  /** In the order of `sequence`. */
  readonly queued: readonly QueuedMessage[]
}

export interface SessionMemory {
  /** Asked once, before the first client is let in. */
  load(): Remembered
  /** Completes once durable. Errors leave nothing written. */
  save(changes: readonly MemoryChange[]): Observable<void>
}

export interface SessionLimits {
  /** Sessions that are kept, from their first subscription on. The longest absent goes for a new one. */
  readonly sessionsMax: number
  /** QoS 1 and 2 messages that wait for one client, connected or not, that keeps its session. */
  readonly queuedMessagesMax: number
  /** Topics and payloads, of one session. */
  readonly queuedBytesMax: number
  /** Of all sessions together: they are held in memory. */
  readonly queuedBytesTotalMax: number
  readonly retainedMessagesMax: number
  /** Topics and payloads. */
  readonly retainedBytesMax: number
}

/** A gateway of 512 MB can hold all of it at once beside the rest. */
export const SESSION_LIMITS: SessionLimits = {
  sessionsMax: 1_000,
  queuedMessagesMax: 1_000,
  queuedBytesMax: 4 * 1_024 * 1_024,
  queuedBytesTotalMax: 32 * 1_024 * 1_024,
  retainedMessagesMax: 10_000,
  retainedBytesMax: 16 * 1_024 * 1_024,
}

export const bytesOf = ({ topic, payload }: Pick<RetainedMessage, 'topic' | 'payload'>): number =>
  topic.length + payload.length
