// When to try again: pure arithmetic over moments and chance that are handed in, so that a storm can be simulated.
//
//   quick      in the first minute of an outage a wait is uniform over 0…1 s: so long do most of them last
//   rare       then its length grows with the square of the outage, and its first half is left out: over an hour less
//              than one try a minute, each of which costs a metered link money
//   spread     half of a wait is chance, so a fleet that fell together does not rise together
//   capped     never above 90 s × what the other end last asked for
//   patient    the outage goes on through connections that did not last a minute

export interface RetryLimits {
  /** Longest wait in a short outage. */
  readonly firstWaitMsMax: number
  /** Up to here an outage is short. */
  readonly shortOutageMsMax: number
  readonly waitMsMax: number
  /** A flapping carrier must not turn every gateway into a source of handshakes. */
  readonly localSignEveryMsMin: number
  /** A connection that lasted this long ends the outage before it. */
  readonly stableMsMin: number
}

export const RETRY_LIMITS: RetryLimits = {
  firstWaitMsMax: 1_000,
  shortOutageMsMax: 60_000,
  waitMsMax: 90_000,
  localSignEveryMsMin: 5_000,
  stableMsMin: 60_000,
}

/** Moments are monotonic milliseconds. */
export interface RetryState {
  /** Since when there has been no stable connection. */
  readonly outageSinceMs: number
  /** Set while the connection is up. */
  readonly upSinceMs: number | undefined
  /** When a local sign last caused a try. */
  readonly signTriedAtMs: number | undefined
}

export const retryStart = (nowMs: number): RetryState => ({
  outageSinceMs: nowMs,
  upSinceMs: undefined,
  signTriedAtMs: undefined,
})

export const wentUp = (state: RetryState, nowMs: number): RetryState => ({ ...state, upSinceMs: nowMs })

export const wentDown = (state: RetryState, nowMs: number, limits = RETRY_LIMITS): RetryState => {
  const { upSinceMs } = state
  const wasStable = upSinceMs !== undefined && nowMs - upSinceMs >= limits.stableMsMin
  return { ...state, upSinceMs: undefined, outageSinceMs: wasStable ? nowMs : state.outageSinceMs }
}

/** `unit` is chance, uniform in [0, 1); `factor` multiplies the cap. */
export const retryWaitMs = (
  state: RetryState,
  { nowMs, unit, factor }: { readonly nowMs: number; readonly unit: number; readonly factor: number },
  limits = RETRY_LIMITS,
): number => {
  const outageMs = Math.max(0, nowMs - state.outageSinceMs)
  if (outageMs <= limits.shortOutageMsMax) return unit * limits.firstWaitMsMax
  const growth = (outageMs / limits.shortOutageMsMax) ** 2
  const longestMs = Math.min(limits.firstWaitMsMax * growth, limits.waitMsMax * Math.max(1, factor))
  return (longestMs * (1 + unit)) / 2
}

/** How long a local sign that arrives now has to wait before it may cause a try. */
export const signWaitMs = (state: RetryState, nowMs: number, limits = RETRY_LIMITS): number =>
  state.signTriedAtMs === undefined
    ? 0
    : Math.max(0, state.signTriedAtMs + limits.localSignEveryMsMin - nowMs)

export const signTried = (state: RetryState, nowMs: number): RetryState => ({
  ...state,
  signTriedAtMs: nowMs,
})
