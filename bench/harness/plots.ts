// What a report draws: values over time, or latencies by percentile.

import { percentile } from '../scenario.ts'

export interface Plot {
  readonly title: string
  /** Of the values, e.g. "ms". */
  readonly unit: string
  /** What the horizontal axis is: seconds since the start of the measurement, or per cent. */
  readonly over: 'seconds' | 'percent'
  readonly lines: readonly Line[]
}
export interface Line {
  readonly name: string
  readonly points: readonly (readonly [x: number, y: number])[]
}

const PERCENTS = [0, 10, 25, 50, 75, 90, 95, 99, 99.9, 100]

/** Latencies, ms, as one line of percentiles. */
export const percentilesOf = (name: string, valuesMs: readonly number[]): Line => ({
  name,
  points: PERCENTS.map(percent => [percent, percentile(valuesMs, percent / 100)] as const),
})

/** From values that only grow, [seconds, value], to their rate a second. */
export const ratesOf = ({ name, points }: Line): Line => ({
  name,
  points: points.slice(1).flatMap(([x, y], index) => {
    const before = points[index]
    return before === undefined || x <= before[0] ? [] : [[x, (y - before[1]) / (x - before[0])] as const]
  }),
})
