// One byte budget for all gateways: what may be on its way and not yet durable, and so held in memory.
//
// Gateways without backlog come first: together they have a quarter of the budget, each at most the base. The rest is
// shared evenly by those with backlog; when a share would be too small to be of use, the latest to ask wait with no
// credit until another is done.

import type { GatewayId } from '../../schemas/ids.ts'

export interface CreditLimits {
  /** Whole budget: bounds the memory of frames that wait for a commit. */
  readonly budgetBytes: number
  /** For a gateway without backlog. */
  readonly baseBytes: number
  /** Below this a message of a thin link does not fit. */
  readonly baseBytesMin: number
  readonly shareBytesMin: number
  readonly shareBytesMax: number
}

/** 64 MB carries 115 MB/s at half a second; 1 MB fills a loopback link, 32 KB a 1 Mbit/s one with 250 ms. */
export const CREDIT_LIMITS: CreditLimits = {
  budgetBytes: 64 * 1024 * 1024,
  baseBytes: 64 * 1024,
  baseBytesMin: 8 * 1024,
  shareBytesMin: 32 * 1024,
  shareBytesMax: 1024 * 1024,
}

export interface Credit {
  /** Bytes that this gateway may have unmarked now. */
  of(gateway: GatewayId): number
  /** It is there; `isBehind`: more waits than it may send at once. */
  present(gateway: GatewayId, isBehind: boolean): void
  gone(gateway: GatewayId): void
  /** Gateways with backlog that wait without credit. */
  waiting(): number
}

/** `onServed`: a gateway that waited has credit now. */
export const openCredit = (limits: CreditLimits, onServed: (gateway: GatewayId) => void): Credit => {
  const there = new Set<GatewayId>()
  // In the order of asking: a Set keeps it.
  const behind = new Set<GatewayId>()
  const served = new Set<GatewayId>()
  const shared = Math.floor(limits.budgetBytes * 0.75)
  const servedMax = Math.max(1, Math.floor(shared / limits.shareBytesMin))

  const promote = (): void => {
    for (const gateway of behind) {
      if (served.size >= servedMax) return
      if (served.has(gateway)) continue
      served.add(gateway)
      onServed(gateway)
    }
  }
  const release = (gateway: GatewayId): void => {
    behind.delete(gateway)
    if (served.delete(gateway) && behind.size > served.size) promote()
  }
  const base = (): number => {
    const even = Math.floor((limits.budgetBytes - shared) / Math.max(1, there.size))
    return Math.max(limits.baseBytesMin, Math.min(limits.baseBytes, even))
  }

  return {
    of: gateway => {
      if (!behind.has(gateway)) return base()
      if (!served.has(gateway)) return 0
      return Math.max(limits.shareBytesMin, Math.min(limits.shareBytesMax, Math.floor(shared / served.size)))
    },
    present: (gateway, isBehind) => {
      there.add(gateway)
      if (!isBehind) return release(gateway)
      if (!behind.has(gateway) && served.size < servedMax) served.add(gateway)
      behind.add(gateway)
    },
    gone: gateway => {
      there.delete(gateway)
      release(gateway)
    },
    waiting: () => behind.size - served.size,
  }
}
