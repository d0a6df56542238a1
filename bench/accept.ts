// Accepting alone: devices publish with QoS 1 into a running edge whose uplink is cut, and wait for PUBACK.
//
// As in the drain, nothing leaves the edge meanwhile. Ours and the rivals take turns, three times, so that what else the
// machine does falls on all; of each the best round counts. All processes of all of them are there in every round.

import { peers, ratiosOf } from './peers/all.ts'
import { type Contender, openOurs, openPeer } from './peers/contenders.ts'
import { observing } from './peers/observing.ts'
import { latencies, type Missing } from './peers/outage.ts'
import { CONNECTIONS } from './peers/peer.ts'
import { percentile, type Result, rounded, type Scenario, type Told } from './scenario.ts'

const ROUNDS = 3
const WARM_UP_RECORDS = { byDefault: 5_000, tiny: 500 }

interface Round {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly latenciesMs: readonly number[]
  readonly rssMb: number
}

export const accept: Scenario = {
  name: 'accept',
  says: 'devices over MQTT QoS 1 into an edge whose uplink is cut: acknowledged once durable',
  records: { byDefault: 300_000, tiny: 3_000 },
  switches: ['peers'],
  minutesMax: 6,
  run: async ({ records, peers: withPeers, tiny }, told) => {
    const missing: Record<string, Missing> = {}
    const contenders: Contender[] = []
    try {
      const ours = await openOurs(records)
      contenders.push(ours)
      for (const peer of withPeers ? peers : []) {
        const hint = peer.missing()
        if (hint === undefined) contenders.push(await openPeer(peer, records))
        else {
          told.say(`${peer.name} is not installed: ${hint}`)
          missing[peer.name] = { missing: hint }
        }
      }
      const best = await alternate(contenders, WARM_UP_RECORDS[tiny ? 'tiny' : 'byDefault'], told)
      const { lost, writtenBytesPerRecord } = await ours.check()
      const mine = bestOf(best, ours)
      const theirs = contenders.filter(each => each !== ours)
      return {
        ...figures(ours, mine),
        edgeRssMb: rounded(mine.rssMb),
        writtenBytesPerRecord: rounded(writtenBytesPerRecord),
        lost,
        rounds: ROUNDS,
        durable: true,
        ...(withPeers ? beside(mine, theirs, best, missing) : {}),
      }
    } finally {
      for (const each of contenders) await each.close()
    }
  },
}

const beside = (
  mine: Round,
  theirs: readonly Contender[],
  best: ReadonlyMap<Contender, Round>,
  missing: Readonly<Record<string, Missing>>,
): Result => ({
  peers: {
    ...missing,
    ...Object.fromEntries(
      theirs.map(each => {
        const round = bestOf(best, each)
        const { configured } = each
        return [each.name, { ...figures(each, round), rssMb: rounded(round.rssMb), configured }]
      }),
    ),
  },
  ratios: ratiosOf(
    mine.perSecond,
    Object.fromEntries(theirs.map(each => [each.name, bestOf(best, each).perSecond])),
  ),
})

const figures = ({ records, durability }: Contender, { perSecond, p50Ms, p99Ms }: Round) => ({
  perSecond: Math.round(perSecond),
  p50Ms: rounded(p50Ms),
  p99Ms: rounded(p99Ms),
  records,
  durability,
})

const bestOf = (best: ReadonlyMap<Contender, Round>, contender: Contender): Round => {
  const round = best.get(contender)
  if (round === undefined) throw new Error(`no round of ${contender.name}`)
  return round
}

/** A round of each in turn, and again. */
const alternate = async (
  contenders: readonly Contender[],
  warmUpRecords: number,
  told: Told,
): Promise<ReadonlyMap<Contender, Round>> => {
  const best = new Map<Contender, Round>()
  for (const each of contenders) {
    const records = Math.min(warmUpRecords, each.records)
    await each.produce({ records, firstProducer: CONNECTIONS })
  }
  for (let index = 0; index < ROUNDS; index++) {
    for (const each of contenders) {
      const round = await oneRound(each, index, told)
      told.say(`${each.name}: ${Math.round(round.perSecond)} a second, p99 ${rounded(round.p99Ms)} ms`)
      const before = best.get(each) ?? round
      const better = round.perSecond > before.perSecond ? round : before
      best.set(each, { ...better, rssMb: Math.max(round.rssMb, before.rssMb) })
    }
  }
  for (const [{ name }, round] of best) told.plot(latencies(name, round))
  return best
}

const oneRound = async (contender: Contender, index: number, told: Told): Promise<Round> => {
  const { name, records, edge } = contender
  let accepted = 0
  const [{ elapsedMs, latenciesMs }, { rssMbMax, plots }] = await observing(
    { processes: { [name]: edge }, done: () => accepted },
    () =>
      contender.produce({
        records,
        firstProducer: (2 + index) * CONNECTIONS,
        onProgress: count => {
          accepted = count
          told.progress(`${name} accepted`, count, records)
        },
      }),
  )
  for (const plot of plots) told.plot({ ...plot, title: `${name}, round ${index + 1}: ${plot.title}` })
  return {
    perSecond: records / (elapsedMs / 1_000),
    p50Ms: percentile(latenciesMs, 0.5),
    p99Ms: percentile(latenciesMs, 0.99),
    latenciesMs,
    rssMb: rssMbMax[name] ?? Number.NaN,
  }
}
