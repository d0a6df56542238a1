// Clients that come back to do what was refused. A QoS 1 client that is cut for a refused publish sends the same
// again at once, for ever, so after the third time in a minute it has to wait, longer each time.

import type { Clock } from '../run/clock.ts'

export interface OffenderLimits {
  readonly offencesMax: number
  readonly windowMs: number
  readonly firstHoldMs: number
  readonly holdMsMax: number
  /** Known offenders; the one that offended longest ago is forgotten first. */
  readonly offendersMax: number
}

export const OFFENDER_LIMITS: OffenderLimits = {
  offencesMax: 3,
  windowMs: 60_000,
  firstHoldMs: 10_000,
  holdMsMax: 600_000,
  offendersMax: 4_096,
}

export interface Offenders {
  offended(who: string): void
  /** Milliseconds for which `who` is still refused; 0 if it may come. */
  heldOffMs(who: string): number
  heldOff(): number
}

interface Offender {
  readonly offences: readonly number[]
  readonly holds: number
  readonly untilMs: number
}

export const offenders = (clock: Clock, limits: OffenderLimits = OFFENDER_LIMITS): Offenders => {
  const known = new Map<string, Offender>()
  return {
    offended: who => {
      const nowMs = clock.monoMs()
      const before = known.get(who) ?? { offences: [], holds: 0, untilMs: 0 }
      // A hold is forgotten once the offender kept quiet for as long as the longest one.
      const holds = nowMs - before.untilMs > limits.holdMsMax ? 0 : before.holds
      const offences = [...before.offences.filter(atMs => nowMs - atMs < limits.windowMs), nowMs]
      known.delete(who)
      if (offences.length < limits.offencesMax) known.set(who, { offences, holds, untilMs: before.untilMs })
      else {
        const holdMs = Math.min(limits.firstHoldMs * 2 ** holds, limits.holdMsMax)
        // One more offence after the hold is enough for the next.
        known.set(who, {
          offences: offences.slice(1 - limits.offencesMax),
          holds: holds + 1,
          untilMs: nowMs + holdMs,
        })
      }
      const [oldest] = known.keys()
      if (known.size > limits.offendersMax && oldest !== undefined) known.delete(oldest)
    },
    heldOffMs: who => Math.max(0, (known.get(who)?.untilMs ?? 0) - clock.monoMs()),
    heldOff: () => {
      const nowMs = clock.monoMs()
      return [...known.values()].filter(({ untilMs }) => untilMs > nowMs).length
    },
  }
}
