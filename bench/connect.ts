// How quickly a fleet is back: every gateway connects at once, from the SYN to the SUBACK, with full and with resumed
// handshakes, beside a bare tls.Server that the same clients connect to in the same run, turn by turn.
//
// And the gate in front of it: silent and hanging peers must not keep a good client out.

import { once } from 'node:events'
import { connect as connectTcp, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { makeIdentities, type SimulatedIdentity } from './harness/identities.ts'
import { install, until } from './harness/installation.ts'
import { percentilesOf } from './harness/plots.ts'
import { PROJECT, start } from './harness/process.ts'
import { openSimulated, type Simulated } from './harness/simulated.ts'
import { percentile, rounded, type Scenario } from './scenario.ts'
import { addressOf } from './storm.ts'

const ROUNDS = 3
const BAD_PEERS = 16

export const connect: Scenario = {
  name: 'connect',
  says: 'a fleet connects at once until SUBACK, full and resumed, beside a bare tls.Server',
  gateways: { byDefault: 1_000, tiny: 20 },
  minutesMax: 6,
  run: async ({ gateways: count, tiny }, told) => {
    const installation = await install()
    const sides: Side[] = []
    try {
      const identities = await makeIdentities(installation.cloudFolder, count + 1, made =>
        told.progress('certificates', made, count + 1),
      )
      const fleetOf = (offset: number): Simulated[] =>
        identities
          .slice(0, count)
          .map((identity, index) => openSimulated(identity, addressOf(index + offset)))
      const cloud = await installation.startCloud()
      const bare = start({
        command: process.execPath,
        args: [join(PROJECT, 'dist/bench/harness/bare-broker.js'), join(installation.cloudFolder, 'pki')],
      })
      await bare.saying(/port \d+/)
      const barePort = Number(/port (\d+)/.exec(bare.said())?.[1])
      const connections = async (): Promise<number> => {
        const text = await (await installation.api('/metrics')).text()
        return Number(/^headgate_cloud_connections (\d+)/m.exec(text)?.[1])
      }
      const allGone = (): Promise<unknown> =>
        until('every connection is closed', async () => ((await connections()) === 0 ? true : undefined))
      const ours: Side = {
        port: installation.gatewaysPort,
        fleet: fleetOf(0),
        allGone,
        full: [],
        resumed: [],
        each: [],
      }
      const theirs: Side = {
        port: barePort,
        fleet: fleetOf(0),
        allGone: () => sleep(200),
        full: [],
        resumed: [],
        each: [],
      }
      sides.push(ours, theirs)

      await round(ours, false) // Makes each active in the registry, and warms both up.
      await round(theirs, false)
      for (const side of sides) for (const times of [side.full, side.resumed, side.each]) times.length = 0
      const idleMb = cloud.rssMb()
      const cpuMs: Record<'full' | 'resumed', number[]> = { full: [], resumed: [] }
      let connectedMb = 0
      for (let turn = 0; turn < (tiny ? 1 : ROUNDS); turn++) {
        for (const withTicket of [false, true]) {
          const before = cloud.cpuMs()
          await round(ours, withTicket, () => {
            connectedMb = Math.max(connectedMb, cloud.rssMb())
            cpuMs[withTicket ? 'resumed' : 'full'].push(cloud.cpuMs() - before)
          })
          await round(theirs, withTicket)
          told.progress('rounds', turn * 2 + (withTicket ? 2 : 1), (tiny ? 1 : ROUNDS) * 2)
        }
      }
      const good = identities[count]
      if (good === undefined) throw new Error('no identity is left for the good client')
      const goodClientMs = await amongBadPeers(good, installation.gatewaysPort)
      told.plot({
        title: 'SYN to SUBACK of one gateway, all at once',
        unit: 'ms',
        over: 'percent',
        lines: [percentilesOf('Headgate', ours.each), percentilesOf('bare tls.Server', theirs.each)],
      })
      const median = (values: readonly number[]): number => percentile(values, 0.5)
      const [fullMs, resumedMs] = [median(ours.full), median(ours.resumed)]
      const [bareFullMs, bareResumedMs] = [median(theirs.full), median(theirs.resumed)]
      return {
        gateways: count,
        rounds: tiny ? 1 : ROUNDS,
        fullMs: Math.round(fullMs),
        resumedMs: Math.round(resumedMs),
        bareFullMs: Math.round(bareFullMs),
        bareResumedMs: Math.round(bareResumedMs),
        ratios: { full: rounded(bareFullMs / fullMs, 2), resumed: rounded(bareResumedMs / resumedMs, 2) },
        fullPerSecond: Math.round(count / (fullMs / 1_000)),
        resumedPerSecond: Math.round(count / (resumedMs / 1_000)),
        connectP50Ms: Math.round(percentile(ours.each, 0.5)),
        connectP99Ms: Math.round(percentile(ours.each, 0.99)),
        goodClientMs: Math.round(goodClientMs),
        badPeers: 2 * BAD_PEERS,
        cloudCpuMsEachFull: rounded(median(cpuMs.full) / count, 2),
        cloudCpuMsEachResumed: rounded(median(cpuMs.resumed) / count, 2),
        cloudKbEachConnection: Math.round(((connectedMb - idleMb) * 1024) / count),
        tls: true,
      }
    } finally {
      for (const { fleet } of sides) for (const each of fleet) each.close()
      await installation.close()
    }
  },
}

interface Side {
  readonly port: number
  readonly fleet: readonly Simulated[]
  readonly allGone: () => Promise<unknown>
  readonly full: number[]
  readonly resumed: number[]
  /** Of every single connection. */
  readonly each: number[]
}

/** All connect at once; all leave. Throws when one does not get in, or was not resumed as it should. */
const round = async (
  { port, fleet, allGone, full, resumed, each }: Side,
  withTicket: boolean,
  connected: () => void = () => undefined,
): Promise<void> => {
  const startedMs = performance.now()
  const found = await Promise.all(fleet.map(one => one.connect({ port, withTicket })))
  const elapsedMs = performance.now() - startedMs
  const wrong = found.filter(one => one.resumed !== withTicket).length
  if (wrong > 0)
    throw new Error(`${wrong} of ${fleet.length} handshakes were not ${withTicket ? 'resumed' : 'full'}`)
  for (const { readyMs } of found) each.push(readyMs)
  ;(withTicket ? resumed : full).push(elapsedMs)
  connected()
  await Promise.all(fleet.map(one => one.ticketed()))
  for (const one of fleet) one.close()
  await allGone()
}

/** Until the SUBACK of a client with an address of its own, while others hold their connections open for nothing. */
const amongBadPeers = async (identity: SimulatedIdentity, port: number): Promise<number> => {
  const hello = await clientHello()
  const bad = await Promise.all(
    Array.from({ length: 2 * BAD_PEERS }, async (_, index): Promise<Socket> => {
      const socket = connectTcp({ host: '127.0.0.1', port })
      socket.on('error', () => undefined)
      await once(socket, 'connect')
      if (index % 2 === 0) socket.write(hello)
      return socket
    }),
  )
  await sleep(100)
  const good = openSimulated(identity, '127.2.0.1')
  try {
    const { readyMs } = await good.connect({ port, withTicket: false })
    return readyMs
  } finally {
    good.close()
    for (const socket of bad) socket.destroy()
  }
}

/** What a TLS client says first. */
const clientHello = async (): Promise<Buffer> => {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  const client = connectTls({ host: '127.0.0.1', port, minVersion: 'TLSv1.3' })
  client.on('error', () => undefined)
  const [socket] = (await once(server, 'connection')) as [Socket]
  const [bytes] = (await once(socket, 'data')) as [Buffer]
  socket.destroy()
  client.destroy()
  server.close()
  return bytes
}
