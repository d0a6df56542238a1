// The places where latest values are written, found by two look-ups: gateway and stream, then name or topic.
//
// A slot holds the very object that the view holds: a record changes its fields and allocates nothing. `touched`
// keeps a slot that changes a thousand times a page from being reported a thousand times.

import type { EpochMs } from '../../schemas/ids.ts'
import type { View } from '../../streams/fold/projection.ts'

export interface NamedValue {
  readonly kind: 'named'
  readonly name: string
  topic: string
  unit: string | undefined
  value: number | string | boolean | undefined
  form: 'value' | 'data'
  cut: boolean
  sum: number | undefined
  atMs: EpochMs
  receivedAtMs: EpochMs
  offset: number
  updates: number
}
export interface TopicValue {
  readonly kind: 'topic'
  readonly topic: string
  bytes: number
  preview: string
  encoding: 'utf8' | 'base64'
  receivedAtMs: EpochMs
  offset: number
  updates: number
}
/** Per gateway: how much of its allowance is used. */
export interface TotalsValue {
  readonly kind: 'totals'
  names: number
  refused: number
  records: number
}
export type LatestHeld = NamedValue | TopicValue | TotalsValue

export interface Slot<V> {
  readonly key: string
  readonly value: V
  touched: boolean
}
export interface TopicSlot extends Slot<TopicValue> {
  /** The newest payload of this page; its preview is made at the page's end. */
  payload: Buffer | undefined
}
export interface Source {
  readonly gateway: string
  readonly stream: string
  readonly names: Map<string, Slot<NamedValue>>
  readonly topics: Map<string, TopicSlot>
  readonly totals: Slot<TotalsValue>
}
export interface Slots {
  /** Named slots that changed since they were last drained, while somebody watches. */
  changed: Set<Slot<LatestHeld>> | undefined
  readonly touched: Slot<LatestHeld>[]
  readonly previews: TopicSlot[]
  source(gateway: string, stream: string): Source
  /** Every stream of a gateway that has values. */
  sourcesOf(gateway: string): Source[]
}

/** Names and topics of one gateway together: 10,000 take some 4 MB. */
export const NAMES_MAX = 10_000

/** Gateways and streams contain no slash, so that a key can be cut apart again. */
const KEY = /^([nt])\/([^/]+)\/([^/]+)\/([\s\S]*)$/

export const slotsOf = (view: View<LatestHeld>): Slots => {
  const gateways = new Map<
    string,
    { readonly totals: Slot<TotalsValue>; readonly streams: Map<string, Source> }
  >()

  const gatewayOf = (gateway: string) => {
    const known = gateways.get(gateway)
    if (known !== undefined) return known
    const key = `g/${gateway}`
    const stored = view.get(key)
    const value: TotalsValue =
      stored?.kind === 'totals' ? stored : { kind: 'totals', names: 0, refused: 0, records: 0 }
    if (stored === undefined) view.set(key, value)
    const made = { totals: { key, value, touched: false }, streams: new Map<string, Source>() }
    gateways.set(gateway, made)
    return made
  }
  const source = (gateway: string, stream: string): Source => {
    const { totals, streams } = gatewayOf(gateway)
    const known = streams.get(stream)
    if (known !== undefined) return known
    const made: Source = { gateway, stream, names: new Map(), topics: new Map(), totals }
    streams.set(stream, made)
    return made
  }

  for (const key of view.keys('')) {
    const [, , gateway, stream] = KEY.exec(key) ?? []
    const value = view.get(key)
    if (gateway === undefined || stream === undefined || value === undefined) continue
    if (value.kind === 'named') source(gateway, stream).names.set(value.name, { key, value, touched: false })
    if (value.kind === 'topic')
      source(gateway, stream).topics.set(value.topic, { key, value, touched: false, payload: undefined })
  }
  return {
    changed: undefined,
    touched: [],
    previews: [],
    source,
    sourcesOf: gateway => [...(gateways.get(gateway)?.streams.values() ?? [])],
  }
}
