// The benchmark harness: `npm run bench -- SCENARIO [flags]`. Every result is one line of JSON, the last of standard
// output; what goes on while it runs is on standard error. The exit code is 1 when a scenario failed, and 0 when it ran,
// whether it reached its targets or not.
//
// `all` gives each scenario a process of its own: no heap that another left, and one that fails stops no other.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import Table from 'cli-table3'
import { Command, InvalidArgumentError } from 'commander'
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
import { flagsOf, type Result, type Scenario, type Switch } from './scenario.ts'
import { storm } from './storm.ts'
import { judge, verdicts } from './targets.ts'
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
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('A whole number from 1 on.')
  return value
}

/** Made at once: a folder that cannot be is no reason to lose a run of minutes. */
const folder = (path: string): string => {
  try {
    mkdirSync(path, { recursive: true })
    return resolve(path)
  } catch (thrown) {
    throw new InvalidArgumentError(`Not a folder that can be made: ${messageOf(thrown)}`)
  }
}

const say = (text: string): void => void process.stdout.write(`${text}\n`)
const complain = (text: string): void => void process.stderr.write(`${text}\n`)
const messageOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.message : String(thrown))
const minutes = (value: number): number => value * 60_000

/** One run, bounded in time; whatever it started is gone afterwards. */
const runOne = async (scenario: Scenario, given: Given): Promise<Outcome> => {
  const { json = false, out: _, profile, ...rest } = given
  if (profile !== undefined) profileInto(profile)
  const flags = flagsOf(scenario, rest)
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

const runAndTell = async (scenario: Scenario, given: Given): Promise<void> => {
  const { json = false, out } = given
  const outcome = await runOne(scenario, given)
  if (!json) for (const line of judge(outcome)) complain(line)
  say(JSON.stringify(outcome.result))
  if (out === undefined) return
  const page = writeReport(out, [outcome])
  if (!json) complain(`report: ${page}`)
}

/** Of a scenario that had a process of its own. */
type Ended =
  | { readonly kind: 'ran'; readonly scenario: Scenario; readonly result: Result }
  | { readonly kind: 'failed'; readonly scenario: Scenario; readonly because: string }

let child: ChildProcess | undefined
/** A signal came: no further scenario starts. */
let isEnding = false

/** Its standard error is ours; its last line on standard output is the result. */
const runApart = async (scenario: Scenario, given: Given): Promise<Ended> => {
  const { json = false, tiny = false, peers = false, out, profile } = given
  const args = [
    ...(json ? ['--json'] : []),
    ...(tiny ? ['--tiny'] : []),
    ...(peers && scenario.switches?.includes('peers') === true ? ['--peers'] : []),
    ...(out === undefined ? [] : ['--out', out]),
    ...(profile === undefined ? [] : ['--profile', profile]),
  ]
  const started = spawn(
    process.execPath,
    [...process.execArgv, process.argv[1] ?? '', scenario.name, ...args],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  child = started
  let text = ''
  started.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  const [code, signal] = (await once(started, 'close')) as [number | null, string | null]
  child = undefined
  if (code !== 0) return { kind: 'failed', scenario, because: `ended with ${code ?? signal}` }
  return { kind: 'ran', scenario, result: JSON.parse(text.trim().split('\n').at(-1) ?? '') as Result }
}

const runAll = async (given: Given): Promise<boolean> => {
  const { json = false } = given
  const all: Ended[] = []
  for (const scenario of scenarios) {
    if (isEnding) return false
    const ended = await runApart(scenario, given).catch(
      (thrown: unknown): Ended => ({ kind: 'failed', scenario, because: messageOf(thrown) }),
    )
    all.push(ended)
    const { name } = scenario
    say(
      JSON.stringify(
        ended.kind === 'ran'
          ? { scenario: name, ...ended.result }
          : { scenario: name, failed: ended.because },
      ),
    )
  }
  if (!json) complain(tableOf(all, given))
  return all.every(({ kind }) => kind === 'ran')
}

const tableOf = (all: readonly Ended[], { tiny = false, peers = false }: Given): string => {
  const table = new Table({
    head: ['scenario', 'field', 'found', 'wanted', 'reached'],
    colAligns: ['left', 'left', 'right', 'left', 'left'],
    style: process.stderr.isTTY === true ? {} : { head: [], border: [] },
  })
  for (const ended of all) {
    const { name } = ended.scenario
    if (ended.kind === 'failed') {
      table.push([name, '', '', '', `✗ failed: ${ended.because}`])
      continue
    }
    const flags = flagsOf(ended.scenario, { tiny, peers })
    const found = verdicts({ scenario: name, flags, result: ended.result })
    if (found.length === 0) table.push([name, '', '', tiny ? 'tiny: nothing' : 'nothing', 'ran'])
    for (const each of found)
      table.push([name, each.field, each.found, each.wanted, each.reached ? '✓' : '✗ not reached'])
  }
  return table.toString()
}

const command = new Command('bench')
  .description(
    'Real processes with their default configuration, real sockets, mutual TLS; generators are raw sockets.',
  )
  .showSuggestionAfterError(false)
const common = (each: Command): Command =>
  each
    .showSuggestionAfterError(false)
    .allowExcessArguments(false)
    .option('--json', 'nothing but the result')
    .option('--out <dir>', 'write results.jsonl and report.html there', folder)
    .option('--profile <dir>', 'CPU profiles of edge and cloud into this folder', folder)
    .option('--tiny', 'as small as the tests run it')

let ran = true
command
  .command('list')
  .description('all scenarios')
  .action(() => {
    for (const { name, says } of scenarios) say(`${name.padEnd(10)} ${says}`)
  })

common(command.command('all').description('every scenario, one after the other, and a table of the targets'))
  .option(...SWITCHES.peers)
  .action(async (given: Given) => {
    ran = await runAll(given)
  })

for (const scenario of scenarios) {
  const { name, says, records, gateways, switches = [] } = scenario
  const each = common(command.command(name).description(says))
  if (records !== undefined) each.option('--records <count>', `records (${records.byDefault})`, count)
  if (gateways !== undefined) each.option('--gateways <count>', `gateways (${gateways.byDefault})`, count)
  for (const flag of switches) each.option(...SWITCHES[flag])
  each.action((given: Given) => runAndTell(scenario, given))
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    isEnding = true
    const gone = child === undefined ? Promise.resolve() : once(child, 'close').then(() => undefined)
    child?.kill('SIGTERM')
    void Promise.all([gone, endAll()]).finally(() => process.exit(130))
  })
}
// What nobody waited for, in a timer or a socket: without this the programs would outlive the harness.
process.once('uncaughtException', thrown => {
  complain(`bench: ${thrown.stack ?? thrown.message}`)
  void endAll().finally(() => process.exit(1))
})
try {
  await command.parseAsync()
} catch (thrown) {
  ran = false
  complain(`bench: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)}`)
}
// A scenario that was ended in the middle may have left sockets open.
process.exit(ran ? 0 : 1)
