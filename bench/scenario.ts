// What a scenario is, and what every result carries.

import { cpus, totalmem } from 'node:os'

export interface Flags {
  readonly records: number
  readonly projections: boolean
  /** Small enough for the tests. */
  readonly tiny: boolean
}

export type Result = Readonly<Record<string, number | boolean | string | object>>

export interface Scenario {
  readonly name: string
  readonly says: string
  readonly recordsByDefault: number
  run(flags: Flags, tell: (line: string) => void): Promise<Result>
}

export const machine = (): Result => ({
  cpu: cpus()[0]?.model ?? 'unknown',
  cores: cpus().length,
  memoryGb: Math.round(totalmem() / 2 ** 30),
  node: process.version,
})

export const percentile = (values: readonly number[], share: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

export const rounded = (value: number, digits = 1): number => Number(value.toFixed(digits))
