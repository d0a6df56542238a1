// A gateway that sends nonsense fills one line of the log a second, with the count.

import type { GatewayId } from '../../schemas/ids.ts'
import type { Clock } from '../../streams/run/clock.ts'

const EVENT_MS_MIN = 1_000
/** Gateways that are remembered; a registry that large has other worries. */
const REMEMBERED_MAX = 10_000

export interface Refusals {
  /** How many refusals an event should tell of now; 0: none, they are counted for the next. */
  tell(gateway: GatewayId): number
}

export const openRefusals = (clock: Clock): Refusals => {
  const told = new Map<GatewayId, { readonly atMs: number; readonly unsaid: number }>()
  return {
    tell: gateway => {
      const nowMs = clock.monoMs()
      const { atMs, unsaid } = told.get(gateway) ?? { atMs: Number.NEGATIVE_INFINITY, unsaid: 0 }
      if (nowMs - atMs < EVENT_MS_MIN) {
        told.set(gateway, { atMs, unsaid: unsaid + 1 })
        return 0
      }
      if (told.size >= REMEMBERED_MAX) told.clear()
      told.set(gateway, { atMs: nowMs, unsaid: 0 })
      return unsaid + 1
    },
  }
}
