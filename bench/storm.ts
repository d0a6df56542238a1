// The reconnect storm: the cloud was gone, and every gateway comes back at the same moment with what it took meanwhile.
//
// Simulated gateways with certificates and loopback addresses of their own speak the real protocol; a real edge that is
// connected again before them tells how live records fare. It ends when every gateway holds the mark behind its last
// record: durable in the cloud. An auditor then reads all of it from the API.

import { setTimeout as sleep } from 'node:timers/promises'
import { audit } from './harness/audit.ts'
import { sequenceOf } from './harness/generator.ts'
import { channelOf, makeIdentities } from './harness/identities.ts'
import { type Installation, install, until } from './harness/installation.ts'
import { startLiveProbe } from './harness/live-probe.ts'
import { difference, type Histogram, observe, quantileOf, readHistogram } from './harness/observe.ts'
import { percentilesOf } from './harness/plots.ts'
import { sealBacklog } from './harness/sealed.ts'
import { type Backlog, type Delivered, openSimulated, type Simulated } from './harness/simulated.ts'
import { percentile, rounded, type Scenario, type Told } from './scenario.ts'

/** So many connect at a time before the outage: a quiet morning, not a storm. */
const CALM_AT_ONCE = 16
const LIVE_PER_SECOND = 50
/** The live gateway shows a level before the storm, so that what comes is compared with something. */
const CALM_MS = 2_000

export const storm: Scenario = {
  name: 'storm',
  says: 'gateways reconnect all at once after an outage, each with a backlog; until the last mark',
  records: { byDefault: 1_000, tiny: 200 },
  gateways: { byDefault: 1_000, tiny: 20 },
  switches: ['full', 'projections'],
  minutesMax: 8,
  run: async ({ gateways: count, records: recordsEach, full, projections, tiny }, told) => {
    const installation = await install()
    const fleet: Simulated[] = []
    try {
      const env = { CLOUD_PROJECTIONS_ENABLED: String(projections) }
      const identities = await makeIdentities(installation.cloudFolder, count, made =>
        told.progress('certificates', made, count),
      )
      fleet.push(...identities.map((identity, index) => openSimulated(identity, addressOf(index))))
      const backlogs = seal(count, recordsEach, told)

      const before = await installation.startCloud(env)
      const live = await installation.enrol('live')
      await firstConnections(fleet, installation.gatewaysPort, told)
      before.kill('SIGKILL')
      await before.ended
      for (const each of fleet) each.close()
      told.say('outage: the cloud was killed')

      const cloud = await installation.startCloud(env)
      const edge = await live.start()
      const channel = await channelOf(installation.cloudFolder, live.id)
      await until('the live gateway is up', async () =>
        (await live.status()).link === 'up' ? true : undefined,
      )
      const probe = await startLiveProbe({
        localPort: live.localPort,
        northPort: installation.northPort,
        channel,
        perSecond: LIVE_PER_SECOND,
      })
      await sleep(tiny ? 500 : CALM_MS)

      const delay = (): Promise<Histogram> => loopDelayOf(installation)
      const delayBefore = await delay()
      const cpuBeforeMs = cloud.cpuMs()
      const observation = observe({ processes: { cloud, edge }, everyMs: 100 })
      const startedMs = performance.now()
      let done = 0
      const delivered = await Promise.all(
        fleet.map(async (each, index) => {
          const backlog = backlogs[index]
          if (backlog === undefined) throw new Error('a gateway without a backlog')
          const result = await each.deliver({ port: installation.gatewaysPort, withTicket: !full, backlog })
          done += 1
          told.progress('marked', done, count)
          return result
        }),
      )
      const totalMs = performance.now() - startedMs
      const delayMs = quantileOf(difference(await delay(), delayBefore), 0.99) * 1_000
      const cpuMs = cloud.cpuMs() - cpuBeforeMs
      const probed = await probe.stop()
      const caughtUpMs = projections ? await viewsCaughtUp(installation, fleet, recordsEach, tiny) : 0
      const { rssMbMax, plots } = await observation.stop()
      for (const plot of plots) told.plot(plot)
      told.plot({
        title: 'A live record of a connected gateway, device to north',
        unit: 'ms',
        over: 'percent',
        lines: [percentilesOf('latency', probed.latenciesMs)],
      })
      told.plot(progressPlot(delivered, startedMs))

      const audited = await audit(
        installation,
        undefined,
        fleet.map(() => recordsEach),
        line => {
          const producer = Number(line.topic?.split('/')[1])
          return line.topic?.startsWith('bench/')
            ? { producer, sequence: sequenceOf(line.payload) }
            : undefined
        },
      )
      const readyMs = Math.max(...delivered.map(each => each.readyAtMs)) - startedMs
      return {
        gateways: count,
        recordsEach,
        records: audited.records,
        totalMs: Math.round(totalMs),
        recordsPerSecond: Math.round((count * recordsEach) / (totalMs / 1_000)),
        readyMs: Math.round(readyMs),
        handshakesPerSecond: Math.round(count / (readyMs / 1_000)),
        markedP50Ms: Math.round(
          percentile(
            delivered.map(each => each.markedAtMs - startedMs),
            0.5,
          ),
        ),
        retries: delivered.reduce((sum, each) => sum + each.retries, 0),
        lost: audited.lost,
        duplicated: audited.duplicated,
        disordered: audited.disordered,
        loopDelayP99Ms: rounded(delayMs),
        livePerSecond: LIVE_PER_SECOND,
        liveP50Ms: rounded(percentile(probed.latenciesMs, 0.5)),
        liveP99Ms: rounded(percentile(probed.latenciesMs, 0.99)),
        liveLost: probed.sent - probed.received,
        /** All threads, until the last mark. */
        cloudCpuMsEach: rounded(cpuMs / count, 2),
        cloudRssMb: rounded(rssMbMax['cloud'] ?? Number.NaN),
        viewsCaughtUpMs: Math.round(caughtUpMs),
        projections,
        resumed: !full,
        tls: true,
        durability: 'a mark follows fdatasync of the frames and of the mark itself',
        durable: true,
      }
    } finally {
      for (const each of fleet) each.close()
      await installation.close()
    }
  },
}

/** A gateway's own address on loopback: 127.1.0.1 and on. */
export const addressOf = (index: number): string => `127.1.${(index + 1) >> 8}.${(index + 1) & 255}`

const seal = (count: number, recordsEach: number, told: Told): Backlog[] =>
  Array.from({ length: count }, (_, producer) => {
    if (producer % 50 === 0) told.progress('backlogs sealed', producer, count)
    return sealBacklog(producer, recordsEach)
  })

/** Each connects once, in peace: it becomes active in the registry and gets its ticket. */
const firstConnections = async (fleet: readonly Simulated[], port: number, told: Told): Promise<void> => {
  let next = 0
  let done = 0
  const one = async (): Promise<void> => {
    for (let each = fleet[next++]; each !== undefined; each = fleet[next++]) {
      await each.connect({ port, withTicket: false })
      await each.ticketed()
      done += 1
      told.progress('first connections', done, fleet.length)
    }
  }
  await Promise.all(Array.from({ length: CALM_AT_ONCE }, one))
}

export const loopDelayOf = async (installation: Installation): Promise<Histogram> =>
  readHistogram(await (await installation.api('/metrics')).text(), 'headgate_cloud_event_loop_delay_seconds')

/** How long after the last mark the delivery view of each gateway (tiny: of one in ten) counts every record. */
const viewsCaughtUp = async (
  installation: Installation,
  fleet: readonly Simulated[],
  recordsEach: number,
  tiny: boolean,
): Promise<number> => {
  const startedMs = performance.now()
  for (const { identity } of fleet.filter((_, index) => tiny || index % 10 === 0)) {
    await until(
      `the views of ${identity.gateway} caught up`,
      async () => {
        const answer = await installation.api(`/api/gateways/${identity.gateway}/delivery`)
        const { streams } = (await answer.json()) as { streams: { stream: string; records: number }[] }
        return streams.some(({ stream, records }) => stream === 'data' && records >= recordsEach)
          ? true
          : undefined
      },
      60_000,
    )
  }
  return performance.now() - startedMs
}

const progressPlot = (delivered: readonly Delivered[], startedMs: number) => {
  const over = (times: readonly number[], each: number) =>
    times
      .toSorted((a, b) => a - b)
      .map((atMs, index) => [(atMs - startedMs) / 1_000, (index + 1) * each] as const)
  return {
    title: 'Gateways connected, and records durable',
    unit: 'per cent',
    over: 'seconds' as const,
    lines: [
      {
        name: 'connected',
        points: over(
          delivered.map(each => each.readyAtMs),
          100 / delivered.length,
        ),
      },
      {
        name: 'marked',
        points: over(
          delivered.map(each => each.markedAtMs),
          100 / delivered.length,
        ),
      },
    ].map(line => ({ ...line, points: thinned(line.points) })),
  }
}

/** Two hundred points draw the same line as a thousand. */
const thinned = <T>(points: readonly T[]): T[] => {
  const step = Math.ceil(points.length / 200)
  return points.filter((_, index) => index % step === 0 || index === points.length - 1)
}
