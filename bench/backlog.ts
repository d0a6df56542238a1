// An edge that starts with much waiting: how soon it accepts again, and what memory it takes, while the cloud is out of
// reach and while it begins to drain.
//
// The log is filled by this process with the edge's own streams, then the real program starts on it. A device tries to
// connect from the first moment on and publishes with QoS 1. Durable: PUBACK follows the edge's fdatasync.

import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { lastValueFrom } from 'rxjs'
import { batchesOf, withEdgeLog } from './harness/edgelog.ts'
import { connectPacket, produce, publishPacket, senmlPayload } from './harness/generator.ts'
import { type Gateway, type Installation, install, until } from './harness/installation.ts'
import type { Line } from './harness/plots.ts'
import type { Started } from './harness/process.ts'
import { rounded, type Scenario, type Told } from './scenario.ts'

interface Sizes {
  /** 100 k, 1 M, 10 M. */
  readonly waiting: readonly [number, number, number]
  /** Accepted after the start. */
  readonly accepted: number
  readonly settleMs: number
  readonly drainMs: number
}
const SIZES: Sizes = {
  waiting: [100_000, 1_000_000, 10_000_000],
  accepted: 5_000,
  settleMs: 3_000,
  drainMs: 4_000,
}
const TINY: Sizes = { waiting: [1_000, 5_000, 20_000], accepted: 500, settleMs: 200, drainMs: 200 }

const CONNECTIONS = 4
const RETRY_MS = 2
const ACCEPT_MS_MAX = 60_000
const SAMPLE_MS = 50

export const backlog: Scenario = {
  name: 'backlog',
  says: 'start-up and memory of an edge with 100 k, 1 M and 10 M records waiting, and while it begins to drain',
  minutesMax: 5,
  run: async ({ tiny }, told) => {
    const sizes = tiny ? TINY : SIZES
    const installation = await install()
    try {
      const cloud = await installation.startCloud()
      const gateways = await Promise.all([
        installation.enrol('small'),
        installation.enrol('medium'),
        installation.enrol('large'),
      ])
      await end(cloud)
      const [small, medium, large] = sizes.waiting
      const of100k = await observe({ installation, gateway: gateways[0], waiting: small, sizes, told })
      const of1m = await observe({ installation, gateway: gateways[1], waiting: medium, sizes, told })
      const of10m = await observe({ installation, gateway: gateways[2], waiting: large, sizes, told })
      told.plot({
        title: 'Memory of the edge from its start on; the cloud is there for the last seconds',
        unit: 'MB',
        over: 'seconds',
        lines: [of100k.memory, of1m.memory, of10m.memory],
      })
      return {
        waiting100k: small,
        waiting1m: medium,
        waiting10m: large,
        startMs100k: rounded(of100k.startMs),
        startMs10m: rounded(of10m.startMs),
        acceptAfterStart100kMs: rounded(of100k.acceptMs),
        acceptAfterStart1mMs: rounded(of1m.acceptMs),
        acceptAfterStartMs: rounded(of10m.acceptMs),
        idleRssMb100k: rounded(of100k.idleRssMb),
        idleRssMb1m: rounded(of1m.idleRssMb),
        idleRssMb10m: rounded(of10m.idleRssMb),
        rssMb100k: rounded(of100k.rssMb),
        rssMb1m: rounded(of1m.rssMb),
        rssMb10m: rounded(of10m.rssMb),
        rssGrowthMb: rounded(of10m.rssMb - of100k.rssMb),
        drainRssMb100k: rounded(of100k.drainRssMb),
        drainRssMb1m: rounded(of1m.drainRssMb),
        drainRssMb10m: rounded(of10m.drainRssMb),
        drained10m: of10m.drained,
        fillPerSecond: Math.round(of10m.fillPerSecond),
        logMb10m: rounded(of10m.logMb),
        accepted: sizes.accepted,
        durability:
          'PUBACK follows the fdatasync of the edge; the backlog was filled durably before the start',
      }
    } finally {
      await installation.close()
    }
  },
}

const end = async (started: Started): Promise<void> => {
  started.kill('SIGTERM')
  await started.ended
}

interface Observed {
  readonly fillPerSecond: number
  readonly logMb: number
  /** Spawn of the process to "listening", and to the first PUBACK. */
  readonly startMs: number
  readonly acceptMs: number
  /** Settled after the first PUBACK; the highest while more was accepted, and while it drained. */
  readonly idleRssMb: number
  readonly rssMb: number
  readonly drainRssMb: number
  readonly drained: number
  readonly memory: Line
}

interface Observe {
  readonly installation: Installation
  readonly gateway: Gateway
  readonly waiting: number
  readonly sizes: Sizes
  readonly told: Told
}

const observe = async ({ installation, gateway, waiting, sizes, told }: Observe): Promise<Observed> => {
  const fillPerSecond = await fill(gateway, waiting, told)
  told.say(`${waiting} records wait: the edge starts, the cloud does not`)
  const startedMs = performance.now()
  const starting = gateway.start().then(edge => ({ edge, startMs: performance.now() - startedMs }))
  const [{ edge, startMs }, acceptMs] = await Promise.all([
    starting,
    firstPuback(gateway.localPort, startedMs),
  ])
  const memory = watchMemory(edge, startedMs)
  await sleep(sizes.settleMs)
  const idleRssMb = edge.rssMb()
  memory.restart()
  await produce({ port: gateway.localPort, connections: CONNECTIONS, records: sizes.accepted })
  await sleep(sizes.settleMs)
  const rssMb = memory.restart()
  const { diskBytes, streams } = await gateway.status()
  const data = streams.find(({ name }) => name === 'data')
  const expected = waiting + 1 + sizes.accepted
  if (data?.head !== expected) throw new Error(`the log's head is ${data?.head}, not ${expected}`)

  told.say('the cloud is there: it drains')
  const cloud = await installation.startCloud()
  const marked = async (): Promise<number> =>
    (await gateway.status()).streams.find(({ name }) => name === 'data')?.marked ?? 0
  await until('the first mark', async () => ((await marked()) > 0 ? true : undefined))
  await sleep(sizes.drainMs)
  const drained = await marked()
  const drainRssMb = memory.restart()
  const line = memory.stop(`${waiting} records`)
  await Promise.all([end(edge), end(cloud)])
  return {
    fillPerSecond,
    logMb: diskBytes / 1e6,
    startMs,
    acceptMs,
    idleRssMb,
    rssMb,
    drainRssMb,
    drained,
    memory: line,
  }
}

const fill = async ({ folder }: Gateway, records: number, told: Told): Promise<number> => {
  const startedMs = performance.now()
  await withEdgeLog(folder, async data => {
    let done = 0
    for (const batch of batchesOf(records)) {
      await lastValueFrom(data.append(batch))
      done += batch.length
      told.progress(`filling with ${records} records`, done, records)
    }
  })
  return records / ((performance.now() - startedMs) / 1_000)
}

/** A device that cannot wait: tries again and again to connect, publishes once; ms since `startedMs` at its PUBACK. */
const firstPuback = async (port: number, startedMs: number): Promise<number> => {
  for (;;) {
    const acknowledged = await publishOnce(port)
    const nowMs = performance.now() - startedMs
    if (acknowledged) return nowMs
    if (nowMs > ACCEPT_MS_MAX) throw new Error(`no PUBACK within ${ACCEPT_MS_MAX} ms of the start`)
    await sleep(RETRY_MS)
  }
}

const PUBACK = 0x40

const publishOnce = async (port: number): Promise<boolean> => {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  socket.setTimeout(ACCEPT_MS_MAX, () => socket.destroy(new Error('no answer')))
  try {
    await once(socket, 'connect')
    socket.write(Buffer.concat([connectPacket('eager'), publishPacket('bench/eager', senmlPayload(0, 0), 1)]))
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      // CONNACK has four bytes; it may come with the PUBACK or before it.
      if (chunk[0] === PUBACK || chunk[4] === PUBACK) return true
    }
    return false
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** The highest since the last `restart`, and all of it as a line. */
const watchMemory = (edge: Started, startedMs: number) => {
  const points: [number, number][] = []
  let highest = 0
  const look = (): void => {
    const mb = edge.rssMb()
    points.push([(performance.now() - startedMs) / 1_000, mb])
    highest = Math.max(highest, mb)
  }
  const timer = setInterval(look, SAMPLE_MS)
  return {
    restart: (): number => {
      look()
      const before = highest
      highest = 0
      return before
    },
    stop: (name: string): Line => {
      clearInterval(timer)
      return { name, points }
    },
  }
}
