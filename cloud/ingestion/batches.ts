// Group commit for ingestion: everything that arrives while a commit runs forms the next one.

import { Observable, Subscription } from 'rxjs'
import type { GatewayId } from '../../schemas/ids.ts'
import type { CloudBody, CloudWriter, LogClass } from '../../streams/log/cloudlog.ts'
import type { Position } from '../../streams/log/log.ts'
import type { Receiving } from './receive.ts'

/** A stream of a connected gateway, or one whose frames are still on their way to disk. */
export interface Held extends Receiving {
  readonly gateway: GatewayId
  durable: Position
}

export interface Batch {
  readonly bodies: CloudBody[]
  readonly moved: Map<Held, Position>
}

export interface Batches {
  /** Adds to the batch that is committed next. */
  add(fill: (batch: Batch) => void): void
}

export interface BatchesOptions {
  readonly log: CloudWriter
  readonly class: LogClass
  readonly committed: (batch: Batch) => void
  /** `lost`: the batch that failed, and what had lined up behind it. */
  readonly failed: (lost: readonly Batch[], thrown: unknown) => void
}

/** Open while subscribed. */
export const openBatches = ({
  log,
  class: logClass,
  committed,
  failed,
}: BatchesOptions): Observable<Batches> =>
  new Observable(subscriber => {
    const held = new Subscription()
    let next: Batch = { bodies: [], moved: new Map() }
    let running = false
    // Filling may record an event, which adds to this very batch.
    let filling = 0

    const start = (): void => {
      if (running || filling > 0 || next.bodies.length === 0 || held.closed) return
      running = true
      const batch = next
      next = { bodies: [], moved: new Map() }
      const marks = [...batch.moved].map(([{ gateway, stream, epoch }, position]) => ({
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
          error: thrown => {
            running = false
            const behind = next
            // Frames have lost their place; events have none to lose.
            next = { bodies: behind.bodies.filter(body => body.kind === 'event'), moved: new Map() }
            failed([batch, behind], thrown)
            start()
          },
        }),
      )
    }

    subscriber.next({
      add: fill => {
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
