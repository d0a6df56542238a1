// Presence of every gateway, from the cloud's own events; last seen and clock, from whatever arrives.
//
//   current   a close counts only for the gateway's current connection
//   forgetful a starting cloud knows nothing: all are unknown until hello, and offline after three keep-alives
//   judged    late and "no longer unknown" depend on the time of the question: they are not in the state

import type { CloudEvent } from '../../schemas/events.ts'
import type { ClockQuality } from '../../schemas/frame.ts'
import type { EpochMs } from '../../schemas/ids.ts'
import type { FleetRow, Presence, ViewQueries } from '../../schemas/views.ts'
import type { Projection, View } from '../../streams/fold/projection.ts'
import { headerOf } from './decode.ts'

export interface FleetValue {
  presence: 'online' | 'offline' | 'unknown'
  sinceMs: EpochMs
  lastSeenMs: EpochMs | undefined
  /** Ids of the live connection, as the broker and as the hello gave it: a foreign broker gives none. */
  connection: string | undefined
  helloed: string | undefined
  address: string | undefined
  version: string | undefined
  clock: ClockQuality | undefined
  /** When the frame came that `clock` is of: two classes interleave in any way. */
  clockMs: EpochMs
  because: string | undefined
  connects: number
}

export interface FleetLimits {
  /** What a gateway on an unmetered link is configured to. */
  readonly keepAliveMs: number
}
/** A broker closes after 1.5 keep-alives of silence; a connected gateway sends its own metrics more often. */
const LATE_KEEP_ALIVES = 1.5
const UNKNOWN_KEEP_ALIVES = 3

export const fleet: Projection<FleetValue> = {
  name: 'fleet',
  version: 1,
  classes: ['data', 'events'],
  apply: (view, page) => {
    for (const entry of page) {
      if (entry.kind === 'event') {
        applyEvent(view, entry.event, entry.receivedAtMs)
        continue
      }
      const value = entryOf(view, entry.gateway, entry.receivedAtMs)
      const header = headerOf(entry)
      seen(value, entry.receivedAtMs)
      if (header.ok && entry.receivedAtMs >= value.clockMs) {
        value.clock = header.value.clock
        value.clockMs = entry.receivedAtMs
      }
      view.touch(entry.gateway)
    }
  },
}

const applyEvent = (view: View<FleetValue>, event: CloudEvent, atMs: EpochMs): void => {
  switch (event.kind) {
    case 'cloud_started':
      for (const gateway of view.keys('')) {
        const value = entryOf(view, gateway, atMs)
        become(value, 'unknown', atMs)
        value.connection = undefined
        value.helloed = undefined
        view.touch(gateway)
      }
      return
    case 'connected': {
      const value = entryOf(view, event.gateway, atMs)
      become(value, 'online', atMs)
      seen(value, atMs)
      value.connection = event.connection
      value.helloed = undefined
      value.address = event.address
      value.connects += 1
      view.touch(event.gateway)
      return
    }
    case 'hello': {
      const value = entryOf(view, event.gateway, atMs)
      become(value, 'online', atMs)
      seen(value, atMs)
      value.helloed = event.connection
      value.version = event.version
      view.touch(event.gateway)
      return
    }
    case 'disconnected': {
      const value = view.get(event.gateway)
      if (
        value === undefined ||
        (event.connection !== value.connection && event.connection !== value.helloed)
      )
        return
      become(value, 'offline', atMs)
      value.connection = undefined
      value.helloed = undefined
      value.because = event.because
      view.touch(event.gateway)
      return
    }
    default:
      return
  }
}

const entryOf = (view: View<FleetValue>, gateway: string, atMs: EpochMs): FleetValue => {
  const known = view.get(gateway)
  if (known !== undefined) return known
  const value: FleetValue = {
    presence: 'unknown',
    sinceMs: atMs,
    lastSeenMs: undefined,
    connection: undefined,
    helloed: undefined,
    address: undefined,
    version: undefined,
    clock: undefined,
    clockMs: 0,
    because: undefined,
    connects: 0,
  }
  view.set(gateway, value)
  return value
}

const seen = (value: FleetValue, atMs: EpochMs): void => {
  value.lastSeenMs = Math.max(value.lastSeenMs ?? 0, atMs)
}

const become = (value: FleetValue, presence: FleetValue['presence'], atMs: EpochMs): void => {
  if (value.presence === presence) return
  value.presence = presence
  value.sinceMs = atMs
}

const judge = (value: FleetValue, nowMs: EpochMs, keepAliveMs: number): Presence => {
  const silentMs = nowMs - (value.lastSeenMs ?? 0)
  switch (value.presence) {
    case 'online':
      return silentMs > LATE_KEEP_ALIVES * keepAliveMs ? 'late' : 'online'
    case 'unknown':
      return nowMs - value.sinceMs > UNKNOWN_KEEP_ALIVES * keepAliveMs ? 'offline' : 'unknown'
    case 'offline':
      return 'offline'
  }
}

const rowOf = (
  gateway: string,
  value: FleetValue,
  nowMs: EpochMs,
  { keepAliveMs }: FleetLimits,
): FleetRow => {
  const { sinceMs, lastSeenMs, address, version, clock, because, connects } = value
  const presence = judge(value, nowMs, keepAliveMs)
  return { gateway, presence, sinceMs, lastSeenMs, address, version, clock, because, connects }
}

export const gatewayRow = (
  view: View<FleetValue>,
  gateway: string,
  nowMs: EpochMs,
  limits: FleetLimits,
): FleetRow | undefined => {
  const value = view.get(gateway)
  return value === undefined ? undefined : rowOf(gateway, value, nowMs, limits)
}

export const fleetRows = (
  view: View<FleetValue>,
  { after = '', limit }: ViewQueries['fleet']['args'],
  nowMs: EpochMs,
  limits: FleetLimits,
): FleetRow[] => {
  const rows: FleetRow[] = []
  const gateways = [...view.keys('')].filter(gateway => gateway > after).sort()
  for (const gateway of gateways.slice(0, limit)) {
    const row = gatewayRow(view, gateway, nowMs, limits)
    if (row !== undefined) rows.push(row)
  }
  return rows
}
