// What Headgate has to reach, on two cores. A ratio decides; an absolute figure says how far this machine is from it.

import type { Outcome } from './harness/report.ts'

export interface Target {
  readonly scenario: string
  /** A field of the result; a dot leads into an object. */
  readonly field: string
  readonly is: 'atLeast' | 'atMost'
  readonly value: number
  /** Wanted, not required. */
  readonly stretch?: number
  /** The run that it is meant for; without: any. */
  readonly of?: (outcome: Pick<Outcome, 'flags' | 'result'>) => boolean
}

type Of = NonNullable<Target['of']>
const withProjections: Of = ({ flags }) => flags.projections
const withoutProjections: Of = ({ flags }) => !flags.projections
const gateways =
  (count: number): Of =>
  ({ result }) =>
    result['gateways'] === count
const resumed: Of = ({ flags, result }) => gateways(1_000)({ flags, result }) && !flags.full
const full: Of = ({ flags, result }) => gateways(1_000)({ flags, result }) && flags.full

const GB = 1e9
const MB = 1e6

const targets: readonly Target[] = [
  { scenario: 'append', field: 'perSecond', is: 'atLeast', value: 1_500_000 },
  { scenario: 'accept', field: 'perSecond', is: 'atLeast', value: 60_000, stretch: 100_000 },
  { scenario: 'accept', field: 'ratios.mosquitto', is: 'atLeast', value: 0.8, stretch: 1 },
  { scenario: 'drain', field: 'drainPerSecond', is: 'atLeast', value: 400_000, of: withProjections },
  {
    scenario: 'drain',
    field: 'drainPerSecond',
    is: 'atLeast',
    value: 700_000,
    stretch: 1_000_000,
    of: withoutProjections,
  },
  { scenario: 'drain', field: 'ratios.mosquitto', is: 'atLeast', value: 10 },
  { scenario: 'drain', field: 'ratios.nats', is: 'atLeast', value: 3.5, stretch: 4 },
  { scenario: 'drain', field: 'viewsCaughtUpMs', is: 'atMost', value: 3_000 },
  { scenario: 'drain', field: 'firstAfterRestoreP50Ms', is: 'atMost', value: 500 },
  { scenario: 'drain', field: 'uplinkBytesPerRecord', is: 'atMost', value: 25 },
  { scenario: 'drain', field: 'edgeDiskBytesPerRecord', is: 'atMost', value: 30 },
  { scenario: 'storm', field: 'totalMs', is: 'atMost', value: 4_000, of: resumed },
  { scenario: 'storm', field: 'totalMs', is: 'atMost', value: 6_000, of: full },
  { scenario: 'storm', field: 'totalMs', is: 'atMost', value: 16_000, of: gateways(3_000) },
  { scenario: 'storm', field: 'loopDelayP99Ms', is: 'atMost', value: 60 },
  { scenario: 'storm', field: 'liveP99Ms', is: 'atMost', value: 500 },
  { scenario: 'storm', field: 'cloudRssMb', is: 'atMost', value: 350 },
  { scenario: 'connect', field: 'fullMs', is: 'atMost', value: 3_300, of: gateways(1_000) },
  { scenario: 'connect', field: 'resumedMs', is: 'atMost', value: 1_800, of: gateways(1_000) },
  { scenario: 'connect', field: 'ratios.full', is: 'atLeast', value: 0.85 },
  { scenario: 'connect', field: 'ratios.resumed', is: 'atLeast', value: 0.85 },
  { scenario: 'connect', field: 'goodClientMs', is: 'atMost', value: 1_000 },
  { scenario: 'thin', field: 'linkUsedRatio', is: 'atLeast', value: 0.9 },
  { scenario: 'thin', field: 'interactiveP95Ms', is: 'atMost', value: 400 },
  { scenario: 'backlog', field: 'rssGrowthMb', is: 'atMost', value: 20 },
  { scenario: 'backlog', field: 'acceptAfterStartMs', is: 'atMost', value: 1_000 },
  { scenario: 'trickle', field: 'idleWireBytesPerDay', is: 'atMost', value: 3 * MB },
  { scenario: 'trickle', field: 'flashBytesPerDayQos0', is: 'atMost', value: GB },
  { scenario: 'outage', field: 'synsPerMinuteAfterFirstMinutes', is: 'atMost', value: 1 },
  ...['drain', 'storm'].flatMap(scenario =>
    ['lost', 'duplicated', 'disordered'].map(field => ({ scenario, field, is: 'atMost', value: 0 }) as const),
  ),
]

export interface Verdict {
  readonly field: string
  readonly found: number
  readonly wanted: string
  readonly reached: boolean
}

/** Of the targets that this outcome can speak of. */
export const verdicts = (outcome: Pick<Outcome, 'scenario' | 'flags' | 'result'>): Verdict[] =>
  targets.flatMap(({ scenario, field, is, value, stretch, of }) => {
    const found = fieldOf(outcome.result, field)
    if (outcome.flags.tiny || scenario !== outcome.scenario || found === undefined) return []
    if (of !== undefined && !of(outcome)) return []
    const sign = is === 'atLeast' ? '≥' : '≤'
    const wanted = `${sign} ${value}${stretch === undefined ? '' : ` (stretch ${stretch})`}`
    return [{ field, found, wanted, reached: is === 'atLeast' ? found >= value : found <= value }]
  })

export const judge = (outcome: Outcome): string[] =>
  verdicts(outcome).map(
    ({ field, found, wanted, reached }) =>
      `${reached ? '✓' : '✗ not reached:'} ${field} ${found}, wanted ${wanted}`,
  )

const fieldOf = (result: object, path: string): number | undefined => {
  let at: unknown = result
  for (const key of path.split('.')) {
    at =
      typeof at === 'object' && at !== null
        ? Object.entries(at).find(([name]) => name === key)?.[1]
        : undefined
  }
  return typeof at === 'number' ? at : undefined
}
