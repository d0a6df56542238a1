// The machine's metrics as records for the `gateway` stream: one pack at once, then one every interval.
//
// A sample that takes longer than the interval makes the next one wait; it is never taken twice at a time.

import { defer, exhaustMap, filter, map, type Observable, timer } from 'rxjs'
import type { TakenRecord } from '../../schemas/records.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { type MetricSources, readMetrics } from './read.ts'
import type { Sample } from './sample.ts'
import { toSenml } from './senml.ts'

export const METRICS_TOPIC = 'gateway/metrics'

/** `[]` is no SenML: a machine that tells nothing publishes nothing. */
const EMPTY_PACK_BYTES = 2

export interface MetricsOptions {
  readonly clock: Clock
  readonly intervalMs: number
  readonly sources: MetricSources
}

/** Never errors; ends only by unsubscription. The first pack has no rates. */
export const metrics$ = ({ clock, intervalMs, sources }: MetricsOptions): Observable<TakenRecord> =>
  defer(() => {
    let previous: Sample | undefined
    const compared = (current: Sample): TakenRecord => {
      const payload = toSenml(previous, current)
      previous = current
      return { topic: METRICS_TOPIC, payload, qos: 0, retain: false, receivedMonoMs: clock.monoMs() }
    }
    return timer(0, intervalMs, clock.scheduler).pipe(
      exhaustMap(() => readMetrics(sources, clock)),
      map(compared),
      filter(({ payload }) => payload.length > EMPTY_PACK_BYTES),
    )
  })
