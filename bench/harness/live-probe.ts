// A device that says something a few times a second, and who wants to hear it: at the cloud's north side, and at the
// API's WebSocket. In a process of its own, with one clock for all three, so that a busy harness adds no delay.

import { forkPart, partUrl } from './forked.ts'

export interface LiveProbeOptions {
  /** The edge's local broker. */
  readonly localPort: number
  /** The cloud's north side. */
  readonly northPort: number
  /** Data channel of the edge's gateway. */
  readonly channel: string
  readonly perSecond: number
  /** With it, the WebSocket of live values is listened to as well. */
  readonly apiPort?: number
  /** The gateway that the WebSocket's values are of. */
  readonly gateway?: string
  /** Of the topics and names, where several probes use one gateway. */
  readonly name?: string
}

/** Times are milliseconds; moments are `Date.now()`. */
export interface LiveProbeResult {
  /** From the device's write to the north side's subscriber, of each record that came. */
  readonly latenciesMs: number[]
  readonly sent: number
  readonly received: number
  /** From the device's write to the edge's PUBACK. */
  readonly pubackLatenciesMs: number[]
  /** From the device's write to the WebSocket's message with this record's value. */
  readonly webSocketLatenciesMs: number[]
  /** Record by record; undefined: never came. */
  readonly records: readonly LiveRecord[]
}

export interface LiveRecord {
  readonly sentAtMs: number
  readonly pubackMs?: number
  readonly northMs?: number
  readonly webSocketMs?: number
}

export interface LiveProbe {
  /** Sends no more, waits up to five seconds for what is on its way, and ends. */
  stop(): Promise<LiveProbeResult>
}

export type ProbeSaid =
  | { readonly kind: 'ready' }
  | { readonly kind: 'result'; readonly records: readonly LiveRecord[] }

const READY_MS_MAX = 15_000
/** Longer than the five seconds that the child waits for stragglers. */
const RESULT_MS_MAX = 15_000

/** Resolves once one record has come through, so that all filters are in place. */
export const startLiveProbe = async (options: LiveProbeOptions): Promise<LiveProbe> => {
  const part = forkPart<ProbeSaid>({
    url: partUrl(import.meta.url, './live-probe-child'),
    args: [JSON.stringify(options)],
  })
  try {
    await part.heard('ready', READY_MS_MAX)
  } catch (thrown) {
    await part.end()
    throw thrown
  }
  return {
    stop: async () => {
      try {
        part.tell({ kind: 'stop' })
        const { records } = await part.heard('result', RESULT_MS_MAX)
        return resultOf(records)
      } finally {
        await part.end()
      }
    },
  }
}

const resultOf = (records: readonly LiveRecord[]): LiveProbeResult => {
  const known = (values: readonly (number | undefined)[]): number[] =>
    values.filter(value => value !== undefined)
  const latenciesMs = known(records.map(({ northMs }) => northMs))
  return {
    latenciesMs,
    sent: records.length,
    received: latenciesMs.length,
    pubackLatenciesMs: known(records.map(({ pubackMs }) => pubackMs)),
    webSocketLatenciesMs: known(records.map(({ webSocketMs }) => webSocketMs)),
    records,
  }
}
