// Store and forward, end to end: the uplink is cut, devices publish with QoS 1, the uplink comes back.
//
// Durable at both ends: PUBACK follows the edge's fdatasync, the mark that ends the drain follows the cloud's.

import { statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { audit } from './harness/audit.ts'
import { produce, sequenceOf } from './harness/generator.ts'
import { type Gateway, install, until } from './harness/installation.ts'
import type { Started } from './harness/process.ts'
import { openRelay } from './harness/relay.ts'
import { percentile, rounded, type Scenario } from './scenario.ts'

const CONNECTIONS = 8
const POLL_MS = 10

export const drain: Scenario = {
  name: 'drain',
  says: "records accepted while the uplink is cut, then drained over mTLS into the cloud's durable log",
  recordsByDefault: 200_000,
  run: async ({ records, projections }, tell) => {
    const installation = await install()
    const relay = await openRelay(installation.gatewaysPort)
    try {
      const cloud = await installation.startCloud({ CLOUD_PROJECTIONS_ENABLED: String(projections) })
      const gateway = await installation.enrol('bench', { address: `localhost:${relay.port}` })
      const edge = await gateway.start()
      await until('the link is up', async () => ((await gateway.status()).link === 'up' ? true : undefined))

      tell('uplink cut')
      await relay.cut()
      await until('the link is down', async () => ((await gateway.status()).link === 'up' ? undefined : true))
      const logFile = join(gateway.folder, 'log.mdb')
      const before = { blocks: statSync(logFile).blocks, written: edge.writtenBytes() }
      const produced = await produce({
        port: gateway.localPort,
        connections: CONNECTIONS,
        records,
        onProgress: count => tell(`accepted ${count}`),
      })
      const diskBytes = (statSync(logFile).blocks - before.blocks) * 512
      const writtenBytes = edge.writtenBytes() - before.written
      tell(`accepted ${records} in ${Math.round(produced.elapsedMs)} ms; uplink restored`)

      const upBefore = relay.up()
      const drained = await watch(gateway, cloud, edge, records, () => relay.restore())
      const uplinkBytes = relay.up() - upBefore
      const viewsMs = projections
        ? await caughtUp(() => installation.api(`/api/gateways/${gateway.id}/delivery`), records)
        : 0
      const audited = await audit(installation, gateway.id, produced.acknowledged, line => {
        const producer = Number(line.topic?.split('/')[1])
        return line.topic?.startsWith('bench/') ? { producer, sequence: sequenceOf(line.payload) } : undefined
      })
      return {
        records: audited.records,
        acceptPerSecond: Math.round(records / (produced.elapsedMs / 1_000)),
        acceptP99Ms: rounded(percentile(produced.latenciesMs, 0.99)),
        drainPerSecond: drained.perSecond,
        drainMs: Math.round(drained.elapsedMs),
        restoreToLastMs: Math.round(drained.firstMs + drained.elapsedMs),
        firstAfterRestoreMs: Math.round(drained.firstMs),
        viewsCaughtUpMs: Math.round(viewsMs),
        lost: audited.lost,
        duplicated: audited.duplicated,
        disordered: audited.disordered,
        edgeRssMb: rounded(drained.edgeRssMb),
        cloudRssMb: rounded(drained.cloudRssMb),
        uplinkBytesPerRecord: rounded(uplinkBytes / records),
        edgeDiskBytesPerRecord: rounded(diskBytes / records),
        edgeDiskBytesWrittenPerRecord: rounded(writtenBytes / records),
        projections,
        tls: true,
        durable: true,
      }
    } finally {
      await relay.close()
      await installation.close()
    }
  },
}

/** From the restore to the mark behind the last record, as the edge sees it. */
const watch = async (
  gateway: Gateway,
  cloud: Started,
  edge: Started,
  records: number,
  restore: () => Promise<void>,
) => {
  const marked = async (): Promise<number> =>
    (await gateway.status()).streams.find(({ name }) => name === 'data')?.marked ?? 0
  const start = await marked()
  await restore()
  const restoredAt = performance.now()
  let first: { readonly atMs: number; readonly marked: number } | undefined
  let edgeRssMb = 0
  let cloudRssMb = 0
  for (let polls = 0; ; polls++) {
    const now = await marked()
    const atMs = performance.now() - restoredAt
    if (now > start) first ??= { atMs, marked: now - start }
    if (polls % 5 === 0) {
      edgeRssMb = Math.max(edgeRssMb, edge.rssMb())
      cloudRssMb = Math.max(cloudRssMb, cloud.rssMb())
    }
    if (now - start >= records && first !== undefined) {
      const elapsedMs = atMs - first.atMs
      // From the first mark to the last; when one mark covered all, from the restore.
      const [drained, ms] =
        first.marked >= records ? [records, first.atMs] : [records - first.marked, elapsedMs]
      const perSecond = Math.round(drained / (Math.max(POLL_MS, ms) / 1_000))
      return { firstMs: first.atMs, elapsedMs, perSecond, edgeRssMb, cloudRssMb }
    }
    if (atMs > 300_000) throw new Error(`only ${now - start} of ${records} were marked in 300 s`)
    await sleep(POLL_MS)
  }
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
