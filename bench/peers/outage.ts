// The job, done by a rival: the link is cut, messages are taken, the link comes back, a consumer at the cloud counts.
//
// From the restore on nothing is asked of the rival: the consumer alone says when the first and the last message came.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Produced } from '../harness/generator.ts'
import { until } from '../harness/installation.ts'
import { percentilesOf } from '../harness/plots.ts'
import { percentile, rounded, type Told } from '../scenario.ts'
import { observing } from './observing.ts'
import { CONNECTIONS, type Peer, type Rig } from './peer.ts'
import type { Audited } from './tally.ts'

export interface Missing {
  /** How to install it. */
  readonly missing: string
}

export interface PeerDrain extends Audited {
  readonly records: number
  readonly acceptPerSecond: number
  readonly acceptP50Ms: number
  readonly acceptP99Ms: number
  /** First to last message at the consumer. */
  readonly drainPerSecond: number
  readonly firstAfterRestoreMs: number
  readonly restoreToLastMs: number
  /** RssAnon + RssShmem of the edge, the highest in outage and drain. */
  readonly rssMb: number
  readonly cloudRssMb: number
  readonly durability: string
  readonly configured: string
}

/** Bridges wait up to half a minute before they try again. */
const WITHOUT_PROGRESS_MS_MAX = 60_000
const DRAIN_MS_MAX = 300_000
const POLL_MS = 20
/** A duplicate comes behind the last one. */
const LINGER_MS = 500

/** Throws when the rival does not carry a message at all. */
export const outageOf = async (peer: Peer, wanted: number, told: Told): Promise<PeerDrain | Missing> => {
  const missing = peer.missing()
  if (missing !== undefined) {
    told.say(`${peer.name} is not installed: ${missing}`)
    return { missing }
  }
  const records = Math.min(wanted, peer.recordsMax ?? wanted)
  told.say(`${peer.name}: ${records} records`)
  const rig = await peer.open()
  try {
    return await measured(peer, rig, records, told)
  } finally {
    await rig.close()
  }
}

/** While the link is up, and to its end: shows that the rival works before it is measured. */
export const warmUp = async ({ name }: Peer, rig: Rig, records: number): Promise<void> => {
  const before = rig.tally.received()
  await rig.produce({ records, firstProducer: 0 })
  await until(
    `${name} carried ${records} messages to its consumer`,
    async () => (rig.tally.received() - before >= records ? true : undefined),
    WITHOUT_PROGRESS_MS_MAX,
  )
}

const measured = async (peer: Peer, rig: Rig, records: number, told: Told): Promise<PeerDrain> => {
  const { edge, cloud, tally } = rig
  await warmUp(peer, rig, Math.min(1_000, Math.ceil(records / 20)))
  const before = tally.received()
  const done = (): number => tally.received() - before
  const [result, { rssMbMax, plots }] = await observing({ processes: { edge, cloud }, done }, () =>
    outage(peer, rig, records, done, told),
  )
  for (const plot of plots) told.plot({ ...plot, title: `${peer.name}: ${plot.title}` })
  return {
    ...result,
    rssMb: rounded(rssMbMax['edge'] ?? Number.NaN),
    cloudRssMb: rounded(rssMbMax['cloud'] ?? Number.NaN),
    durability: peer.durability,
    configured: peer.configured,
  }
}

const outage = async ({ name }: Peer, rig: Rig, records: number, done: () => number, told: Told) => {
  const { relay, tally } = rig
  await relay.cut()
  const firstProducer = CONNECTIONS
  const produced = await rig.produce({
    records,
    firstProducer,
    onProgress: count => told.progress(`${name} accepted`, count, records),
  })
  told.plot(latencies(name, produced))
  if (done() > 0) throw new Error(`${name}: ${done()} messages came through the cut link`)

  const first = tally.nextAtMs()
  await relay.restore()
  const restoredAtMs = performance.now()
  await drained(records, done, count => told.progress(`${name} drained`, count, records))
  if (done() === 0) throw new Error(`${name}: nothing came after the restore`)
  const firstAtMs = await first
  const lastAtMs = tally.lastAtMs()
  await sleep(LINGER_MS)
  return {
    records,
    acceptPerSecond: Math.round(records / (produced.elapsedMs / 1_000)),
    acceptP50Ms: rounded(percentile(produced.latenciesMs, 0.5)),
    acceptP99Ms: rounded(percentile(produced.latenciesMs, 0.99)),
    drainPerSecond: Math.round(done() / ((lastAtMs - firstAtMs) / 1_000)),
    firstAfterRestoreMs: Math.round(firstAtMs - restoredAtMs),
    restoreToLastMs: Math.round(lastAtMs - restoredAtMs),
    ...tally.audit(firstProducer, produced.acknowledged),
  }
}

/** Until all came, or nothing comes any more: what is missing then is counted as lost. */
const drained = async (records: number, done: () => number, tell: (count: number) => void): Promise<void> => {
  const startedMs = performance.now()
  let seen = done()
  let seenAtMs = startedMs
  for (;;) {
    const now = performance.now()
    if (done() > seen) {
      seen = done()
      seenAtMs = now
      tell(seen)
    }
    if (seen >= records || now - seenAtMs > WITHOUT_PROGRESS_MS_MAX || now - startedMs > DRAIN_MS_MAX) return
    await sleep(POLL_MS)
  }
}

/** Of one message in a hundred. */
export const latencies = (name: string, { latenciesMs }: Pick<Produced, 'latenciesMs'>) =>
  ({
    title: `${name}: from sending to acknowledgement`,
    unit: 'ms',
    over: 'percent',
    lines: [percentilesOf(name, latenciesMs)],
  }) as const
