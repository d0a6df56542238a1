// What a program's concerns tell, as log lines and as Prometheus metrics. One place for both, so that nothing is in
// one and not in the other.

import type { Logger } from 'pino'
import { Counter, Registry } from 'prom-client'
import { unreachable } from './fault.ts'
import type { Lifecycle, Notice } from './supervise.ts'

export interface Telemetry {
  readonly registry: Registry
  tell(life: Lifecycle): void
}

/** A line that says the same is logged at most this often; the counter counts each. */
const REPEAT_MS_MIN = 5_000
const REMEMBERED_MAX = 1_000

export interface TelemetryOptions {
  /** `edge` or `cloud`. */
  readonly program: string
  readonly log: Logger
  readonly monoMs: () => number
}

export const openTelemetry = ({ program, log, monoMs }: TelemetryOptions): Telemetry => {
  const registry = new Registry()
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[]): Counter<L> =>
    new Counter({
      name: `headgate_${program}_${name}`,
      help,
      labelNames: [...labelNames],
      registers: [registry],
    })
  const progress = counter('progress_total', 'Work done, by concern and kind', ['concern', 'what'])
  const rejected = counter('rejected_total', 'Items that could not be used', ['concern', 'what'])
  const limits = counter('limit_reached_total', 'Times that a named limit was reached', ['concern', 'limit'])
  const restarts = counter('restarts_total', 'Concerns restarted after a fault', ['concern'])

  const saidAtMs = new Map<string, number>()
  const mayRepeat = (line: string): boolean => {
    const nowMs = monoMs()
    if (nowMs - (saidAtMs.get(line) ?? Number.NEGATIVE_INFINITY) < REPEAT_MS_MIN) return false
    if (saidAtMs.size >= REMEMBERED_MAX) saidAtMs.clear()
    saidAtMs.set(line, nowMs)
    return true
  }

  const notice = (concern: string, told: Notice): void => {
    switch (told.kind) {
      case 'progress':
        progress.inc({ concern, what: told.what }, told.count)
        return
      case 'rejected':
        rejected.inc({ concern, what: told.what })
        if (mayRepeat(`${concern} ${told.what} ${told.reason}`))
          log.warn({ concern, what: told.what }, told.reason)
        return
      case 'limit':
        limits.inc({ concern, limit: told.what }, told.count)
        if (mayRepeat(`${concern} ${told.what}`))
          log.warn({ concern, limit: told.what, count: told.count }, 'limit reached')
        return
      case 'state':
        log.info({ concern, ...told.facts }, told.what)
        return
      default:
        unreachable(told)
    }
  }

  return {
    registry,
    tell: life => {
      const { concern } = life
      switch (life.kind) {
        case 'noticed':
          return notice(concern, life.notice)
        case 'restarting':
          restarts.inc({ concern })
          return log.warn({ concern, code: life.code, inMs: life.inMs }, life.because)
        case 'failed':
          return log.error({ concern, code: life.code }, life.because)
        case 'started':
        case 'stopped':
          return log.debug({ concern }, life.kind)
        case 'cut':
          return log.warn({ concern }, 'it did not end within the grace time')
        default:
          return unreachable(life)
      }
    },
  }
}
