// What little costs: 1 and 50 records a second with QoS 0 and 1, and nothing at all, as bytes that each edge writes to
// its disk and has on the wire, measured side by side on gateways of their own.
//
// Written: `write_bytes` of /proc, what the process made dirty. A kernel with large folios counts a folio whole where a
// page of it changed: up to twice what reaches a disk, never less but for a file system's journal.
// Wire: what passes the relay both ways, TLS included, TCP and IP headers not. The window is a multiple of what an edge
// does every 10 and 30 s (metrics, trims), and both are in what it wrote: nothing is taken off.

import { setTimeout as sleep } from 'node:timers/promises'
import { makeIdentities } from './harness/identities.ts'
import { type Gateway, type Installation, install, until } from './harness/installation.ts'
import type { Line } from './harness/plots.ts'
import type { Started } from './harness/process.ts'
import { openRelay, type Relay } from './harness/relay.ts'
import { pingWireBytes, publishSteadily, type Steady } from './harness/steady.ts'
import { type Result, rounded, type Scenario, type Told } from './scenario.ts'

const WINDOW_MS = 60_000
const WINDOW_TINY_MS = 3_000
/** Between the link's up and the window: hello, first metrics, events. */
const SETTLE_MS = 4_000
const SETTLE_TINY_MS = 1_500
const SAMPLE_MS = 1_000
const DAY_S = 86_400
/** In the metered profile, one metrics record and at most one ping in five minutes. */
const METERED_EVERY_S = 300
const CONNECTIONS_PER_DAY = 1

interface Kind {
  readonly name: string
  readonly load?: { readonly qos: 0 | 1; readonly perSecond: number }
  readonly env?: Readonly<Record<string, string>>
}

const KINDS = [
  { name: 'idle' },
  { name: 'metered', env: { EDGE_CLOUD_METERED: 'true' } },
  { name: 'qos0', load: { qos: 0, perSecond: 1 } },
  { name: 'qos1', load: { qos: 1, perSecond: 1 } },
  { name: 'qos0-50', load: { qos: 0, perSecond: 50 } },
  { name: 'qos1-50', load: { qos: 1, perSecond: 50 } },
] as const satisfies readonly Kind[]

type Name = (typeof KINDS)[number]['name']

export const trickle: Scenario = {
  name: 'trickle',
  says: 'bytes written and bytes on the wire at 1 and 50 records/s, QoS 0 and 1, and of an idle gateway a day',
  minutesMax: 4,
  run: async ({ tiny }, told) => {
    const installation = await install()
    const relays: Relay[] = []
    const open: Opened[] = []
    const relay = async (): Promise<Relay> => {
      const opened = await openRelay(installation.gatewaysPort)
      relays.push(opened)
      return opened
    }
    try {
      const cloud = await installation.startCloud()
      const opening = KINDS.map(async kind => {
        open.push(await openGateway(installation, kind, await relay(), tiny))
      })
      await Promise.all(opening)
      const [identity] = await makeIdentities(installation.cloudFolder, 1)
      if (identity === undefined) throw new Error('no identity was made')
      const pingBytes = await pingWireBytes(await relay(), identity)
      await sleep(tiny ? SETTLE_TINY_MS : SETTLE_MS)
      const connectBytes = open.find(({ name }) => name === 'metered')?.wireBytes() ?? Number.NaN
      const measured = await measure(open, cloud, tiny ? WINDOW_TINY_MS : WINDOW_MS, told)
      return resultOf(measured, { pingBytes, connectBytes })
    } finally {
      for (const { steady } of open) steady?.close()
      for (const each of relays) await each.close()
      await installation.close()
    }
  },
}

interface Opened {
  readonly name: Name
  readonly edge: Started
  readonly gateway: Gateway
  readonly steady: Steady | undefined
  wireBytes(): number
}

const openGateway = async (
  installation: Installation,
  { name, load, env = {} }: Kind & { readonly name: Name },
  relay: Relay,
  tiny: boolean,
): Promise<Opened> => {
  const gateway = await installation.enrol(name, { address: `localhost:${relay.port}` })
  // A window of three seconds would see no metrics.
  const metrics: Record<string, string> = tiny ? { EDGE_METRICS_INTERVAL_MS: '1000' } : {}
  const edge = await gateway.start({ ...metrics, ...env })
  await until(`${name} is connected`, async () => ((await gateway.status()).link === 'up' ? true : undefined))
  const steady = load === undefined ? undefined : await publishSteadily({ port: gateway.localPort, ...load })
  return { name, edge, gateway, steady, wireBytes: () => relay.up() + relay.down() }
}

interface Snapshot {
  readonly atMs: number
  readonly writtenBytes: number
  readonly wireBytes: number
  readonly dataRecords: number
  readonly metricsRecords: number
}

const look = async ({ edge, gateway, wireBytes }: Opened): Promise<Snapshot> => {
  const { streams } = await gateway.status()
  const headOf = (stream: string): number => streams.find(({ name }) => name === stream)?.head ?? 0
  return {
    atMs: performance.now(),
    writtenBytes: edge.writtenBytes(),
    wireBytes: wireBytes(),
    dataRecords: headOf('data'),
    metricsRecords: headOf('gateway'),
  }
}

interface Measured {
  readonly seconds: number
  readonly writtenBytes: number
  readonly wireBytes: number
  readonly dataRecords: number
  readonly metricsRecords: number
}

interface All {
  readonly of: Readonly<Record<Name, Measured>>
  readonly cloudWrittenBytes: number
}

const measure = async (
  gateways: readonly Opened[],
  cloud: Started,
  windowMs: number,
  told: Told,
): Promise<All> => {
  const lookAtAll = () => Promise.all(gateways.map(look))
  const startedMs = performance.now()
  const before = await lookAtAll()
  const cloudBefore = cloud.writtenBytes()
  const written: (Line & { points: [number, number][] })[] = gateways.map(({ name }) => ({
    name,
    points: [],
  }))
  for (let elapsedMs = 0; elapsedMs < windowMs; elapsedMs = performance.now() - startedMs) {
    for (const [index, { edge }] of gateways.entries()) {
      const bytes = edge.writtenBytes() - (before[index]?.writtenBytes ?? 0)
      written[index]?.points.push([elapsedMs / 1_000, bytes / 1_024])
    }
    told.progress('trickling, seconds', Math.floor(elapsedMs / 1_000), windowMs / 1_000)
    await sleep(Math.min(SAMPLE_MS, windowMs - elapsedMs))
  }
  const after = await lookAtAll()
  const cloudWrittenBytes = cloud.writtenBytes() - cloudBefore
  told.plot({ title: 'Written by each edge', unit: 'KB', over: 'seconds', lines: written })
  for (const gateway of gateways) await requireAll(gateway)
  const differences = gateways.map(({ name }, index) => {
    const [from, to] = [before[index], after[index]]
    if (from === undefined || to === undefined) throw new Error(`${name} was not measured`)
    const measured: Measured = {
      seconds: (to.atMs - from.atMs) / 1_000,
      writtenBytes: to.writtenBytes - from.writtenBytes,
      wireBytes: to.wireBytes - from.wireBytes,
      dataRecords: to.dataRecords - from.dataRecords,
      metricsRecords: to.metricsRecords - from.metricsRecords,
    }
    return [name, measured] as const
  })
  // Every name is a key: the list was made from them.
  return { of: Object.fromEntries(differences) as All['of'], cloudWrittenBytes }
}

/** What was sent is in the log, marked by the cloud, and acknowledged if it was to be. */
const requireAll = async ({ name, gateway, steady }: Opened): Promise<void> => {
  if (steady === undefined) return
  steady.stop()
  const sent = steady.sent()
  await until(`all ${sent} records of ${name} are marked, and acknowledged if need be`, async () => {
    const { streams } = await gateway.status()
    const data = streams.find(each => each.name === 'data')
    const isAcknowledged = steady.qos === 0 || steady.acknowledged() === sent
    return data?.head === sent && data.marked === sent && isAcknowledged ? true : undefined
  })
}

const resultOf = (
  { of, cloudWrittenBytes }: All,
  { pingBytes, connectBytes }: { readonly pingBytes: number; readonly connectBytes: number },
): Result => {
  const perDay = (bytes: number, { seconds }: Measured): number => Math.round((bytes / seconds) * DAY_S)
  const flashPerDay = (measured: Measured): number => perDay(measured.writtenBytes, measured)
  const flashPerRecord = ({ writtenBytes, dataRecords }: Measured): number =>
    rounded(writtenBytes / dataRecords)
  const wirePerRecord = ({ wireBytes, dataRecords }: Measured): number => rounded(wireBytes / dataRecords)
  const { idle, metered } = of
  if (idle.metricsRecords === 0) throw new Error('no metrics record in the window')
  // Idle, nothing else is on the wire but metrics records, each with its PUBACKs and its mark.
  const metricsBytes = idle.wireBytes / idle.metricsRecords
  const beatsPerDay = DAY_S / METERED_EVERY_S
  const records = Object.values(of).reduce((sum, { dataRecords }) => sum + dataRecords, 0)
  return {
    windowS: rounded(idle.seconds),
    flashBytesPerDayIdle: flashPerDay(idle),
    flashBytesPerDayMetered: flashPerDay(metered),
    flashBytesPerDayQos0: flashPerDay(of.qos0),
    flashBytesPerDayQos1: flashPerDay(of.qos1),
    flashBytesPerRecordQos0: flashPerRecord(of.qos0),
    flashBytesPerRecordQos1: flashPerRecord(of.qos1),
    flashBytesPerRecordQos0At50: flashPerRecord(of['qos0-50']),
    flashBytesPerRecordQos1At50: flashPerRecord(of['qos1-50']),
    wireBytesPerRecord: wirePerRecord(of.qos1),
    wireBytesPerRecordQos0: wirePerRecord(of.qos0),
    wireBytesPerRecordAt50: wirePerRecord(of['qos1-50']),
    wireBytesPerRecordQos0At50: wirePerRecord(of['qos0-50']),
    cloudWrittenBytesPerRecord: rounded(cloudWrittenBytes / records),
    idleWireBytesPerDay: Math.round(
      beatsPerDay * (metricsBytes + pingBytes) + CONNECTIONS_PER_DAY * connectBytes,
    ),
    idleWireBytesPerDayDefault: perDay(idle.wireBytes, idle),
    idleIs:
      'metered: 288 metrics records and 288 pings a day, each as measured alone, and one connection with its full ' +
      'handshake; TCP and IP headers not counted',
    metricsWireBytes: Math.round(metricsBytes),
    pingWireBytes: pingBytes,
    connectWireBytes: connectBytes,
    /** What the metered gateway itself had on the wire: nothing, or one beat. */
    idleWindowS: rounded(metered.seconds),
    idleWindowWireBytes: metered.wireBytes,
    durability: 'QoS 1: PUBACK follows fdatasync; QoS 0: in the log within the seal wait',
  }
}
