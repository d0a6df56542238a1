// Watches programs while they work: memory, event-loop delay, and a count of work done, a few times a second.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Line, Plot } from './plots.ts'
import { ratesOf } from './plots.ts'
import type { Started } from './process.ts'

export interface Observed {
  /** RssAnon + RssShmem, MB, the highest seen. */
  readonly rssMbMax: Readonly<Record<string, number>>
  readonly plots: readonly Plot[]
}

export interface Observation {
  /** The time since the start of the observation. */
  elapsedMs(): number
  stop(): Promise<Observed>
}

export interface Observe {
  readonly processes: Readonly<Record<string, Started>>
  /** Records done so far. */
  readonly done?: () => number | Promise<number>
  /** Cumulative histogram of the event loop's delay, e.g. `loopDelayOf(url)`. */
  readonly loopDelay?: () => Promise<Histogram>
  readonly everyMs?: number
}

export const observe = ({ processes, done, loopDelay, everyMs = 200 }: Observe): Observation => {
  const startedMs = performance.now()
  const memory = Object.entries(processes).map(([name, started]) => ({
    name,
    started,
    points: [] as [number, number][],
  }))
  const work: [number, number][] = []
  const delays: [number, number][] = []
  let stopped = false
  let before: Histogram | undefined
  const sample = async (): Promise<void> => {
    const seconds = (performance.now() - startedMs) / 1_000
    for (const { started, points } of memory) points.push([seconds, started.rssMb()])
    if (done !== undefined) work.push([seconds, await done()])
    if (loopDelay !== undefined) {
      const now = await loopDelay()
      if (before !== undefined) delays.push([seconds, quantileOf(difference(now, before), 0.99) * 1_000])
      before = now
    }
  }
  const loop = async (): Promise<void> => {
    while (!stopped) {
      await sample()
      await sleep(everyMs)
    }
    await sample()
  }
  const running = loop()
  return {
    elapsedMs: () => performance.now() - startedMs,
    stop: async () => {
      stopped = true
      await running
      const lines: Line[] = memory.map(({ name, points }) => ({ name, points }))
      return {
        rssMbMax: Object.fromEntries(
          memory.map(({ name, points }) => [name, Math.max(...points.map(([, mb]) => mb))]),
        ),
        plots: [
          { title: 'Memory', unit: 'MB', over: 'seconds', lines },
          ...(work.length === 0
            ? []
            : [
                {
                  title: 'Throughput',
                  unit: 'records/s',
                  over: 'seconds',
                  lines: [ratesOf({ name: 'records', points: work })],
                } as const,
              ]),
          ...(delays.length === 0
            ? []
            : [
                {
                  title: 'Event-loop delay, p99 of each moment',
                  unit: 'ms',
                  over: 'seconds',
                  lines: [{ name: 'cloud', points: delays }],
                } as const,
              ]),
        ],
      }
    },
  }
}

/** Counts by upper bound in seconds, cumulative, as Prometheus has them. */
export type Histogram = ReadonlyMap<number, number>

/** `…_event_loop_delay_seconds` of a program's metrics page. */
export const readHistogram = (text: string, name: string): Histogram =>
  new Map(
    [...text.matchAll(new RegExp(`^${name}_bucket\\{le="([^"]+)"[^}]*\\} (\\d+)`, 'gm'))].map(
      ([, bound, count]) => [bound === '+Inf' ? Number.POSITIVE_INFINITY : Number(bound), Number(count)],
    ),
  )

export const difference = (now: Histogram, before: Histogram): Histogram =>
  new Map([...now].map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]))

/** By linear interpolation within a bucket, as Prometheus does; seconds. */
export const quantileOf = (histogram: Histogram, share: number): number => {
  const total = Math.max(0, ...histogram.values())
  const wanted = total * share
  let lower = 0
  let below = 0
  for (const [bound, count] of histogram) {
    if (count >= wanted) {
      if (!Number.isFinite(bound)) return lower
      return count === below ? bound : lower + ((bound - lower) * (wanted - below)) / (count - below)
    }
    lower = bound
    below = count
  }
  return lower
}
