// The harness itself: what it computes from samples, what it says of targets, what it writes, what it does with flags.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { difference, observe, quantileOf, readHistogram } from '../../bench/harness/observe.ts'
import { percentilesOf, ratesOf } from '../../bench/harness/plots.ts'
import { endAll, PROJECT, start } from '../../bench/harness/process.ts'
import { type Outcome, writeReport } from '../../bench/harness/report.ts'
import { type Flags, flagsOf, type Result, type Scenario } from '../../bench/scenario.ts'
import { judge, verdicts } from '../../bench/targets.ts'

test.after(endAll)

const scenario: Scenario = {
  name: 'storm',
  says: '',
  records: { byDefault: 1_000, tiny: 10 },
  gateways: { byDefault: 100, tiny: 2 },
  minutesMax: 1,
  run: async () => ({}),
}
const outcomeOf = (result: Result, given: Partial<Flags> = {}): Outcome => ({
  scenario: 'storm',
  at: '2026-01-02T03:04:05.678Z',
  flags: flagsOf(scenario, given),
  result,
  plots: [],
})

test('flags are the defaults of a scenario, or its tiny ones, under what is given', () => {
  const rest = { projections: true, peers: false, full: false }
  assert.equal(flagsOf(scenario), { records: 1_000, gateways: 100, tiny: false, ...rest })
  assert.equal(flagsOf(scenario, { tiny: true }), { records: 10, gateways: 2, tiny: true, ...rest })
  const given = flagsOf(scenario, { tiny: true, records: 7, projections: false })
  assert.equal(given, { ...rest, records: 7, gateways: 2, tiny: true, projections: false })
  const without: Scenario = { name: 'none', says: '', minutesMax: 1, run: async () => ({}) }
  assert.is(flagsOf(without, { tiny: true }).records, 0)
})

const PAGE = (counts: readonly number[]): string =>
  ['0.01', '0.1', '+Inf']
    .map((bound, index) => `delay_seconds_bucket{le="${bound}"} ${counts[index]}`)
    .concat('other_bucket{le="0.01"} 77', 'delay_seconds_count 12')
    .join('\n')

test('a histogram is read by its name, with its buckets in order and the last without a bound', () => {
  const histogram = readHistogram(PAGE([5, 10, 12]), 'delay_seconds')
  assert.equal(
    [...histogram],
    [
      [0.01, 5],
      [0.1, 10],
      [Number.POSITIVE_INFINITY, 12],
    ],
  )
})

test('the difference of two histograms holds what came between them', () => {
  const [before, now] = [
    [5, 10, 12],
    [5, 30, 32],
  ].map(counts => readHistogram(PAGE(counts), 'delay_seconds'))
  assert.ok(before !== undefined && now !== undefined)
  assert.equal([...difference(now, before).values()], [0, 20, 20])
  // Twenty, all between 10 and 100 ms: the median is in the middle of the bucket.
  assert.ok(Math.abs(quantileOf(difference(now, before), 0.5) - 0.055) < 1e-9)
  assert.ok(Math.abs(quantileOf(difference(now, before), 1) - 0.1) < 1e-9)
})

test('a quantile above the last bound is that bound, and of nothing it is zero', () => {
  assert.is(quantileOf(readHistogram(PAGE([0, 0, 8]), 'delay_seconds'), 0.99), 0.1)
  assert.is(quantileOf(new Map(), 0.99), 0)
  assert.is(quantileOf(readHistogram(PAGE([0, 0, 0]), 'delay_seconds'), 0.5), 0)
})

test('rates are differences over time; two samples of one moment make none', () => {
  const points = [
    [0, 0],
    [1, 100],
    [1, 150],
    [3, 350],
  ] as const
  assert.equal(ratesOf({ name: 'records', points }), {
    name: 'records',
    points: [
      [1, 100],
      [3, 100],
    ],
  })
  assert.equal(ratesOf({ name: 'none', points: [] }).points, [])
})

test('percentiles go from the lowest to the highest, whatever the order they came in', () => {
  const values = Array.from({ length: 1_000 }, (_, index) => (index * 7) % 1_000)
  const at = new Map(percentilesOf('latency', values).points)
  assert.is(at.get(0), 0)
  assert.is(at.get(50), 500)
  assert.is(at.get(99), 990)
  assert.is(at.get(99.9), 999)
  assert.is(at.get(100), 999)
})

test('a target is reached or missed by what was found, and the sentence says which', () => {
  const [good] = verdicts(outcomeOf({ loopDelayP99Ms: 60 }))
  assert.equal(good, { field: 'loopDelayP99Ms', found: 60, wanted: '≤ 60', reached: true })
  const missed = outcomeOf({ loopDelayP99Ms: 60.1, lost: 1 })
  assert.equal(
    verdicts(missed).map(({ field, reached }) => [field, reached]),
    [
      ['loopDelayP99Ms', false],
      ['lost', false],
    ],
  )
  assert.match(judge(missed)[0] ?? '', /^✗ not reached: loopDelayP99Ms 60\.1, wanted ≤ 60$/)
  assert.match(judge(outcomeOf({ lost: 0 }))[0] ?? '', /^✓ lost 0/)
})

test('a target speaks only of the runs that it is meant for', () => {
  assert.equal(verdicts(outcomeOf({ loopDelayP99Ms: 999 }, { tiny: true })), [])
  assert.equal(verdicts(outcomeOf({ gateways: 999, totalMs: 1e9 })), [])
  const wanted = (gateways: number, full: boolean): (string | undefined)[] =>
    verdicts(outcomeOf({ gateways, totalMs: 5_000 }, { full })).map(each => each.wanted)
  assert.equal(wanted(1_000, false), ['≤ 4000'])
  assert.equal(wanted(1_000, true), ['≤ 6000'])
  assert.equal(wanted(3_000, false), ['≤ 16000'])
  const drain = { ...outcomeOf({ ratios: { mosquitto: 9.5, nats: 'none' } }), scenario: 'drain' }
  assert.equal(
    verdicts(drain).map(({ field, reached }) => [field, reached]),
    [['ratios.mosquitto', false]],
  )
})

test('a report adds to what is there, and its page holds all of it and asks for nothing else', () => {
  const folder = mkdtempSync(join(tmpdir(), 'headgate-report-'))
  try {
    const awkward = '</script><script>alert(1)</script> <!-- $& $1'
    const plots = [
      { title: awkward, unit: 'ms', over: 'percent', lines: [percentilesOf('latency', [1, 2, 3])] },
    ] as const
    const first = { ...outcomeOf({ totalMs: 12_345, gateways: 1_000, durability: awkward }), plots }
    const page = writeReport(folder, [first])
    assert.is(writeReport(folder, [outcomeOf({ totalMs: 67_890 })]), page)
    const lines = readFileSync(join(folder, 'results.jsonl'), 'utf8').trimEnd().split('\n')
    assert.equal(
      lines.map(line => (JSON.parse(line) as Outcome).result['totalMs']),
      [12_345, 67_890],
    )
    const html = readFileSync(page, 'utf8')
    const [, data = ''] = /<script type="text\/plain" id="data">([\s\S]*?)<\/script>/.exec(html) ?? []
    const [one, two] = JSON.parse(data) as (Outcome & { verdicts: { reached: boolean }[] })[]
    assert.is(one?.result['durability'], awkward)
    assert.is(one?.plots[0]?.title, awkward)
    assert.equal(
      one?.verdicts.map(({ reached }) => reached),
      [false],
    )
    assert.is(two?.result['totalMs'], 67_890)
    assert.is(html.match(/<script/g)?.length, 3)
    assert.is(html.match(/<\/script/g)?.length, 3)
    assert.not.match(html, /\/\*\{/, 'a part was not put in')
    assert.match(html, /default-src 'none'/)
    // Addresses stand in comments (the library's own notice), and nowhere else.
    const outsideComments = html.replaceAll(/\/\*[\s\S]*?\*\//g, '')
    assert.not.match(outsideComments, /https?:\/\/|\/\/[a-z0-9-]+\.[a-z]|@import|url\(/i)
    assert.not.match(html, /<(link|img|iframe)\b|<script[^>]*\bsrc/)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

const sleeper = (script: string) => start({ command: process.execPath, args: ['-e', script] })

test('an observation tells the highest memory and the rate of what was done', async () => {
  const process_ = sleeper('setInterval(() => undefined, 1_000)')
  let done = 0
  const observation = observe({ processes: { sleeper: process_ }, done: () => (done += 10), everyMs: 5 })
  await new Promise(resolve => setTimeout(resolve, 60))
  const { rssMbMax, plots } = await observation.stop()
  assert.ok((rssMbMax['sleeper'] ?? 0) > 1, `${rssMbMax['sleeper']} MB`)
  assert.equal(
    plots.map(({ title }) => title),
    ['Memory', 'Throughput'],
  )
  assert.ok(plots[1]?.lines[0]?.points.every(([, rate]) => rate > 0))
  process_.kill('SIGKILL')
  await process_.ended
})

test('a program that dies while it is observed is named when the observation stops, and not before', async () => {
  const dying = sleeper('setTimeout(() => { process.stderr.write("out of luck"); process.exit(3) }, 80)')
  const observation = observe({ processes: { dying }, everyMs: 5 })
  const unhandled: unknown[] = []
  const note = (thrown: unknown): void => void unhandled.push(thrown)
  process.on('unhandledRejection', note)
  await dying.ended
  await new Promise(resolve => setTimeout(resolve, 100))
  process.off('unhandledRejection', note)
  assert.equal(unhandled, [])
  try {
    await observation.stop()
    assert.unreachable()
  } catch (thrown) {
    assert.instance(thrown, Error)
    assert.match(String(thrown), /dying \(process \d+\) ended with 3 while it was observed: out of luck/)
  }
})

test('what cannot be counted is thrown as it is when nothing died', async () => {
  const living = sleeper('setInterval(() => undefined, 1_000)')
  const observation = observe({
    processes: { living },
    done: () => {
      throw new Error('nobody counts')
    },
    everyMs: 5,
  })
  try {
    await observation.stop()
    assert.unreachable()
  } catch (thrown) {
    assert.match(String(thrown), /nobody counts/)
  }
  living.kill('SIGKILL')
  await living.ended
})

const bench = (...args: string[]) =>
  spawnSync(process.execPath, [join(PROJECT, 'dist/bench/main.js'), ...args], {
    encoding: 'utf8',
    timeout: 60_000,
  })

const NAMES = 'machine append accept drain storm connect live thin backlog trickle outage'.split(' ')

test('list names every scenario', () => {
  const { status, stdout } = bench('list')
  assert.is(status, 0)
  const listed = stdout
    .trimEnd()
    .split('\n')
    .map(line => line.split(' ')[0] ?? '')
  assert.equal(listed.toSorted(), NAMES.toSorted())
})

test('a flag that makes no sense gives one clear line, and exit code 1', () => {
  for (const [args, says] of [
    [['drain', '--records', 'many'], /argument 'many' is invalid\. A whole number from 1 on/],
    [['drain', '--records', '0'], /argument '0' is invalid/],
    [['storm', '--gateways', '1.5'], /argument '1\.5' is invalid/],
    [['append', '--gateways', '5'], /unknown option '--gateways'/],
    [['machine', '--out', join(PROJECT, 'package.json')], /argument '.*' is invalid\. Not a folder/],
    [['nothing'], /unknown command 'nothing'/],
    [['storm', 'now'], /too many arguments/],
  ] as const) {
    const { status, stdout, stderr } = bench(...args)
    assert.is(status, 1, args.join(' '))
    assert.is(stdout, '', args.join(' '))
    assert.match(stderr, says)
    assert.is(stderr.trimEnd().split('\n').length, 1, stderr)
  }
})

test('with --json there is one line in all, and --out leaves the report', () => {
  const folder = mkdtempSync(join(tmpdir(), 'headgate-report-'))
  try {
    const { status, stdout, stderr } = bench('machine', '--tiny', '--json', '--out', folder)
    assert.is(status, 0, stderr)
    assert.is(stderr, '')
    assert.is(stdout.split('\n').length, 2)
    const { plots, result } = JSON.parse(readFileSync(join(folder, 'results.jsonl'), 'utf8')) as Outcome
    assert.equal(JSON.parse(stdout), result)
    assert.is(plots.length, 2)
    assert.match(readFileSync(join(folder, 'report.html'), 'utf8'), /^<!doctype html>/)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test.run()
