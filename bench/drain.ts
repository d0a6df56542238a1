// Store and forward, end to end: the uplink is cut, devices publish with QoS 1, the uplink comes back.
//
// Durable at both ends: PUBACK follows the edge's fdatasync, the mark that ends the drain follows the cloud's.

import { statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { audit } from './harness/audit.ts'
import { produce, senmlPayload, sequenceOf } from './harness/generator.ts'
import { type Gateway, type Installation, install, until } from './harness/installation.ts'
import type { Started } from './harness/process.ts'
import { openRelay, type Relay } from './harness/relay.ts'
import { peers, ratiosOf } from './peers/all.ts'
import { observing } from './peers/observing.ts'
import { latencies, type Missing, outageOf, type PeerDrain } from './peers/outage.ts'
import { type Flags, percentile, type Result, rounded, type Scenario, type Told } from './scenario.ts'

const CONNECTIONS = 8
const POLL_MS = 10
const FIRST_MARK_POLL_MS = 5
/** Behind the large one, to see how long the first mark takes: its wait is drawn at random. */
const SHORT_OUTAGES = { byDefault: 6, tiny: 1 }
const SHORT_OUTAGE_RECORDS = 500

export const drain: Scenario = {
  name: 'drain',
  says: "records accepted while the uplink is cut, then drained over mTLS into the cloud's durable log",
  records: { byDefault: 1_000_000, tiny: 5_000 },
  switches: ['projections', 'peers'],
  minutesMax: 12,
  run: async (flags, told) => {
    const ours = await drainOurs(flags, told)
    if (!flags.peers) return ours.result
    const theirs: Record<string, PeerDrain | Missing> = {}
    for (const peer of peers) theirs[peer.name] = await outageOf(peer, flags.records, told)
    const rates = Object.entries(theirs).map(([name, their]) => [
      name,
      'missing' in their ? undefined : their.drainPerSecond,
    ])
    return { ...ours.result, peers: theirs, ratios: ratiosOf(ours.perSecond, Object.fromEntries(rates)) }
  },
}

const drainOurs = async (flags: Flags, told: Told): Promise<{ perSecond: number; result: Result }> => {
  const installation = await install()
  const relay = await openRelay(installation.gatewaysPort)
  try {
    return await measured(installation, relay, flags, told)
  } finally {
    await relay.close()
    await installation.close()
  }
}

const measured = async (installation: Installation, relay: Relay, flags: Flags, told: Told) => {
  const { records, projections, tiny } = flags
  const cloud = await installation.startCloud({ CLOUD_PROJECTIONS_ENABLED: String(projections) })
  const gateway = await installation.enrol('bench', { address: `localhost:${relay.port}` })
  const edge = await gateway.start()
  await linkIs('up', gateway)

  told.say('uplink cut')
  await relay.cut()
  await linkIs('down', gateway)
  const logFile = join(gateway.folder, 'log.mdb')
  const before = { blocks: statSync(logFile).blocks, written: edge.writtenBytes(), cpuMs: edge.cpuMs() }
  let accepted = 0
  const [produced, observed] = await observing({ processes: { edge, cloud }, done: () => accepted }, () =>
    produce({
      port: gateway.localPort,
      connections: CONNECTIONS,
      records,
      onProgress: count => {
        accepted = count
        told.progress('accepted', count, records)
      },
    }),
  )
  for (const plot of observed.plots) told.plot({ ...plot, title: `While cut: ${plot.title}` })
  told.plot(latencies('headgate', produced))
  const diskBytes = (statSync(logFile).blocks - before.blocks) * 512
  const writtenBytes = edge.writtenBytes() - before.written
  told.say(`accepted ${records} in ${Math.round(produced.elapsedMs)} ms; uplink restored`)

  const atRestore = { edgeCpuMs: edge.cpuMs(), cloudCpuMs: cloud.cpuMs() }
  const upBefore = relay.up()
  const drained = await watch(gateway, { edge, cloud }, records, () => relay.restore(), told)
  const uplinkBytes = relay.up() - upBefore
  const viewsMs = projections
    ? await caughtUp(() => installation.api(`/api/gateways/${gateway.id}/delivery`), records)
    : 0
  const cpuUsEach = (fromMs: number, toMs: number): number => rounded(((toMs - fromMs) * 1_000) / records, 2)
  const cpu = {
    edgeCpuUsPerRecordAccepted: cpuUsEach(before.cpuMs, atRestore.edgeCpuMs),
    edgeCpuUsPerRecordDrained: cpuUsEach(atRestore.edgeCpuMs, edge.cpuMs()),
    cloudCpuUsPerRecord: cpuUsEach(atRestore.cloudCpuMs, cloud.cpuMs()),
  }
  const outages: Outage[] = []
  for (let index = 0; index < SHORT_OUTAGES[tiny ? 'tiny' : 'byDefault']; index++) {
    outages.push(await shortOutage(gateway, relay, index))
    told.say(
      `short outage ${index + 1}: first mark after ${Math.round(outages[index]?.firstMs ?? Number.NaN)} ms`,
    )
  }
  let drainedRecords = 0
  const acknowledged = [...produced.acknowledged, ...outages.map(() => SHORT_OUTAGE_RECORDS)]
  const audited = await audit(installation, gateway.id, acknowledged, line => {
    if (line.topic?.startsWith('bench/') !== true) return undefined
    const producer = Number(line.topic.split('/')[1])
    if (producer < CONNECTIONS) drainedRecords += 1
    return { producer, sequence: sequenceOf(line.payload) }
  })
  const { perSecond } = drained
  const result = {
    records: drainedRecords,
    acceptPerSecond: Math.round(records / (produced.elapsedMs / 1_000)),
    acceptP50Ms: rounded(percentile(produced.latenciesMs, 0.5)),
    acceptP99Ms: rounded(percentile(produced.latenciesMs, 0.99)),
    drainPerSecond: perSecond,
    drainMs: Math.round(drained.elapsedMs),
    restoreToLastMs: Math.round(drained.firstMs + drained.elapsedMs),
    firstAfterRestoreMs: Math.round(drained.firstMs),
    firstAfterRestoreP50Ms: Math.round(
      percentile([drained.firstMs, ...outages.map(({ firstMs }) => firstMs)], 0.5),
    ),
    outages: 1 + outages.length,
    viewsCaughtUpMs: Math.round(viewsMs),
    lost: audited.lost,
    duplicated: audited.duplicated,
    disordered: audited.disordered,
    edgeRssMb: rounded(drained.rssMbMax['edge'] ?? Number.NaN),
    cloudRssMb: rounded(drained.rssMbMax['cloud'] ?? Number.NaN),
    uplinkBytesPerRecord: rounded(uplinkBytes / records),
    edgeDiskBytesPerRecord: rounded(diskBytes / records),
    edgeDiskBytesWrittenPerRecord: rounded(writtenBytes / records),
    ...cpu,
    projections,
    tls: true,
    durable: true,
    durability:
      "PUBACK after the edge's fdatasync; a record counts as drained at the mark, after the cloud's fdatasync",
  }
  return { perSecond, result }
}

const linkIs = (wanted: 'up' | 'down', gateway: Gateway) =>
  until(`the link is ${wanted}`, async () =>
    ((await gateway.status()).link === 'up') === (wanted === 'up') ? true : undefined,
  )

const markedOf = async (gateway: Gateway): Promise<number> =>
  (await gateway.status()).streams.find(({ name }) => name === 'data')?.marked ?? 0

interface Outage {
  /** From the relay's return to the first mark. */
  readonly firstMs: number
}

/** One to two seconds long. Its records are the audit's producer behind the drain's. */
const shortOutage = async (gateway: Gateway, relay: Relay, index: number): Promise<Outage> => {
  const producer = CONNECTIONS + index
  await relay.cut()
  const cutAtMs = performance.now()
  await linkIs('down', gateway)
  await produce({
    port: gateway.localPort,
    connections: 1,
    records: SHORT_OUTAGE_RECORDS,
    clientPrefix: `outage-${index}`,
    payload: (_, sequence) => senmlPayload(producer, sequence),
    topic: () => `bench/${producer}`,
  })
  await sleep(Math.max(0, cutAtMs + 1_000 + index * 200 - performance.now()))
  const before = await markedOf(gateway)
  await relay.restore()
  const restoredAtMs = performance.now()
  const marked = (atLeast: number) =>
    until(
      `${atLeast} records of a short outage are marked`,
      async () => ((await markedOf(gateway)) - before >= atLeast ? true : undefined),
      60_000,
      FIRST_MARK_POLL_MS,
    )
  await marked(1)
  const firstMs = performance.now() - restoredAtMs
  await marked(SHORT_OUTAGE_RECORDS)
  return { firstMs }
}

/** From the restore to the mark behind the last record, as the edge sees it. */
const watch = async (
  gateway: Gateway,
  processes: Readonly<Record<'edge' | 'cloud', Started>>,
  records: number,
  restore: () => Promise<void>,
  told: Told,
) => {
  const start = await markedOf(gateway)
  let marked = 0
  const toTheLast = async () => {
    await restore()
    const restoredAt = performance.now()
    let first: { readonly atMs: number; readonly marked: number } | undefined
    for (;;) {
      marked = (await markedOf(gateway)) - start
      const atMs = performance.now() - restoredAt
      if (marked > 0) first ??= { atMs, marked }
      if (marked >= records && first !== undefined) return { first, elapsedMs: atMs - first.atMs }
      if (atMs > 300_000) throw new Error(`only ${marked} of ${records} were marked in 300 s`)
      told.progress('drained', marked, records)
      await sleep(POLL_MS)
    }
  }
  const what = { processes, done: () => marked, everyMs: 50 }
  const [{ first, elapsedMs }, { rssMbMax, plots }] = await observing(what, toTheLast)
  for (const plot of plots) told.plot({ ...plot, title: `While draining: ${plot.title}` })
  // From the first mark to the last; when one mark covered all, from the restore.
  const [drained, ms] = first.marked >= records ? [records, first.atMs] : [records - first.marked, elapsedMs]
  const perSecond = Math.round(drained / (Math.max(POLL_MS, ms) / 1_000))
  return { firstMs: first.atMs, elapsedMs, perSecond, rssMbMax }
}

const caughtUp = async (ask: () => Promise<Response>, records: number): Promise<number> => {
  const startedMs = performance.now()
  await until(
    'the views caught up',
    async () => {
      const { streams } = (await (await ask()).json()) as { streams: { stream: string; records: number }[] }
      return streams.some(({ stream, records: seen }) => stream === 'data' && seen >= records)
        ? true
        : undefined
    },
    120_000,
  )
  return performance.now() - startedMs
}
