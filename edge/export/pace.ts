// How fast the way to the cloud's disk is, from the marks that come back, and what to have in flight for that.
//
// As BBR does it (Cardwell et al., 2016; draft-cheng-iccrg-delivery-rate-estimation): a sample of the rate is the bytes
// marked between the sending of an item and its mark, over the time in which they were marked, or sent if that took
// longer. What a lost segment held up comes all at once, and the link was not that fast: so half a second's samples
// count as their mean, and of the last seconds the highest. The round trip is the lowest seen. A link that is kept full
// shows none without a queue in it, so a second after the start, and then every ten, the window is closed for a moment
// to look: without that the queue feeds on itself. A link on which the largest window is right anyway is left alone.

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
  slackMs: 100,
  messageMs: 50,
  messageBytesMin: 4 * 1024,
  messageBytesMax: 256 * 1024,
}

/** Until 32 KB were marked: 16 KB messages, 32 KB in flight. */
const RATE_AT_START = 320
const START_BYTES = 32 * 1024
const RATE_WINDOW_MS = 5_000
/** Longer than a lost segment stops a thin link, so that the burst behind it meets the silence before it. */
const RATE_BUCKET_MS = 500
/** A lowest round trip older than this is looked for again; the look costs about three per cent. */
const ROUND_TRIP_VALID_MS = 10_000
/** The first messages met the queue that they made themselves. */
const FIRST_ROUND_TRIP_VALID_MS = 1_000
const PROBE_MS_MIN = 200

export interface Sent {
  readonly bytes: number
  readonly sentAtMs: number
  /** At that moment: what had been marked, when the last of it was, and when that had been sent. */
  readonly deliveredBytes: number
  readonly deliveredAtMs: number
  readonly deliveredSentAtMs: number
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

interface Samples {
  readonly atMs: number
  sum: number
  count: number
}

export const openPace = (limits: PaceLimits = PACE_LIMITS): Pace => {
  let delivered = 0
  let deliveredAtMs = 0
  let deliveredSentAtMs = 0
  /** Undefined: it was marked. */
  let lastSent: Sent | undefined
  let samples: Samples[] = []
  let rate = RATE_AT_START
  let lowest: Lowest | undefined
  let validMs = FIRST_ROUND_TRIP_VALID_MS
  let probe: { readonly sinceMs: number; lowestMs: number } | undefined

  const measureRate = (newest: Sent, nowMs: number): void => {
    const markedMs = nowMs - newest.deliveredAtMs
    const sentMs = newest.sentAtMs - newest.deliveredSentAtMs
    const sample = (delivered - newest.deliveredBytes) / Math.max(1, markedMs, sentMs)
    const last = samples.at(-1)
    if (last !== undefined && nowMs - last.atMs < RATE_BUCKET_MS) {
      last.sum += sample
      last.count += 1
    } else {
      samples = samples.filter(({ atMs }) => nowMs - atMs < RATE_WINDOW_MS)
      samples.push({ atMs: nowMs, sum: sample, count: 1 })
    }
    const fastest = samples.reduce((most, { sum, count }) => Math.max(most, sum / count), 0)
    if (delivered >= START_BYTES || fastest > rate) rate = fastest
  }

  const measureRoundTrip = (newest: Sent, elapsedMs: number, nowMs: number): void => {
    if (lowest === undefined || elapsedMs <= lowest.ms) lowest = { ms: elapsedMs, seenAtMs: nowMs }
    if (probe === undefined) {
      const isCapped = rate * limits.slackMs >= limits.windowBytesMax
      if (isCapped || nowMs - lowest.seenAtMs <= validMs) return
      validMs = ROUND_TRIP_VALID_MS
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
    sent: (bytes, nowMs) => {
      // Nothing was on its way, or what was is lost: the time before says nothing of the link.
      if (lastSent === undefined || nowMs - deliveredAtMs > RATE_WINDOW_MS) {
        deliveredAtMs = nowMs
        deliveredSentAtMs = nowMs
      }
      lastSent = { bytes, sentAtMs: nowMs, deliveredBytes: delivered, deliveredAtMs, deliveredSentAtMs }
      return lastSent
    },
    marked: (items, nowMs) => {
      for (const { bytes } of items) delivered += bytes
      const newest = items.at(-1)
      if (newest === undefined) return
      const elapsedMs = Math.max(1, nowMs - newest.sentAtMs)
      measureRate(newest, nowMs)
      measureRoundTrip(newest, elapsedMs, nowMs)
      deliveredAtMs = nowMs
      deliveredSentAtMs = newest.sentAtMs
      if (newest === lastSent) lastSent = undefined
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
