// Closed for a while after a commit failed: twice as long each time, until one succeeds.

import { Subscription, timer } from 'rxjs'
import type { Clock } from '../../streams/run/clock.ts'

const CLOSED_MS_MIN = 1_000
const CLOSED_MS_MAX = 60_000

export interface Gate {
  isClosed(): boolean
  /** How long it stays closed; undefined when it was already. */
  close(): number | undefined
  /** A commit succeeded. */
  forgive(): void
  readonly held: Subscription
}

export const openGate = (clock: Clock, reopened: () => void): Gate => {
  const held = new Subscription()
  let closed = false
  let nextMs = CLOSED_MS_MIN
  return {
    isClosed: () => closed,
    close: () => {
      if (closed) return undefined
      closed = true
      const forMs = nextMs
      nextMs = Math.min(CLOSED_MS_MAX, nextMs * 2)
      held.add(
        timer(forMs, clock.scheduler).subscribe(() => {
          closed = false
          reopened()
        }),
      )
      return forMs
    },
    forgive: () => {
      nextMs = CLOSED_MS_MIN
    },
    held,
  }
}
