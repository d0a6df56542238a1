// What the cloud's views hold, as one thread asks another for it. Times are milliseconds since 1970 UTC.
//
// Everything here is a fold over the cloud's log. Lists are bounded by the limits that the question names.

import type { ClockQuality, SkipCause } from './frame.ts'
import type { EpochMs } from './ids.ts'

/** unknown: the cloud started and has not heard from it; late: connected, and silent for longer than it should be. */
export const PRESENCES = ['online', 'late', 'offline', 'unknown'] as const
export type Presence = (typeof PRESENCES)[number]

export interface FleetRow {
  readonly gateway: string
  readonly presence: Presence
  /** When it came to be connected, disconnected or unknown. */
  readonly sinceMs: EpochMs
  readonly lastSeenMs: EpochMs | undefined
  readonly address: string | undefined
  readonly version: string | undefined
  /** Of the newest frame. */
  readonly clock: ClockQuality | undefined
  /** Why the last connection ended. */
  readonly because: string | undefined
  readonly connects: number
}

export interface LatestValue {
  readonly name: string
  readonly stream: string
  readonly topic: string
  readonly unit: string | undefined
  /** Text and base64url data longer than 256 characters are cut; `cut` says so. */
  readonly value: number | string | boolean | undefined
  readonly form: 'value' | 'data'
  readonly cut: boolean
  readonly sum: number | undefined
  /** The record's own time. */
  readonly atMs: EpochMs
  readonly receivedAtMs: EpochMs
  readonly offset: number
  readonly updates: number
}

/** What watchers of latest values are told. */
export type LatestChange = LatestValue & { readonly gateway: string }

/** A topic whose payloads are not SenML. */
export interface LatestTopic {
  readonly topic: string
  readonly stream: string
  readonly bytes: number
  /** The first 256 bytes. */
  readonly preview: string
  readonly encoding: 'utf8' | 'base64'
  readonly receivedAtMs: EpochMs
  readonly offset: number
  readonly updates: number
}

export interface LatestPage {
  readonly values: readonly LatestValue[]
  readonly topics: readonly LatestTopic[]
  /** Names and topics held for this gateway, and records that found no room for another. */
  readonly names: number
  readonly namesMax: number
  readonly refused: number
  readonly records: number
}

export interface OffsetRange {
  readonly first: number
  readonly last: number
}

export interface Ranges<T> {
  /** Offsets in all of them. */
  readonly count: number
  /** How many there were; the last 100 are in `list`. */
  readonly ranges: number
  readonly list: readonly T[]
}

export interface DeliveryRow {
  readonly stream: string
  readonly epoch: string
  /** Offsets that the log holds: `first` to `last`, as data or skip, but for the gaps. */
  readonly first: number
  readonly last: number
  readonly records: number
  readonly frames: number
  readonly bytes: number
  readonly skips: Ranges<OffsetRange & { readonly cause: SkipCause }>
  /** Neither data nor skip. Must be none. */
  readonly gaps: Ranges<OffsetRange>
  /** Offsets that the log holds more than once. Must be 0. */
  readonly repeated: number
  /** Dropped by ingestion, as it must. */
  readonly duplicatesDropped: number
  readonly forks: readonly {
    readonly parent: string
    readonly at: number
    readonly held: number
    readonly atMs: EpochMs
  }[]
  readonly lastReceivedMs: EpochMs | undefined
  readonly origin: number | undefined
  readonly parent: string | undefined
  /** Announced by the last hello. */
  readonly announced:
    | { readonly tail: number; readonly head: number; readonly waitingBytes: number; readonly atMs: EpochMs }
    | undefined
  /** Offsets that the gateway has announced and the log does not hold; undefined for an older epoch. */
  readonly lag: number | undefined
}

export interface RefusedFrames {
  readonly stream: string
  readonly count: number
  readonly code: string
  readonly because: string
  readonly atMs: EpochMs
}

export interface DeliveryPage {
  readonly streams: readonly DeliveryRow[]
  readonly refused: readonly RefusedFrames[]
}

export interface DeadLetter {
  readonly class: string
  readonly seq: number
  readonly gateway: string
  /** Undefined when not even the header can be read. */
  readonly stream: string | undefined
  readonly first: number | undefined
  readonly count: number | undefined
  readonly bytes: number
  readonly because: string
  readonly receivedAtMs: EpochMs
}

export interface DeadLetterPage {
  readonly total: number
  /** Newest first. */
  readonly letters: readonly DeadLetter[]
}

export interface FoldStatus {
  /** Entries of the log that the slowest projection has not applied. */
  readonly behind: number
  readonly keys: number
  readonly missed: number
  readonly through: Readonly<Record<string, Readonly<Record<string, number>>>>
}

/** Every question that the views answer, with its arguments and its answer. */
export interface ViewQueries {
  /** All gateways that were ever heard of, by name, after `after`. */
  readonly fleet: {
    args: { readonly after?: string | undefined; readonly limit: number }
    answer: readonly FleetRow[]
  }
  readonly gateway: { args: { readonly gateway: string }; answer: FleetRow | undefined }
  readonly latest: {
    args: { readonly gateway: string; readonly prefix?: string | undefined; readonly limit: number }
    answer: LatestPage
  }
  readonly delivery: { args: { readonly gateway: string }; answer: DeliveryPage }
  readonly deadLetters: { args: { readonly limit: number }; answer: DeadLetterPage }
  readonly status: { args: Readonly<Record<string, never>>; answer: FoldStatus }
}
export type ViewName = keyof ViewQueries

/** Rows of one answer: 10,000 rows of 300 bytes are copied between threads in some 10 ms. */
export const VIEW_ROWS_MAX = 10_000
