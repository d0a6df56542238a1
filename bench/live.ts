// How long a record takes from its device to those who listen in the cloud: a subscriber of the north side, and the
// API's WebSocket, which tells of a view's new value. First while nothing else goes on, then while another gateway
// drains a backlog.
//
// Durable on that way: both hear of a record only when the edge's log and the cloud's have it on disk.

import { setTimeout as sleep } from 'node:timers/promises'
import { produce } from './harness/generator.ts'
import { channelOf } from './harness/identities.ts'
import { type Gateway, type Installation, install, until } from './harness/installation.ts'
import { type LiveRecord, startLiveProbe } from './harness/live-probe.ts'
import { observe } from './harness/observe.ts'
import { percentilesOf } from './harness/plots.ts'
import { openRelay } from './harness/relay.ts'
import { percentile, rounded, type Scenario } from './scenario.ts'

const PER_SECOND = 50
const IDLE_MS = 10_000
const IDLE_TINY_MS = 2_000
const CONNECTIONS = 8
const DRAIN_MS_MAX = 120_000
/** A tiny backlog is gone before the next record is sent. */
const DRAIN_MS_MIN = 500

export const live: Scenario = {
  name: 'live',
  says: 'from a device to a north-side subscriber and to the WebSocket, idle and while another gateway drains',
  records: { byDefault: 500_000, tiny: 5_000 },
  minutesMax: 5,
  run: async ({ records: backlog, tiny }, told) => {
    const installation = await install()
    const relay = await openRelay(installation.gatewaysPort)
    try {
      const cloud = await installation.startCloud()
      const talking = await installation.enrol('talking')
      const draining = await installation.enrol('draining', { address: `localhost:${relay.port}` })
      const [edge, other] = [await talking.start(), await draining.start()]
      for (const gateway of [talking, draining]) await linked(gateway)

      await relay.cut()
      await until('the other gateway is cut off', async () =>
        (await draining.status()).link === 'up' ? undefined : true,
      )
      await produce({
        port: draining.localPort,
        connections: CONNECTIONS,
        records: backlog,
        onProgress: count => told.progress('backlog of the other gateway', count, backlog),
      })
      const observation = observe({
        processes: { cloud, edge, 'draining edge': other },
        done: async () => (await data(draining)).marked,
      })
      const probe = await startLiveProbe({
        localPort: talking.localPort,
        northPort: installation.northPort,
        channel: await channelOf(installation.cloudFolder, talking.id),
        perSecond: PER_SECOND,
        apiPort: installation.apiPort,
        gateway: talking.id,
      })
      told.say(`${PER_SECOND} records/s, idle`)
      const idleFromMs = Date.now()
      await sleep(tiny ? IDLE_TINY_MS : IDLE_MS)

      told.say(`the other gateway drains ${backlog} records`)
      const drainFromMs = Date.now()
      await relay.restore()
      const markedMs = await drained(installation, draining, drainFromMs)
      const shownMs = Date.now() - drainFromMs
      await sleep(Math.max(0, DRAIN_MS_MIN - shownMs))
      const drainToMs = Date.now()
      const { records } = await probe.stop()
      const observed = await observation.stop()

      const idle = records.filter(({ sentAtMs }) => sentAtMs >= idleFromMs && sentAtMs < drainFromMs)
      const busy = records.filter(({ sentAtMs }) => sentAtMs >= drainFromMs && sentAtMs < drainToMs)
      told.plot({
        title: 'From the device to the listener',
        unit: 'ms',
        over: 'percent',
        lines: [
          percentilesOf('north, idle', latencies(idle, 'northMs')),
          percentilesOf('north, during a drain', latencies(busy, 'northMs')),
          percentilesOf('WebSocket, idle', latencies(idle, 'webSocketMs')),
          percentilesOf('WebSocket, during a drain', latencies(busy, 'webSocketMs')),
        ],
      })
      for (const plot of observed.plots) told.plot(plot)
      return {
        northP50Ms: at(idle, 'northMs', 0.5),
        northP99Ms: at(idle, 'northMs', 0.99),
        webSocketP50Ms: at(idle, 'webSocketMs', 0.5),
        webSocketP99Ms: at(idle, 'webSocketMs', 0.99),
        devicePubackP99Ms: at(idle, 'pubackMs', 0.99),
        northDuringDrainP50Ms: at(busy, 'northMs', 0.5),
        northDuringDrainP99Ms: at(busy, 'northMs', 0.99),
        webSocketDuringDrainP50Ms: at(busy, 'webSocketMs', 0.5),
        webSocketDuringDrainP99Ms: at(busy, 'webSocketMs', 0.99),
        devicePubackDuringDrainP99Ms: at(busy, 'pubackMs', 0.99),
        records: idle.length,
        recordsDuringDrain: busy.length,
        /** Never seen by the subscriber, and never told of by the WebSocket. */
        lost: missing(records, 'northMs'),
        webSocketUnseen: missing(records, 'webSocketMs'),
        recordsPerSecond: PER_SECOND,
        drainRecords: backlog,
        drainMarkedMs: Math.round(markedMs),
        drainShownMs: shownMs,
        cloudRssMb: rounded(observed.rssMbMax['cloud'] ?? Number.NaN),
        projections: true,
        tls: true,
        durable: true,
      }
    } finally {
      await relay.close()
      await installation.close()
    }
  },
}

type Way = 'northMs' | 'webSocketMs' | 'pubackMs'
const latencies = (records: readonly LiveRecord[], way: Way): number[] =>
  records.map(record => record[way]).filter(value => value !== undefined)
const at = (records: readonly LiveRecord[], way: Way, share: number): number =>
  rounded(percentile(latencies(records, way), share))
const missing = (records: readonly LiveRecord[], way: Way): number =>
  records.length - latencies(records, way).length

const linked = (gateway: Gateway): Promise<true> =>
  until(`the link of ${gateway.id} is up`, async () =>
    (await gateway.status()).link === 'up' ? true : undefined,
  )

const data = async (gateway: Gateway) => {
  const { streams } = await gateway.status()
  return streams.find(({ name }) => name === 'data') ?? { head: 0, marked: 0 }
}

/** Until all of it is marked and stands in the views. Resolves with the milliseconds from `fromMs` to the last mark. */
const drained = async (installation: Installation, gateway: Gateway, fromMs: number): Promise<number> => {
  const marked = await until(
    'the other gateway has drained',
    async () => {
      const { head, marked } = await data(gateway)
      return head > 0 && marked >= head ? { head, tookMs: Date.now() - fromMs } : undefined
    },
    DRAIN_MS_MAX,
  )
  await until(
    'the views have what was drained',
    async () => {
      const response = await installation.api(`/api/gateways/${gateway.id}/delivery`)
      const { streams } = (await response.json()) as { streams: { stream: string; records: number }[] }
      return streams.some(({ stream, records }) => stream === 'data' && records >= marked.head)
        ? true
        : undefined
    },
    DRAIN_MS_MAX,
  )
  return marked.tookMs
}
