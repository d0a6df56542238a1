// A link of 1 Mbit/s and 100 ms: a gateway drains what it took while it was away, and somebody types on it meanwhile.
//
// The log is filled by the real edge from devices. The programs open no sessions yet, so the drain runs in two processes
// made of their parts with an echo in the interactive lane (harness/session-probe.ts); every tenth of a second a message
// of 32 bytes goes down and comes back. Up, its lane is beside the drain's; down, beside the marks.
//
// linkUsedRatio: TCP payload (TLS records; no IP, TCP or Ethernet headers, nothing that was sent twice) from the gateway
// over what the link carries with them, once the exporter has found the rate. With all headers a full link of full
// segments is at 0.956. Durable at both ends.

import { setTimeout as sleep } from 'node:timers/promises'
import { produce } from './harness/generator.ts'
import { type Installation, install, until } from './harness/installation.ts'
import { openThinLink, type ThinLink } from './harness/namespace.ts'
import { percentilesOf, ratesOf } from './harness/plots.ts'
import { openRelay, type Relay } from './harness/relay.ts'
import {
  type Echo,
  type SessionCloud,
  type SessionEdge,
  startSessionCloud,
  startSessionEdge,
} from './harness/session-probe.ts'
import { percentile, rounded, type Scenario, type Told } from './scenario.ts'

const RATE_BITS_PER_SECOND = 1_000_000
const ROUND_TRIP_MS = 100
/** What the router in front of the link holds: little for a modem, so that a sender that sends too much is dropped. */
const QUEUE_MS = 200
const EVERY_MS = 100
const SAMPLE_MS = 100
/** The exporter knows the rate by then, and TCP has left its slow start. */
const SETTLED_MS = 5_000
const SETTLED_TINY_MS = 500
const IDLE_MS = 5_000
const IDLE_TINY_MS = 1_000
/** The last window is not full any more. */
const STEADY_SHARE = 0.97
const CONNECTIONS = 8

export const thin: Scenario = {
  name: 'thin',
  says: 'a drain over 1 Mbit/s and 100 ms, and the round trip of small messages in the interactive lane meanwhile',
  // About 8 bytes each on the wire: 40 s of the link.
  records: { byDefault: 600_000, tiny: 40_000 },
  minutesMax: 5,
  run: async ({ records, tiny }, told) => {
    const installation = await install()
    const opened = openThinLink({ bitsPerSecond: RATE_BITS_PER_SECOND, queueMs: QUEUE_MS })
    const link = opened.kind === 'open' ? opened.link : undefined
    if (opened.kind === 'none')
      told.say(`no network namespace, the relay alone makes the link: ${opened.because}`)
    const ends: (() => Promise<unknown>)[] = []
    try {
      const { id, folder } = await filled(installation, records, told)
      const relay = await openThinRelay(installation.gatewaysPort, link)
      ends.push(relay.close)
      const cloud = await startSessionCloud({
        folder: installation.cloudFolder,
        port: installation.gatewaysPort,
        gateway: id,
        everyMs: EVERY_MS,
      })
      ends.unshift(cloud.end)
      const edge = startSessionEdge(
        { folder, host: link?.host ?? '127.0.0.1', port: relay.port, servername: 'localhost' },
        link?.namespace,
      )
      ends.unshift(edge.end)
      const drained = await watch({ edge, cloud, relay, link, records, told })
      const idleFromMs = Date.now()
      told.say('idle')
      await sleep(tiny ? IDLE_TINY_MS : IDLE_MS)
      const echoes = await cloud.finish()
      return resultOf(drained, echoes, { records, link, idleFromMs, tiny }, told)
    } finally {
      for (const end of ends) await end()
      link?.close()
      await installation.close()
    }
  },
}

/** A gateway whose edge took `records` from devices and never reached its cloud; both programs have ended again. */
const filled = async (installation: Installation, records: number, told: Told) => {
  const cloud = await installation.startCloud()
  const nowhere = await openRelay(installation.gatewaysPort)
  const gateway = await installation.enrol('thin', { address: `localhost:${nowhere.port}` })
  await nowhere.close()
  const edge = await gateway.start()
  await produce({
    port: gateway.localPort,
    connections: CONNECTIONS,
    records,
    onProgress: count => told.progress('accepted', count, records),
  })
  for (const program of [edge, cloud]) program.kill('SIGTERM')
  await Promise.all([edge.ended, cloud.ended])
  return gateway
}

/** With a link of the kernel's, the relay is only its length. */
const openThinRelay = (targetPort: number, link: ThinLink | undefined): Promise<Relay> => {
  const rate = RATE_BITS_PER_SECOND / 8
  const delayMs = ROUND_TRIP_MS / 2
  return openRelay(
    targetPort,
    link === undefined
      ? { delayMs, rate, queueBytes: rate * (QUEUE_MS / 1_000) }
      : { delayMs, host: link.host },
  )
}

interface Sample {
  readonly atMs: number
  readonly marked: number
  readonly upBytes: number
  readonly wireBytes: number
}

interface Watched {
  readonly edge: SessionEdge
  readonly cloud: SessionCloud
  readonly relay: Relay
  readonly link: ThinLink | undefined
  readonly records: number
  readonly told: Told
}

/** From the first mark to the last. */
const watch = async ({ edge, cloud, relay, link, records, told }: Watched): Promise<readonly Sample[]> => {
  await until('the link is up', async () => ((await edge.state()).link === 'up' ? true : undefined))
  cloud.begin()
  const samples: Sample[] = []
  // Twice what the link takes for records that do not compress.
  const endMs = Date.now() + 60_000 + (records * 120 * 8_000 * 2) / RATE_BITS_PER_SECOND
  for (;;) {
    const { marked, head } = await edge.state()
    const sample = { atMs: Date.now(), marked, upBytes: relay.up(), wireBytes: link?.wireBytesUp() ?? 0 }
    if (marked > 0) samples.push(sample)
    told.progress('drained', marked, head)
    if (head < records) throw new Error(`the log holds ${head} of ${records} records`)
    if (marked >= head) return samples
    if (sample.atMs > endMs) throw new Error(`only ${marked} of ${head} records were marked in time`)
    await sleep(SAMPLE_MS)
  }
}

interface Ran {
  readonly records: number
  readonly link: ThinLink | undefined
  readonly idleFromMs: number
  readonly tiny: boolean
}

const resultOf = (
  samples: readonly Sample[],
  echoes: readonly Echo[],
  { records, link, idleFromMs, tiny }: Ran,
  told: Told,
) => {
  const [first] = samples
  const last = samples.at(-1)
  if (first === undefined || last === undefined) throw new Error('nothing was marked')
  const from = samples.find(({ atMs }) => atMs >= first.atMs + (tiny ? SETTLED_TINY_MS : SETTLED_MS))
  const to = samples.findLast(({ marked }) => marked <= records * STEADY_SHARE)
  if (from === undefined || to === undefined || to.atMs <= from.atMs)
    throw new Error(`the drain of ${records} records was over before it was steady`)
  const seconds = (to.atMs - from.atMs) / 1_000
  const share = (bytes: number): number => rounded(bytes / seconds / (RATE_BITS_PER_SECOND / 8), 3)

  const busy = echoes.filter(({ sentAtMs }) => sentAtMs >= from.atMs && sentAtMs <= to.atMs)
  const idle = echoes.filter(({ sentAtMs }) => sentAtMs >= idleFromMs)
  plots(samples, busy, idle, told)
  return {
    linkUsedRatio: share(to.upBytes - from.upBytes),
    ...(link === undefined ? {} : { linkWireRatio: share(to.wireBytes - from.wireBytes) }),
    interactiveP50Ms: at(busy, 0.5),
    interactiveP95Ms: at(busy, 0.95),
    interactiveP99Ms: at(busy, 0.99),
    interactiveIdleP50Ms: at(idle, 0.5),
    interactiveIdleP95Ms: at(idle, 0.95),
    interactiveMessages: busy.length,
    interactiveLost: [...busy, ...idle].filter(({ roundTripMs }) => roundTripMs === undefined).length,
    records,
    recordsPerSecond: Math.round((to.marked - from.marked) / seconds),
    drainMs: last.atMs - first.atMs,
    steadyMs: to.atMs - from.atMs,
    uplinkBytesPerRecord: rounded(last.upBytes / records),
    rateBitsPerSecond: RATE_BITS_PER_SECOND,
    roundTripMs: ROUND_TRIP_MS,
    queueMs: QUEUE_MS,
    link: link === undefined ? 'relay' : `namespace, ${link.congestionControl}`,
    tls: true,
    durable: true,
  }
}

const known = (echoes: readonly Echo[]): number[] =>
  echoes.map(({ roundTripMs }) => roundTripMs).filter(value => value !== undefined)
const at = (echoes: readonly Echo[], share: number): number => rounded(percentile(known(echoes), share))

const plots = (
  samples: readonly Sample[],
  busy: readonly Echo[],
  idle: readonly Echo[],
  told: Told,
): void => {
  const startMs = samples[0]?.atMs ?? 0
  const second = samples.filter((_, index) => index % Math.round(1_000 / SAMPLE_MS) === 0)
  const points = second.map(({ atMs, upBytes }) => [(atMs - startMs) / 1_000, upBytes] as const)
  told.plot({
    title: 'The link while draining',
    unit: 'bytes/s',
    over: 'seconds',
    lines: [ratesOf({ name: 'from the gateway', points })],
  })
  told.plot({
    title: 'A small message down and back',
    unit: 'ms',
    over: 'percent',
    lines: [percentilesOf('while draining', known(busy)), percentilesOf('idle', known(idle))],
  })
}
