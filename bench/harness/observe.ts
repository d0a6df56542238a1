// Watches programs while they work: memory, event-loop delay, and a count of work done, a few times a second.
//
// What goes wrong while nobody waits is kept until `stop`, which throws it: a program that dies is named, with what it
// said last. An observation that nobody stops ends by itself with the first program that does.

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
  /** Takes a last sample. Throws what kept it from watching to the end. */
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
  const running: Promise<Failure | undefined> = loop().then(
    () => undefined,
    async (thrown: unknown) => ({ thrown: (await causeAmong(processes)) ?? thrown }),
  )
  return {
    elapsedMs: () => performance.now() - startedMs,
    stop: async () => {
      stopped = true
      const failure = await running
      if (failure !== undefined) throw failure.thrown
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

interface Failure {
  readonly thrown: unknown
}

/** /proc forgets a process a moment before its last output is read. */
const ENDED_WITHIN_MS = 500
const SAID_CHARACTERS = 2_000

/** Of a sample that failed: the program that is not there any more, if there is one. */
const causeAmong = async (processes: Observe['processes']): Promise<Error | undefined> => {
  const causes = Object.entries(processes).map(async ([name, { pid, ended, said }]) => {
    const how = await Promise.race([
      ended.catch((thrown: unknown) => String(thrown)),
      sleep(ENDED_WITHIN_MS, undefined, { ref: false }),
    ])
    if (how === undefined) return undefined
    return new Error(
      `${name} (process ${pid}) ended with ${how} while it was observed: ${said().slice(-SAID_CHARACTERS)}`,
    )
  })
  return (await Promise.all(causes)).find(cause => cause !== undefined)
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

/** By linear interpolation within a bucket, as Prometheus does; seconds. 0 of nothing. */
export const quantileOf = (histogram: Histogram, share: number): number => {
  const total = Math.max(0, ...histogram.values())
  if (total === 0) return 0
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
