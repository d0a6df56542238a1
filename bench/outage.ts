// An outage of an hour, and how often gateways knock at a cloud that is down: an hour of a thousand gateways in virtual
// time, and the first minute of a real edge.
//
// In virtual time runs the edge's own link (streams/mqtt/client.ts with retry.ts): its waits are virtual, its connects
// are real and end at a closed port of this machine, each with one SYN. Nothing ever sleeps but the kernel, so an hour
// takes as long as its connects do. The real edge has a second of its own clock for each second.

import { setTimeout as sleep } from 'node:timers/promises'
import { install } from './harness/installation.ts'
import { type Knocks, simulateOutage } from './harness/outage-world.ts'
import { freePort } from './harness/ports.ts'
import { percentile, rounded, type Scenario, type Told } from './scenario.ts'

const MINUTES = 60
/** The waits grow with the outage: what counts for a cloud that comes back is the time after these. */
const FIRST_MINUTES = 5
const REAL_MS = 60_000
const REAL_TINY_MS = 3_000
const MS_PER_MINUTE = 60_000

export const outage: Scenario = {
  name: 'outage',
  says: 'how often gateways try to reach a cloud that is down for an hour',
  gateways: { byDefault: 1_000, tiny: 5 },
  minutesMax: 10,
  run: async ({ gateways, tiny }, told) => {
    const simulated = await simulateOutage({
      gateways,
      minutes: MINUTES,
      port: await freePort(),
      onProgress: done => told.progress('simulated gateways', done, gateways),
    })
    plot(simulated, told)
    told.say('a real edge at a closed port')
    const realMs = tiny ? REAL_TINY_MS : REAL_MS
    const real = await knockForReal(realMs)
    const perMinute = (from: number, to: number): number =>
      rounded(sum(simulated.perMinute.slice(from, to)) / (to - from) / gateways, 2)
    return {
      synsPerMinuteAfterFirstMinutes: perMinute(FIRST_MINUTES, MINUTES),
      synsPerMinuteLastHalf: perMinute(MINUTES / 2, MINUTES),
      synsPerMinuteFirstMinutes: perMinute(0, FIRST_MINUTES),
      synsFirstMinute: perMinute(0, 1),
      synsPerHour: Math.round(perMinute(0, MINUTES) * MINUTES),
      /** Of all gateways together: a fleet must not knock in step. */
      synsPerSecondMax: Math.max(...simulated.perSecond.slice(FIRST_MINUTES * 60)),
      synsPerSecondMedian: percentile(simulated.perSecond.slice(FIRST_MINUTES * 60), 0.5),
      edgeSyns: real,
      edgeSynsPerMinute: rounded((real * MS_PER_MINUTE) / realMs, 2),
      edgeMs: realMs,
      gateways,
      minutes: MINUTES,
      firstMinutes: FIRST_MINUTES,
    }
  },
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

const plot = ({ perMinute, gateways }: Knocks, told: Told): void =>
  told.plot({
    title: 'Tries of a gateway while its cloud is down',
    unit: 'SYN/min',
    over: 'seconds',
    lines: [{ name: 'simulated', points: perMinute.map((count, minute) => [minute * 60, count / gateways]) }],
  })

/** Counts what the edge says of its attempts: each is one connect to a port that refuses. */
const knockForReal = async (forMs: number): Promise<number> => {
  const installation = await install()
  try {
    const cloud = await installation.startCloud()
    const gateway = await installation.enrol('alone', { address: `localhost:${await freePort()}` })
    cloud.kill('SIGTERM')
    await cloud.ended
    const edge = await gateway.start()
    await sleep(forMs)
    return [...edge.said().matchAll(/link_connecting/g)].length
  } finally {
    await installation.close()
  }
}
