// What arrived of every gateway's streams: the answer to "1…N, 0 gaps".
//
// Counted from the offsets in the entries alone, apart from the check that ingestion makes: a gap or a repetition
// here means that one of the two is wrong. Offsets before the oldest entry that the log keeps are not judged.

import type { CloudEvent } from '../../schemas/events.ts'
import type { FrameHeader, SkipCause } from '../../schemas/frame.ts'
import type { EpochMs } from '../../schemas/ids.ts'
import type { DeliveryPage, DeliveryRow, OffsetRange, RefusedFrames } from '../../schemas/views.ts'
import type { Projection, View } from '../../streams/fold/projection.ts'
import type { LogClass } from '../../streams/log/cloudlog.ts'
import { headerOf } from './decode.ts'
import { addRange, noRanges, type RangesKept } from './ranges.ts'

/** Forks are rare and grave: the last ones are kept in full. */
const FORKS_KEPT_MAX = 20

interface EpochValue {
  kind: 'epoch'
  stream: string
  epoch: string
  /** Before the first entry: 0 and 0. */
  first: number
  last: number
  /** The log began with this entry's class: what came before `first` was never there. */
  whole: boolean
  records: number
  frames: number
  bytes: number
  skips: RangesKept<OffsetRange & { readonly cause: SkipCause }>
  gaps: RangesKept<OffsetRange>
  repeated: number
  duplicatesDropped: number
  forks: { parent: string; at: number; held: number; atMs: EpochMs }[]
  lastReceivedMs: EpochMs | undefined
  origin: number | undefined
  parent: string | undefined
}
/** What the last hello said of a stream, which names the current epoch. */
interface AnnouncedValue {
  kind: 'announced'
  epoch: string
  tail: number
  head: number
  waitingBytes: number
  atMs: EpochMs
}
type RefusedValue = RefusedFrames & { kind: 'refused' }
/** First seq of each class that this fold saw. */
interface BeganValue {
  kind: 'began'
  at: Partial<Record<LogClass, number>>
}
export type DeliveryValue = EpochValue | AnnouncedValue | RefusedValue | BeganValue

const BEGAN = 'began'

export const delivery: Projection<DeliveryValue> = {
  name: 'delivery',
  version: 1,
  classes: ['data', 'events'],
  apply: (view, page, logClass) => {
    const whole = beganAt(view, logClass, page[0]?.seq ?? 0) === 1
    for (const entry of page) {
      if (entry.kind === 'event') {
        applyEvent(view, entry.event, entry.receivedAtMs)
        continue
      }
      const header = headerOf(entry)
      // A header that cannot be read has no offsets: the dead letters show it.
      if (!header.ok) continue
      const value = epochOf(view, entry.gateway, header.value, whole)
      takeFrame(value, header.value, entry.frame.length, entry.receivedAtMs)
      view.touch(keyOf(entry.gateway, header.value.stream, header.value.epoch))
    }
  },
}

const takeFrame = (
  value: EpochValue,
  { kind, cause, first, last, count }: FrameHeader,
  bytes: number,
  atMs: EpochMs,
): void => {
  if (value.last === 0) value.first = first
  else if (first > value.last + 1) addRange(value.gaps, { first: value.last + 1, last: first - 1 })
  else if (first <= value.last) value.repeated += Math.min(value.last, last) - first + 1
  value.last = Math.max(value.last, last)
  value.lastReceivedMs = atMs
  value.frames += 1
  value.bytes += bytes
  if (kind === 'skip' && cause !== undefined) addRange(value.skips, { first, last, cause })
  else value.records += count
}

const applyEvent = (view: View<DeliveryValue>, event: CloudEvent, atMs: EpochMs): void => {
  switch (event.kind) {
    case 'epoch_began': {
      const value = epochOf(view, event.gateway, event, true)
      value.origin = event.origin
      value.parent = event.parent
      view.touch(keyOf(event.gateway, event.stream, event.epoch))
      return
    }
    case 'forked': {
      const { parent, at, held } = event
      const value = epochOf(view, event.gateway, event, true)
      // Said again by a cloud that restarted before the first frame.
      if (value.forks.some(known => known.parent === parent && known.at === at)) return
      // The cloud was put back to before the fork: what had been proven delivered by then is not here.
      if (held < at) addRange(value.gaps, { first: held + 1, last: at })
      value.forks.push({ parent, at, held, atMs })
      if (value.forks.length > FORKS_KEPT_MAX) value.forks.shift()
      view.touch(keyOf(event.gateway, event.stream, event.epoch))
      return
    }
    case 'duplicates_dropped': {
      epochOf(view, event.gateway, event, true).duplicatesDropped += event.count
      view.touch(keyOf(event.gateway, event.stream, event.epoch))
      return
    }
    case 'hello':
      for (const { name, epoch, tail, head, waitingBytes } of event.streams) {
        view.set(`a/${event.gateway}/${name}`, { kind: 'announced', epoch, tail, head, waitingBytes, atMs })
      }
      return
    case 'frame_refused': {
      const key = `r/${event.gateway}/${event.stream}`
      const known = view.get(key)
      const count = (known?.kind === 'refused' ? known.count : 0) + event.count
      view.set(key, {
        kind: 'refused',
        stream: event.stream,
        count,
        code: event.code,
        because: event.because,
        atMs,
      })
      return
    }
    default:
      return
  }
}

const keyOf = (gateway: string, stream: string, epoch: string): string => `e/${gateway}/${stream}/${epoch}`

const beganAt = (view: View<DeliveryValue>, logClass: LogClass, seq: number): number => {
  const known = view.get(BEGAN)
  const began: BeganValue = known?.kind === 'began' ? known : { kind: 'began', at: {} }
  const at = began.at[logClass]
  if (at !== undefined) return at
  began.at[logClass] = seq
  view.set(BEGAN, began)
  return seq
}

const epochOf = (
  view: View<DeliveryValue>,
  gateway: string,
  { stream, epoch }: { readonly stream: string; readonly epoch: string },
  whole: boolean,
): EpochValue => {
  const key = keyOf(gateway, stream, epoch)
  const known = view.get(key)
  if (known?.kind === 'epoch') {
    if (known.last === 0) known.whole = whole
    return known
  }
  const value: EpochValue = {
    kind: 'epoch',
    stream,
    epoch,
    first: 0,
    last: 0,
    whole,
    records: 0,
    frames: 0,
    bytes: 0,
    skips: noRanges(),
    gaps: noRanges(),
    repeated: 0,
    duplicatesDropped: 0,
    forks: [],
    lastReceivedMs: undefined,
    origin: undefined,
    parent: undefined,
  }
  view.set(key, value)
  return value
}

export const deliveryPage = (view: View<DeliveryValue>, gateway: string): DeliveryPage => {
  const streams: DeliveryRow[] = []
  for (const key of view.keys(`e/${gateway}/`)) {
    const value = view.get(key)
    if (value?.kind !== 'epoch') continue
    const announced = view.get(`a/${gateway}/${value.stream}`)
    streams.push(rowOf(value, announced?.kind === 'announced' ? announced : undefined))
  }
  const refused: RefusedFrames[] = []
  for (const key of view.keys(`r/${gateway}/`)) {
    const value = view.get(key)
    if (value?.kind !== 'refused') continue
    const { stream, count, code, because, atMs } = value
    refused.push({ stream, count, code, because, atMs })
  }
  streams.sort(
    (one, other) =>
      one.stream.localeCompare(other.stream) || (one.lastReceivedMs ?? 0) - (other.lastReceivedMs ?? 0),
  )
  return { streams, refused }
}

const rowOf = (value: EpochValue, announced: AnnouncedValue | undefined): DeliveryRow => {
  const { kind: _, whole, gaps, ...row } = value
  const current = announced?.epoch === value.epoch ? announced : undefined
  return {
    ...row,
    gaps: withGapAtOrigin(value),
    announced:
      current === undefined
        ? undefined
        : { tail: current.tail, head: current.head, waitingBytes: current.waitingBytes, atMs: current.atMs },
    lag:
      current === undefined ? undefined : Math.max(0, current.head - Math.max(value.last, value.origin ?? 0)),
  }
}

/** What lies between an epoch's origin and its first entry is a gap, unless the log no longer keeps its beginning. */
const withGapAtOrigin = ({ whole, origin, first, last, gaps }: EpochValue): EpochValue['gaps'] => {
  if (!whole || origin === undefined || last === 0 || first <= origin + 1) return gaps
  const atOrigin = { first: origin + 1, last: first - 1 }
  return {
    count: gaps.count + atOrigin.last - origin,
    ranges: gaps.ranges + 1,
    list: [atOrigin, ...gaps.list],
  }
}
