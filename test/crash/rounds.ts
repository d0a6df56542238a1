// Rounds of kills: the real programs, devices that go on publishing, SIGKILL on either side at drawn moments, and after
// each round the auditor.
//
// The seed fixes what is killed and when; what the programs are doing at that moment is theirs. A failed round is run
// again with its seed until it shows.

import { cpSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Gateway, type Installation, install, until } from '../../bench/harness/installation.ts'
import type { Started } from '../../bench/harness/process.ts'
import { seededRandom } from '../support/logs.ts'
import { auditLog, isClean, type Verdict } from './auditor.ts'
import { openProducer, type Producer } from './producer.ts'

export interface RoundsOptions {
  readonly rounds: number
  readonly seed: number
  readonly signal?: AbortSignal
  readonly tell: (line: string) => void
}

export interface Round extends Verdict {
  readonly kills: readonly string[]
  readonly acknowledged: number
  readonly reconnects: number
  /** Where the cloud's folder was kept, if the round was not clean. */
  readonly kept: string | undefined
}

type Side = 'edge' | 'cloud'
type Draw = (low: number, high: number) => number

const PRODUCERS = 4
const DRAIN_MS_MAX = 60_000

/** Stops at the first round that is not clean. Throws when a program ends by itself, or nothing drains. */
export const runRounds = async ({ rounds, seed, signal, tell }: RoundsOptions): Promise<Round[]> => {
  const { unit } = seededRandom(seed)
  const draw: Draw = (low, high) => low + Math.floor(unit() * (high - low + 1))
  const installation = await install()
  const done: Round[] = []
  let producers: Producer[] = []
  try {
    await installation.startCloud()
    const gateway = await installation.enrol('crashed')
    await ended(installation, 'SIGKILL')
    producers = Array.from({ length: PRODUCERS }, (_, each) => openProducer(gateway.localPort, each))
    for (let round = 1; round <= rounds; round++) {
      const startedMs = performance.now()
      const kills = await storm(installation, gateway, producers, draw, signal)
      const ledgers = producers.map(({ ledger }) => ledger)
      const verdict = await auditLog(join(installation.cloudFolder, 'log'), gateway.id, ledgers)
      const kept = isClean(verdict) ? undefined : keep(installation)
      const acknowledged = ledgers.reduce((sum, ledger) => sum + ledger.acknowledged, 0)
      const reconnects = producers.reduce((sum, producer) => sum + producer.reconnects(), 0)
      done.push({ ...verdict, kills, acknowledged, reconnects, kept })
      tell(lineOf(round, done.at(-1), (performance.now() - startedMs) / 1_000))
      if (kept !== undefined) break
    }
    return done
  } finally {
    for (const producer of producers) producer.close()
    await installation.close()
  }
}

const lineOf = (round: number, of: Round | undefined, seconds: number): string => {
  if (of === undefined) return ''
  const { kills, acknowledged, records, lost, disordered, doubled, resent, broken, kept } = of
  const what = `round ${round}: ${kills.length} kills in ${seconds.toFixed(1)} s; ${acknowledged} acknowledged, ${records} in the log, ${resent} of them again after a resend`
  const how = `lost ${lost}, disordered ${disordered}, doubled ${doubled}, broken ${broken.length}`
  const detail =
    kept === undefined ? [] : [...broken.slice(0, 10), `kills: ${kills.join('; ')}`, `kept in ${kept}`]
  return [`${what} · ${how}`, ...detail].join('\n  ')
}

/** One round: everything that was acknowledged is in the cloud's log at its end, and nothing runs. */
const storm = async (
  installation: Installation,
  gateway: Gateway,
  producers: readonly Producer[],
  draw: Draw,
  signal: AbortSignal | undefined,
): Promise<string[]> => {
  const running: Record<Side, Started | undefined> = { edge: undefined, cloud: undefined }
  const starting: Record<Side, Promise<unknown>> = { edge: Promise.resolve(), cloud: Promise.resolve() }
  const start = (side: Side): void => {
    starting[side] = side === 'edge' ? gateway.start() : installation.startCloud()
    // The next kill may come while it starts; whoever waits for it hears of any other end.
    starting[side].catch(() => undefined)
    running[side] = installation.started.at(-1)
  }
  const kill = async (side: Side): Promise<void> => {
    const victim = running[side]
    victim?.kill('SIGKILL')
    const how = await victim?.ended
    if (how !== 'SIGKILL')
      throw new Error(`the ${side} ended by itself (${how}): ${victim?.said().slice(-2_000)}`)
  }

  start('cloud')
  start('edge')
  await Promise.all([starting.cloud, starting.edge])
  for (const producer of producers) producer.resume()
  const kills: string[] = []
  for (let left = draw(3, 5); left > 0; left--) {
    // A third of them while the other programs, or the one itself, recover and drain.
    const waitMs = draw(0, 2) === 0 ? draw(0, 300) : draw(300, 1_200)
    const sides = ([['edge'], ['edge'], ['cloud'], ['cloud'], ['edge', 'cloud']] as const)[draw(0, 4)] ?? [
      'edge',
    ]
    const downMs = draw(0, 1) === 0 ? 0 : draw(1, 700)
    kills.push(`${sides.join(' and ')} after ${waitMs} ms, for ${downMs} ms`)
    await sleep(waitMs, undefined, { signal })
    await Promise.all(sides.map(kill))
    await sleep(downMs, undefined, { signal })
    for (const side of sides) start(side)
  }
  await Promise.all([starting.cloud, starting.edge])
  await Promise.race([
    Promise.all(producers.map(producer => producer.finish())),
    sleep(DRAIN_MS_MAX, undefined, { ref: false }),
  ])
  await until('everything is marked', () => drained(gateway, producers), DRAIN_MS_MAX, 50)
  await ended(installation, draw(0, 1) === 0 ? 'SIGKILL' : 'SIGTERM')
  return kills
}

const drained = async (gateway: Gateway, producers: readonly Producer[]): Promise<true | undefined> => {
  if (producers.some(({ ledger }) => ledger.acknowledged < ledger.sends.length)) return undefined
  const data = (await gateway.status()).streams.find(({ name }) => name === 'data')
  return data !== undefined && data.head > 0 && data.marked === data.head ? true : undefined
}

/** The last two that were started are what runs; killed ones have ended already. */
const ended = async (installation: Installation, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> => {
  const ends = installation.started.map(async started => {
    started.kill(signal)
    return await started.ended
  })
  const wrong = (await Promise.all(ends)).find(how => how !== 'SIGKILL' && how !== 0)
  if (wrong !== undefined)
    throw new Error(
      `a program ended with ${wrong}: ${installation.started.map(each => each.said().slice(-500)).join('\n')}`,
    )
}

const keep = ({ cloudFolder }: Installation): string => {
  const kept = mkdtempSync(join(tmpdir(), 'headgate-crash-'))
  cpSync(cloudFolder, kept, { recursive: true })
  return kept
}
