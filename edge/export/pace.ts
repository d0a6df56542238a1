// How fast the way to the cloud's disk is, from the marks that come back, and what to have in flight for that.
//
// As BBR does it (Cardwell et al., 2016): a sample of the rate is the bytes marked between the sending of an item and
// its mark, over that time; the highest of the last seconds counts. The round trip is the lowest seen. A link that is
// kept full shows no round trip without a queue in it, so every ten seconds the window is closed for a moment to look:
// without that the queue feeds on itself.

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

/** Until 32 KB were marked: 16 KB messages, 48 KB in flight. */
const RATE_AT_START = 320
const START_BYTES = 32 * 1024
const RATE_WINDOW_MS = 5_000
/** Samples so close together are one: a mark comes as often as a commit. */
const RATE_BUCKET_MS = 100
/** A lowest round trip older than this is looked for again; the look costs about three per cent. */
const ROUND_TRIP_VALID_MS = 10_000
const PROBE_MS_MIN = 200

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

interface Lowest {
  readonly ms: number
  readonly seenAtMs: number
}

export const openPace = (limits: PaceLimits = PACE_LIMITS): Pace => {
  let delivered = 0
  let samples: { readonly atMs: number; rate: number }[] = []
  let rate = RATE_AT_START
  let lowest: Lowest | undefined
  let probe: { readonly sinceMs: number; lowestMs: number } | undefined

  const measureRate = (newest: Sent, elapsedMs: number, nowMs: number): void => {
    const sample = (delivered - newest.deliveredBytes) / elapsedMs
    const last = samples.at(-1)
    if (last !== undefined && nowMs - last.atMs < RATE_BUCKET_MS) last.rate = Math.max(last.rate, sample)
    else
      samples = [
        ...samples.filter(({ atMs }) => nowMs - atMs < RATE_WINDOW_MS),
        { atMs: nowMs, rate: sample },
      ]
    const fastest = samples.reduce((most, each) => Math.max(most, each.rate), 0)
    if (delivered >= START_BYTES || fastest > rate) rate = fastest
  }

  const measureRoundTrip = (newest: Sent, elapsedMs: number, nowMs: number): void => {
    if (lowest === undefined || elapsedMs <= lowest.ms) lowest = { ms: elapsedMs, seenAtMs: nowMs }
    if (probe === undefined) {
      if (nowMs - lowest.seenAtMs > ROUND_TRIP_VALID_MS)
        probe = { sinceMs: nowMs, lowestMs: Number.POSITIVE_INFINITY }
      return
    }
    // What was sent before the window closed still waited in the queue.
    if (newest.sentAtMs > probe.sinceMs) probe.lowestMs = Math.min(probe.lowestMs, elapsedMs)
    if (nowMs - probe.sinceMs < PROBE_MS_MIN + lowest.ms || probe.lowestMs === Number.POSITIVE_INFINITY)
      return
    lowest = { ms: probe.lowestMs, seenAtMs: nowMs }
    probe = undefined
  }

  return {
    sent: (bytes, nowMs) => ({ bytes, sentAtMs: nowMs, deliveredBytes: delivered }),
    marked: (items, nowMs) => {
      for (const { bytes } of items) delivered += bytes
      const newest = items.at(-1)
      if (newest === undefined) return
      const elapsedMs = Math.max(1, nowMs - newest.sentAtMs)
      measureRate(newest, elapsedMs, nowMs)
      measureRoundTrip(newest, elapsedMs, nowMs)
    },
    windowBytes: () => {
      const least = 2 * limits.messageBytesMin
      if (probe !== undefined) return least
      // The first messages show the link's time for themselves as a round trip.
      const roundTripMs = delivered < START_BYTES ? 0 : (lowest?.ms ?? 0)
      return Math.min(limits.windowBytesMax, Math.max(least, rate * (roundTripMs + limits.slackMs)))
    },
    messageBytes: () =>
      Math.min(limits.messageBytesMax, Math.max(limits.messageBytesMin, Math.floor(rate * limits.messageMs))),
    rate: () => rate,
  }
}
