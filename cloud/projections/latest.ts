// The latest value of every SenML name, and the latest payload of every other topic, for each stream of a gateway.
//
//   newest    by the order of the stream; within a pack by time. A device whose clock is wrong still shows its values
//   bounded   names and topics of a gateway together: beyond NAMES_MAX, new ones are counted, known ones go on
//   patient   what is not SenML is not an error: it shows under its topic
//
// This is the one place in the cloud that parses every record: see `lean` for the common one.

import { isUtf8 } from 'node:buffer'
import type { EpochMs } from '../../schemas/ids.ts'
import type { SealedRecord } from '../../schemas/records.ts'
import { formatOf, parseSenml, type ResolvedRecord, resolveSenml } from '../../schemas/senml/resolve.ts'
import { TOPIC_BYTES_MAX } from '../../schemas/topics.ts'
import type { LatestChange, LatestPage, LatestTopic, LatestValue, ViewQueries } from '../../schemas/views.ts'
import type { Projection, View } from '../../streams/fold/projection.ts'
import { headerOf, recordsOf } from './decode.ts'
import {
  type LatestHeld,
  NAMES_MAX,
  type NamedValue,
  type Slot,
  type Slots,
  type Source,
  slotsOf,
} from './latest-slots.ts'
import { readLean } from './lean.ts'

/** Of a payload that is not SenML, and of text and data values. */
export const PREVIEW_BYTES_MAX = 256

const open = new WeakMap<View<LatestHeld>, Slots>()
const slotsIn = (view: View<LatestHeld>): Slots => {
  const known = open.get(view)
  if (known !== undefined) return known
  const made = slotsOf(view)
  open.set(view, made)
  return made
}

export const latest: Projection<LatestHeld> = {
  name: 'latest',
  version: 1,
  classes: ['data'],
  apply: (view, page) => {
    const slots = slotsIn(view)
    for (const entry of page) {
      if (entry.kind !== 'frame') continue
      const header = headerOf(entry)
      const records = recordsOf(entry)
      // Dead letters show these.
      if (!header.ok || !records.ok || records.value.length === 0) continue
      const source = slots.source(entry.gateway, header.value.stream)
      let offset: number = header.value.first
      for (const record of records.value) {
        takeRecord(view, slots, source, record, offset)
        offset += 1
      }
      source.totals.value.records += records.value.length
      touch(slots, source.totals)
    }
    for (const slot of slots.previews) preview(slot)
    slots.previews.length = 0
    for (const slot of slots.touched) {
      slot.touched = false
      view.touch(slot.key)
      if (slot.value.kind === 'named') slots.changed?.add(slot)
    }
    slots.touched.length = 0
  },
}

const touch = (slots: Slots, slot: Slot<LatestHeld>): void => {
  if (slot.touched) return
  slot.touched = true
  slots.touched.push(slot)
}

const takeRecord = (
  view: View<LatestHeld>,
  slots: Slots,
  source: Source,
  record: SealedRecord,
  offset: number,
): void => {
  const { payload } = record
  const format = formatOf(payload)
  if (format === 'json') {
    const lean = readLean(payload)
    // A name that has a slot was checked when it got it.
    const slot = lean === undefined ? undefined : source.names.get(lean.name)
    if (lean !== undefined && slot !== undefined) {
      const { value } = slot
      value.topic = record.topic
      value.unit = lean.unit
      value.value = lean.value
      value.form = 'value'
      value.cut = false
      value.sum = undefined
      value.atMs = dateMs(lean.timeMs < RELATIVE_BELOW_MS ? record.receivedAtMs + lean.timeMs : lean.timeMs)
      value.receivedAtMs = record.receivedAtMs
      value.offset = offset
      value.updates += 1
      touch(slots, slot)
      return
    }
  }
  if (format !== undefined) {
    const pack = parseSenml(payload, format)
    if (pack.ok) {
      for (const resolved of resolveSenml(pack.value, record.receivedAtMs))
        takeResolved(view, slots, source, record, offset, resolved)
      return
    }
  }
  takeTopic(view, slots, source, record, offset)
}

/** RFC 8428, section 4.5.3: below 2^28 s a time is relative to now. */
const RELATIVE_BELOW_MS = 2 ** 28 * 1_000
/** What a Date can hold (ECMA-262, 21.4.1.1): a device may claim any time, and a view has to show it. */
const DATE_MS_MAX = 8.64e15
const dateMs = (ms: number): EpochMs => Math.max(-DATE_MS_MAX, Math.min(DATE_MS_MAX, ms))

const takeResolved = (
  view: View<LatestHeld>,
  slots: Slots,
  source: Source,
  { topic, receivedAtMs }: SealedRecord,
  offset: number,
  { name, unit, value: given, time, sum }: ResolvedRecord,
): void => {
  const slot = source.names.get(name) ?? newName(view, source, name)
  if (slot === undefined) {
    source.totals.value.refused += 1
    return
  }
  const { value } = slot
  const text = given instanceof Uint8Array ? base64url(given) : typeof given === 'string' ? given : undefined
  value.topic = topic
  value.unit = unit
  value.value = text === undefined ? scalar(given) : text.slice(0, PREVIEW_BYTES_MAX)
  value.form = given instanceof Uint8Array ? 'data' : 'value'
  value.cut =
    text !== undefined &&
    (text.length > PREVIEW_BYTES_MAX || (given instanceof Uint8Array && given.length > PREVIEW_BYTES_MAX))
  value.sum = sum
  value.atMs = dateMs(time * 1_000)
  value.receivedAtMs = receivedAtMs
  value.offset = offset
  value.updates += 1
  touch(slots, slot)
}

const scalar = (given: ResolvedRecord['value']): number | boolean | undefined =>
  typeof given === 'number' || typeof given === 'boolean' ? given : undefined

const base64url = (bytes: Uint8Array): string =>
  Buffer.from(bytes.subarray(0, PREVIEW_BYTES_MAX)).toString('base64url')

const newName = (view: View<LatestHeld>, source: Source, name: string): Slot<NamedValue> | undefined => {
  if (!hasRoom(source)) return undefined
  const key = `n/${source.gateway}/${source.stream}/${name}`
  const value: NamedValue = {
    kind: 'named',
    name,
    topic: '',
    unit: undefined,
    value: undefined,
    form: 'value',
    cut: false,
    sum: undefined,
    atMs: 0,
    receivedAtMs: 0,
    offset: 0,
    updates: 0,
  }
  const slot = { key, value, touched: false }
  view.set(key, value)
  source.names.set(name, slot)
  source.totals.value.names += 1
  return slot
}

const hasRoom = ({ totals }: Source): boolean => totals.value.names < NAMES_MAX

const takeTopic = (
  view: View<LatestHeld>,
  slots: Slots,
  source: Source,
  { topic, payload, receivedAtMs }: SealedRecord,
  offset: number,
): void => {
  let slot = source.topics.get(topic)
  if (slot === undefined) {
    // A frame may claim any topic: a longer one would not fit a key.
    if (!hasRoom(source) || Buffer.byteLength(topic) > TOPIC_BYTES_MAX) {
      source.totals.value.refused += 1
      return
    }
    const key = `t/${source.gateway}/${source.stream}/${topic}`
    slot = {
      key,
      value: {
        kind: 'topic',
        topic,
        bytes: 0,
        preview: '',
        encoding: 'utf8',
        receivedAtMs: 0,
        offset: 0,
        updates: 0,
      },
      touched: false,
      payload: undefined,
    }
    view.set(key, slot.value)
    source.topics.set(topic, slot)
    source.totals.value.names += 1
  }
  if (slot.payload === undefined) slots.previews.push(slot)
  slot.payload = payload
  slot.value.bytes = payload.length
  slot.value.receivedAtMs = receivedAtMs
  slot.value.offset = offset
  slot.value.updates += 1
  touch(slots, slot)
}

const preview = (slot: Slots['previews'][number]): void => {
  const { payload, value } = slot
  slot.payload = undefined
  if (payload === undefined) return
  const shown = payload.subarray(0, PREVIEW_BYTES_MAX)
  // A cut may go through a character: up to three bytes of it are left out.
  const whole = [0, 1, 2, 3]
    .map(back => shown.subarray(0, shown.length - (shown.length < payload.length ? back : 0)))
    .find(isUtf8)
  value.encoding = whole === undefined ? 'base64' : 'utf8'
  value.preview = whole === undefined ? shown.toString('base64') : whole.toString('utf8')
}

/** `prefix`: of a name or topic. */
export const latestPage = (
  view: View<LatestHeld>,
  { gateway, prefix = '', limit }: ViewQueries['latest']['args'],
): LatestPage => {
  const values: LatestValue[] = []
  const topics: LatestTopic[] = []
  const sources = slotsIn(view).sourcesOf(gateway)
  for (const { stream, names, topics: slots } of sources) {
    for (const { value } of names.values()) {
      if (values.length >= limit) break
      if (!value.name.startsWith(prefix)) continue
      const { kind: _, ...shown } = value
      values.push({ ...shown, stream })
    }
    for (const { value } of slots.values()) {
      if (topics.length >= limit) break
      if (!value.topic.startsWith(prefix)) continue
      const { kind: _, ...shown } = value
      topics.push({ ...shown, stream })
    }
  }
  const { names, refused, records } = sources[0]?.totals.value ?? { names: 0, refused: 0, records: 0 }
  return { values, topics, names, namesMax: NAMES_MAX, refused, records }
}

/** Starts or stops keeping a list of what changes. */
export const watchLatest = (view: View<LatestHeld>, on: boolean): void => {
  const slots = slotsIn(view)
  if (!on) slots.changed = undefined
  else slots.changed ??= new Set()
}

/** At most `limit` values that changed since the last call; the others wait for the next. */
export const drainChanged = (view: View<LatestHeld>, limit: number): LatestChange[] => {
  const { changed } = slotsIn(view)
  const changes: LatestChange[] = []
  for (const slot of changed ?? []) {
    if (changes.length === limit) break
    changed?.delete(slot)
    const [, gateway = '', stream = ''] = slot.key.split('/', 3)
    if (slot.value.kind !== 'named') continue
    const { kind: _, ...value } = slot.value
    changes.push({ ...value, gateway, stream })
  }
  return changes
}
