// The benchmark harness: `npm run bench -- SCENARIO [flags]`. Every result is one line of JSON, the last of standard
// output; what goes on while it runs is on standard error.

import { Command } from 'commander'
import { accept } from './accept.ts'
import { append } from './append.ts'
import { backlog } from './backlog.ts'
import { connect } from './connect.ts'
import { drain } from './drain.ts'
import { calibrate } from './harness/calibrate.ts'
import { endAll, profileInto } from './harness/process.ts'
import { type Outcome, writeReport } from './harness/report.ts'
import { openTeller } from './harness/told.ts'
import { live } from './live.ts'
import { machine } from './machine.ts'
import { outage } from './outage.ts'
import { type Flags, flagsOf, type Scenario, type Switch } from './scenario.ts'
import { storm } from './storm.ts'
import { judge } from './targets.ts'
import { thin } from './thin.ts'
import { trickle } from './trickle.ts'

const scenarios: readonly Scenario[] = [
  machine,
  append,
  accept,
  drain,
  storm,
  connect,
  live,
  thin,
  backlog,
  trickle,
  outage,
]

interface Given {
  readonly records?: number
  readonly gateways?: number
  readonly projections?: boolean
  readonly peers?: boolean
  readonly full?: boolean
  readonly json?: boolean
  readonly out?: string
  readonly tiny?: boolean
  readonly profile?: string
}

const SWITCHES: Readonly<Record<Switch, readonly [flag: string, says: string]>> = {
  projections: ['--no-projections', 'without the views'],
  peers: ['--peers', 'the rivals do the same job in the same run'],
  full: ['--full', 'full TLS handshakes: no tickets held'],
}

const count = (text: string): number => {
  const value = Number(text.replaceAll('_', ''))
  if (!Number.isSafeInteger(value) || value < 1) throw new Error(`"${text}": a whole number from 1 on`)
  return value
}

const say = (text: string): void => void process.stdout.write(`${text}\n`)
const minutes = (value: number): number => value * 60_000

/** One run, bounded in time; whatever it started is gone afterwards. */
const runOne = async (scenario: Scenario, given: Given): Promise<Outcome> => {
  const { json = false, out: _, profile, ...rest } = given
  if (profile !== undefined) profileInto(profile)
  const flags: Flags = flagsOf(scenario, rest)
  const teller = openTeller(json)
  teller.say(`${scenario.name}: ${scenario.says}`)
  const calibration = scenario === machine ? {} : { machine: await calibrate() }
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`${scenario.name} took over ${scenario.minutesMax} minutes: ended`)),
      minutes(scenario.minutesMax),
    )
  })
  try {
    const result = await Promise.race([scenario.run(flags, teller), late])
    return {
      scenario: scenario.name,
      at: new Date().toISOString(),
      flags,
      result: { ...result, ...calibration },
      plots: teller.plots,
    }
  } finally {
    clearTimeout(timer)
    teller.end()
    await endAll()
  }
}

const finish = (outcomes: readonly Outcome[], { out, json = false }: Given): void => {
  if (out !== undefined) {
    const file = writeReport(out, outcomes)
    if (!json) process.stderr.write(`report: ${file}\n`)
  }
}

const tell = (outcome: Outcome, { json = false }: Given): void => {
  if (!json) for (const line of judge(outcome)) process.stderr.write(`${line}\n`)
  say(JSON.stringify(outcome.result))
}

const command = new Command('bench').description(
  'Real processes with their default configuration, real sockets, mutual TLS; generators are raw sockets.',
)
const common = (each: Command): Command =>
  each
    .option('--json', 'nothing but the result')
    .option('--out <dir>', 'write results.jsonl and report.html there')
    .option('--profile <dir>', 'CPU profiles of edge and cloud into this folder')
    .option('--tiny', 'as small as the tests run it')

command
  .command('list')
  .description('all scenarios')
  .action(() => {
    for (const { name, says } of scenarios) say(`${name.padEnd(10)} ${says}`)
  })

common(command.command('all').description('every scenario, one after the other'))
  .option(...SWITCHES.peers)
  .action(async (given: Given) => {
    const outcomes: Outcome[] = []
    for (const scenario of scenarios) {
      const outcome = await runOne(scenario, given)
      outcomes.push(outcome)
      tell(outcome, given)
      finish([outcome], given)
    }
  })

for (const scenario of scenarios) {
  const { name, says, records, gateways, switches = [] } = scenario
  const each = common(command.command(name).description(says))
  if (records !== undefined) each.option('--records <count>', `records (${records.byDefault})`, count)
  if (gateways !== undefined) each.option('--gateways <count>', `gateways (${gateways.byDefault})`, count)
  for (const flag of switches) each.option(...SWITCHES[flag])
  each.action(async (given: Given) => {
    const outcome = await runOne(scenario, given)
    finish([outcome], given)
    tell(outcome, given)
  })
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void endAll().finally(() => process.exit(130)))
}
try {
  await command.parseAsync()
} catch (thrown) {
  process.stderr.write(
    `bench: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)}\n`,
  )
  process.exitCode = 1
}
