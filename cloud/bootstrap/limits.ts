// What strangers may cost: limits of the enrolment listener, and the bucket that holds all of them together.

import type { Clock } from '../../streams/run/clock.ts'

export interface EnrolmentLimits {
  /** Requests of one address in a minute: a person retries a few times, a NAT hides a workshop. */
  readonly requestsPerMinuteMaxOfAddress: number
  /** Requests of all together in a minute: 20 signatures a second at most, a few per cent of one core. */
  readonly requestsPerMinuteMax: number
  /** Open sockets: what is beyond is closed before any TLS work. */
  readonly connectionsMax: number
  /** From connect to the end of the handshake. */
  readonly handshakeWaitMsMax: number
  /** From the first byte of a request to its last. */
  readonly requestWaitMsMax: number
}

export const ENROLMENT_LIMITS_DEFAULT: EnrolmentLimits = {
  requestsPerMinuteMaxOfAddress: 60,
  requestsPerMinuteMax: 1_200,
  connectionsMax: 256,
  handshakeWaitMsMax: 5_000,
  requestWaitMsMax: 10_000,
}

const MINUTE_MS = 60_000

/** Lets `perMinuteMax` through at once, then as many a minute; false means that one more is too many. */
export const bucketOf = (perMinuteMax: number, clock: Clock): (() => boolean) => {
  let left = perMinuteMax
  let atMs = clock.monoMs()
  return () => {
    const nowMs = clock.monoMs()
    left = Math.min(perMinuteMax, left + ((nowMs - atMs) * perMinuteMax) / MINUTE_MS)
    atMs = nowMs
    if (left < 1) return false
    left -= 1
    return true
  }
}
