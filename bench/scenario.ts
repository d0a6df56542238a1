// What a scenario is: a name, what it takes, and one run that tells how far it is and gives a result.

import type { Plot } from './harness/plots.ts'

/** Each is a flag of the command line; a scenario takes those that it names. */
export interface Flags {
  /** Of all gateways, or of each where there are many. */
  readonly records: number
  readonly gateways: number
  /** Without: the cloud keeps its log and no views. */
  readonly projections: boolean
  /** The rivals do the same job in the same run. */
  readonly peers: boolean
  /** Full TLS handshakes: no tickets. */
  readonly full: boolean
  /** Small enough for the tests. */
  readonly tiny: boolean
}

export type Switch = 'projections' | 'peers' | 'full'

export type Result = Readonly<Record<string, number | boolean | string | object>>

/** How a run tells what goes on. Nothing of it is part of the result but the plots. */
export interface Told {
  say(line: string): void
  /** `done` of `total`; a bar on a terminal. */
  progress(what: string, done: number, total: number): void
  plot(plot: Plot): void
}

export interface Scenario {
  readonly name: string
  readonly says: string
  /** What it takes, with defaults; `tiny`: for tests. */
  readonly records?: { readonly byDefault: number; readonly tiny: number }
  readonly gateways?: { readonly byDefault: number; readonly tiny: number }
  readonly switches?: readonly Switch[]
  /** A run that takes longer is ended, and all that it started with it. */
  readonly minutesMax: number
  run(flags: Flags, told: Told): Promise<Result>
}

/** The scenario's own defaults, or its tiny ones, under what is given. */
export const flagsOf = (scenario: Scenario, given: Partial<Flags> = {}): Flags => {
  const size = given.tiny === true ? 'tiny' : 'byDefault'
  return {
    records: scenario.records?.[size] ?? 0,
    gateways: scenario.gateways?.[size] ?? 0,
    projections: true,
    peers: false,
    full: false,
    tiny: false,
    ...given,
  }
}

/** `share` of 0…1. NaN of nothing. */
export const percentile = (values: readonly number[], share: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

export const rounded = (value: number, digits = 1): number => Number(value.toFixed(digits))
