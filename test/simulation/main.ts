// `npm run simulate -- --runs N --seed S`: many drawn plans of faults against both ends in virtual time. On a failure it
// prints the plan, shrunk to what still fails, and how to run that one again. Exits with 1 then.

import { Command, Option } from 'commander'
import fc from 'fast-check'
import { check, plan, planWithRestores, play, type Step } from './plans.ts'

interface Given {
  readonly runs: string
  readonly seed: string
  readonly plans: 'faults' | 'restores' | 'both'
  readonly path?: string
}

const KINDS = {
  faults: { arbitrary: plan, says: 'cuts, crashes, losses, doubles, drops and failed commits' },
  restores: { arbitrary: planWithRestores, says: 'the same, and disks put back from earlier copies' },
}
type Kind = keyof typeof KINDS

const PROGRESS_EVERY_MS = 2_000
/** What fast-check takes as a seed. */
const SEED_MAX = 2 ** 31 - 1

const whole = (text: string, name: string, max: number): number => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 0 || value > max)
    throw new Error(`--${name} ${text}: must be a whole number up to ${max}`)
  return value
}

/** Whether all held. */
const simulateKind = (kind: Kind, runs: number, seed: number, path: string | undefined): boolean => {
  const { arbitrary, says } = KINDS[kind]
  console.log(`${kind}: ${path === undefined ? `${runs} plans` : 'one plan'} of ${says}; seed ${seed}`)
  const startedMs = performance.now()
  let tried = 0
  let toldMs = startedMs
  let isFailing = false
  const property = fc.property(arbitrary, fc.integer(), (steps, chance) => {
    tried += 1
    const nowMs = performance.now()
    if (nowMs - toldMs >= PROGRESS_EVERY_MS) {
      toldMs = nowMs
      const perSecond = Math.round(tried / ((nowMs - startedMs) / 1_000))
      console.log(
        `${kind}: ${tried} ${isFailing ? 'tried, shrinking a failure' : `of ${runs}`}, ${perSecond} a second`,
      )
    }
    try {
      check(play(steps, chance))
    } catch (thrown) {
      isFailing = true
      throw thrown
    }
  })
  const result = fc.check(property, {
    seed,
    numRuns: runs,
    ...(path === undefined ? {} : { path, endOnFailure: true }),
  })
  if (!result.failed) {
    console.log(
      `${kind}: all ${result.numRuns} hold, ${((performance.now() - startedMs) / 1_000).toFixed(1)} s`,
    )
    return true
  }
  tellFailure(kind, seed, result)
  return false
}

/** The part of fast-check's account that a person needs. */
interface Failure {
  readonly numRuns: number
  readonly numShrinks: number
  readonly counterexample: readonly [readonly Step[], number] | null
  readonly counterexamplePath: string | null
  readonly errorInstance?: unknown
}

const tellFailure = (
  kind: Kind,
  seed: number,
  { numRuns, numShrinks, counterexample, counterexamplePath, errorInstance }: Failure,
): void => {
  const [steps = [], chance = 0] = counterexample ?? []
  console.log(
    `${kind}: FAILED at plan ${numRuns}, shrunk ${numShrinks} times to ${steps.length} steps, with chance ${chance}:`,
  )
  for (const { fault, afterMs } of steps) console.log(`  ${JSON.stringify(fault)}, then ${afterMs} ms`)
  console.log(errorInstance instanceof Error ? errorInstance.stack : String(errorInstance))
  console.log(
    `To run it again: npm run simulate -- --plans ${kind} --seed ${seed} --path ${counterexamplePath}`,
  )
}

const simulate = ({ runs, seed: seedText, plans, path }: Given): void => {
  const seed = whole(seedText, 'seed', SEED_MAX)
  const kinds: readonly Kind[] = plans === 'both' ? ['faults', 'restores'] : [plans]
  const each = Math.ceil(whole(runs, 'runs', Number.MAX_SAFE_INTEGER) / kinds.length)
  // All kinds run, whatever the first one finds.
  const held = kinds.map(kind => simulateKind(kind, each, seed, path))
  if (held.includes(false)) process.exitCode = 1
}

await new Command('npm run simulate --')
  .description('Both ends of the data path in virtual time, under drawn plans of faults.')
  .option('--runs <count>', 'plans, of all kinds together', '10000')
  .option('--seed <number>', 'of the plans', String(Math.floor(Math.random() * SEED_MAX)))
  .addOption(new Option('--plans <kind>', 'which').choices(['faults', 'restores', 'both']).default('both'))
  .option('--path <path>', 'of one plan, as a failure printed it; with --plans and --seed')
  .action(simulate)
  .parseAsync()
