// How fast the way to the cloud's disk is, from the marks that come back, and what to have in flight for that.
//
// Delivery-rate samples as in BBR (Cardwell et al., 2016, section 4.1): bytes marked between the sending of an item
// and its mark, over that time; the highest of the last seconds counts, the lowest round trip likewise.

export interface PaceLimits {
  readonly windowBytesMax: number
  /** How much longer than a round trip the window lasts: a commit, a scheduler's delay, a second commit. */
  readonly slackMs: number
  /** A message occupies the link at most this long, since nothing can overtake it. */
  readonly messageMs: number
  readonly messageBytesMin: number
  readonly messageBytesMax: number
}

export const PACE_LIMITS: PaceLimits = {
  windowBytesMax: 1024 * 1024,
  slackMs: 150,
  messageMs: 50,
  messageBytesMin: 4 * 1024,
  messageBytesMax: 256 * 1024,
}

/** Before the first mark: 16 KB messages, 48 KB in flight. */
const RATE_AT_START = 320
const SAMPLES_MS = 5_000

export interface Sent {
  readonly bytes: number
  readonly sentAtMs: number
  readonly deliveredBytes: number
}

export interface Pace {
  sent(bytes: number, nowMs: number): Sent
  /** All of `items` were marked. */
  marked(items: readonly Sent[], nowMs: number): void
  windowBytes(): number
  messageBytes(): number
  /** Bytes a millisecond. */
  rate(): number
}

export const openPace = (limits: PaceLimits = PACE_LIMITS): Pace => {
  let delivered = 0
  let samples: { readonly atMs: number; readonly rate: number; readonly roundTripMs: number }[] = []
  let rate = RATE_AT_START
  let roundTripMs = 0

  return {
    sent: (bytes, nowMs) => ({ bytes, sentAtMs: nowMs, deliveredBytes: delivered }),
    marked: (items, nowMs) => {
      for (const { bytes } of items) delivered += bytes
      const newest = items.at(-1)
      if (newest === undefined) return
      const elapsedMs = Math.max(1, nowMs - newest.sentAtMs)
      samples = samples.filter(({ atMs }) => nowMs - atMs < SAMPLES_MS)
      // An idle stretch is no slow link: a small sample counts only if it raises the rate.
      samples.push({
        atMs: nowMs,
        rate: (delivered - newest.deliveredBytes) / elapsedMs,
        roundTripMs: elapsedMs,
      })
      const fastest = Math.max(...samples.map(sample => sample.rate))
      rate = delivered < RATE_AT_START * 100 ? Math.max(fastest, rate) : fastest
      roundTripMs = Math.min(...samples.map(sample => sample.roundTripMs))
    },
    windowBytes: () =>
      Math.min(
        limits.windowBytesMax,
        Math.max(2 * limits.messageBytesMin, rate * (roundTripMs + limits.slackMs)),
      ),
    messageBytes: () =>
      Math.min(limits.messageBytesMax, Math.max(limits.messageBytesMin, Math.floor(rate * limits.messageMs))),
    rate: () => rate,
  }
}
