// The cloud's log as its readers and its one writer see it.
//
// Entries of a class are numbered 1, 2, 3… (`seq`) in the order of their commit, across segments. An entry is a
// gateway's frame, byte for byte, or an event of the cloud's own.

import type { Observable } from 'rxjs'
import type { CloudEvent } from '../../schemas/events.ts'
import type { Chain, Epoch, EpochMs, GatewayId, Offset, StreamName } from '../../schemas/ids.ts'

export const LOG_CLASSES = ['data', 'events', 'audit'] as const
/** data: all streams but `events`; events: those and the cloud's own; each is committed apart. */
export type LogClass = (typeof LOG_CLASSES)[number]

export type CloudBody =
  | { readonly kind: 'frame'; readonly gateway: GatewayId; readonly frame: Buffer }
  | { readonly kind: 'event'; readonly event: CloudEvent }

export type CloudEntry = CloudBody & {
  readonly seq: number
  readonly receivedAtMs: EpochMs
}

export interface CloudReplay {
  readonly class: LogClass
  /** 0 reads everything that is kept. */
  readonly after: number
  /** Each value grants that many further entries. */
  readonly demand$: Observable<number>
  readonly atHead: 'follow' | 'complete'
}

/** Read side; opens beside the writer in the same process, in a worker thread or in another process. */
export interface CloudReader {
  /** Highest durable seq. In another thread it moves when told: see `announce`. */
  head(logClass: LogClass): number
  head$(logClass: LogClass): Observable<number>
  /** First seq kept; head + 1 when nothing is. */
  tail(logClass: LogClass): number
  replay(options: CloudReplay): Observable<CloudEntry>
  /** Seq of the entry that holds an offset of a gateway's stream. */
  find(at: { gateway: GatewayId; stream: StreamName; epoch: Epoch; offset: Offset }): number | undefined
  /** A reader in another thread is told of new heads. */
  announce(logClass: LogClass, head: number): void
}

/** Durable through `offset`, per gateway, stream and epoch. */
export interface StoredMark {
  readonly gateway: GatewayId
  readonly stream: StreamName
  readonly epoch: Epoch
  readonly offset: Offset
  readonly chain: Chain
}

export interface CloudWriter extends CloudReader {
  /** Bodies and marks in one commit. Emits the range of seqs once durable. */
  append(
    logClass: LogClass,
    bodies: readonly CloudBody[],
    marks: readonly StoredMark[],
  ): Observable<{ first: number; last: number }>
  /** Every mark on disk, as of opening. */
  marks(): StoredMark[]
}
