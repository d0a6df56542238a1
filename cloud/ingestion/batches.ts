// Group commit for ingestion: what arrives while a commit runs forms the next one, and commits keep a distance, so that
// in a storm they are few and large. After a pause the first one starts at once.

import { Observable, Subscription, timer } from 'rxjs'
import type { GatewayId } from '../../schemas/ids.ts'
import type { CloudBody, CloudWriter, LogClass } from '../../streams/log/cloudlog.ts'
import type { Position } from '../../streams/log/log.ts'
import type { Clock } from '../../streams/run/clock.ts'
import type { Receiving } from './receive.ts'

/** A stream of a connected gateway, or one whose frames are still on their way to disk. */
export interface Held extends Receiving {
  readonly gateway: GatewayId
  durable: Position
}

export interface Moved {
  readonly position: Position
  readonly bytes: number
}

export interface Batch {
  readonly bodies: CloudBody[]
  readonly moved: Map<Held, Moved>
}

export interface Batches {
  /** Adds to the batch that is committed next. `now`: it does not keep the distance. */
  add(fill: (batch: Batch) => void, patience?: 'now' | 'wait'): void
}

export interface BatchesOptions {
  readonly log: CloudWriter
  readonly clock: Clock
  readonly class: LogClass
  readonly committed: (batch: Batch) => void
  /** `lost`: the batch that failed, and what had lined up behind it. `forgotten`: events beyond what may wait. */
  readonly failed: (lost: readonly Batch[], thrown: unknown, forgotten: number) => void
}

/**
 * From the start of one commit to that of the next, at least. Data: a commit costs a millisecond or two of several
 * threads, whatever is in it, which in a storm of gateways is most of the work; a mark comes by so much later. Events:
 * nobody waits for who came and went.
 */
const COMMIT_SPACING_MS: Readonly<Record<LogClass, number>> = { data: 5, events: 50, audit: 50 }
/** A failed commit is tried again, with the events that were in it, after this. */
const RETRY_MS = 250
/** Events that may wait for room: a few MB. */
const EVENTS_WAITING_MAX = 10_000

const emptyBatch = (): Batch => ({ bodies: [], moved: new Map() })

/** Open while subscribed. */
export const openBatches = ({
  log,
  clock,
  class: logClass,
  committed,
  failed,
}: BatchesOptions): Observable<Batches> =>
  new Observable(subscriber => {
    const held = new Subscription()
    let next = emptyBatch()
    let running = false
    // Filling may record an event, which adds to this very batch.
    let filling = 0
    const spacingMs = COMMIT_SPACING_MS[logClass]
    let startedAtMs = Number.NEGATIVE_INFINITY
    let spacing: Subscription | undefined

    const start = (): void => {
      if (running || filling > 0 || next.bodies.length === 0 || held.closed || spacing !== undefined) return
      const waitMs = startedAtMs + spacingMs - clock.monoMs()
      if (waitMs > 0) {
        spacing = timer(waitMs, clock.scheduler).subscribe(() => {
          spacing = undefined
          start()
        })
        held.add(spacing)
        return
      }
      running = true
      startedAtMs = clock.monoMs()
      const batch = next
      next = emptyBatch()
      const marks = [...batch.moved].map(([{ gateway, stream, epoch }, { position }]) => ({
        gateway,
        stream,
        epoch,
        ...position,
      }))
      held.add(
        log.append(logClass, batch.bodies, marks).subscribe({
          complete: () => {
            running = false
            committed(batch)
            start()
          },
          error: thrown => retry(batch, thrown),
        }),
      )
    }

    /** Frames have lost their place; events have none to lose. */
    const retry = (batch: Batch, thrown: unknown): void => {
      const behind = next
      const events = [...batch.bodies, ...behind.bodies].filter(body => body.kind === 'event')
      next = { ...emptyBatch(), bodies: events.slice(0, EVENTS_WAITING_MAX) }
      failed([batch, behind], thrown, Math.max(0, events.length - EVENTS_WAITING_MAX))
      held.add(
        timer(RETRY_MS, clock.scheduler).subscribe(() => {
          running = false
          start()
        }),
      )
    }

    subscriber.next({
      add: (fill, patience = 'wait') => {
        if (patience === 'now') {
          startedAtMs = Number.NEGATIVE_INFINITY
          spacing?.unsubscribe()
          spacing = undefined
        }
        filling += 1
        try {
          fill(next)
        } finally {
          filling -= 1
        }
        start()
      },
    })
    return held
  })
