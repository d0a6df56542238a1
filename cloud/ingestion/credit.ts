// One byte budget for all gateways: what may be on its way and not yet durable, and so held in memory.
//
// Gateways without backlog come first: they always have the base. The rest is shared evenly by those with backlog;
// when a share would be too small to be of use, the latest to ask wait with no credit until another is done.

import type { GatewayId } from '../../schemas/ids.ts'

export interface CreditLimits {
  /** Whole budget: bounds the memory of frames that wait for a commit. */
  readonly budgetBytes: number
  /** For a gateway without backlog. */
  readonly baseBytes: number
  readonly shareBytesMin: number
  readonly shareBytesMax: number
}

/** 64 MB carries 115 MB/s at half a second; 1 MB fills a loopback link, 32 KB a 1 Mbit/s one with 250 ms. */
export const CREDIT_LIMITS: CreditLimits = {
  budgetBytes: 64 * 1024 * 1024,
  baseBytes: 64 * 1024,
  shareBytesMin: 32 * 1024,
  shareBytesMax: 1024 * 1024,
}

export interface Credit {
  /** Bytes that this gateway may have unmarked now. */
  of(gateway: GatewayId): number
  backlog(gateway: GatewayId, waitingBytes: number): void
  gone(gateway: GatewayId): void
  /** Gateways with backlog that wait without credit. */
  waiting(): number
}

/** `onServed`: a gateway that waited has credit now. */
export const openCredit = (limits: CreditLimits, onServed: (gateway: GatewayId) => void): Credit => {
  // In the order of asking: Map keeps it.
  const behind = new Map<GatewayId, number>()
  const servedMax = Math.floor(limits.budgetBytes / limits.shareBytesMin)
  const served = new Set<GatewayId>()

  const promote = (): void => {
    for (const gateway of behind.keys()) {
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

  return {
    of: gateway => {
      if (!behind.has(gateway)) return limits.baseBytes
      if (!served.has(gateway)) return 0
      return Math.max(
        limits.shareBytesMin,
        Math.min(limits.shareBytesMax, Math.floor(limits.budgetBytes / served.size)),
      )
    },
    backlog: (gateway, waitingBytes) => {
      if (waitingBytes <= limits.baseBytes) return release(gateway)
      if (!behind.has(gateway) && served.size < servedMax) served.add(gateway)
      behind.set(gateway, waitingBytes)
    },
    gone: release,
    waiting: () => behind.size - served.size,
  }
}
