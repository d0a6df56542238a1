// All intakes of a gateway: a message goes to the one of its stream; one without a route is acknowledged and counted.

import { bufferTime, defer, filter, map, merge, mergeMap, type Observable, Subject, take, timer } from 'rxjs'
import type { StreamName } from '../../schemas/ids.ts'
import type { TakenRecord } from '../../schemas/records.ts'
import type { Write } from '../../streams/log/store.ts'
import type { Streams } from '../../streams/log/streams.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { fault, unreachable } from '../../streams/run/fault.ts'
import type { Notice } from '../../streams/run/supervise.ts'
import { INTAKE_LIMITS, type Intake, type IntakeNotice, openIntake } from './intake.ts'
import { openRoutes, type Route } from './routes.ts'

export interface Intakes {
  /** Works while subscribed. */
  readonly run$: Observable<Notice>
  take(
    message: Omit<TakenRecord, 'receivedMonoMs'>,
    alongside: readonly Write[] | undefined,
    done: (error?: Error) => void,
  ): void
  /** Takes nothing more; emits when what was taken is durable. */
  close(): Observable<void>
  /** Some stream is full, and has been for longer than publishers are held. */
  isFull(): boolean
}

export interface IntakesOptions {
  readonly streams: Streams
  readonly clock: Clock
  readonly routes: readonly Route[]
  readonly sealWaitMsMax: number
  readonly sealSpacingMs: number
}

type Told = IntakeNotice | { readonly kind: 'unrouted'; readonly records: number }

/** Counts are told once a second, not once a message. */
const TELL_MS = 1_000
const IDLE_LOOK_MS = 10

/** Errors: stream_unknown, for a route to a stream that is not declared. */
export const openIntakes = ({ streams, clock, routes, ...seal }: IntakesOptions): Intakes => {
  for (const { stream } of routes) if (stream !== 'none') streams.stream(stream)
  const streamOf = openRoutes(routes)
  const limits = { ...INTAKE_LIMITS, sealWaitMsMax: seal.sealWaitMsMax, sealSpacingMs: seal.sealSpacingMs }
  const intakes = new Map<StreamName, Intake>(
    streams.all.map(log => [log.name, openIntake(log, clock, limits)]),
  )
  let closing = false
  const unrouted$ = new Subject<Told>()

  return {
    run$: merge(unrouted$, ...[...intakes.values()].map(intake => intake.notices$)).pipe(
      bufferTime(TELL_MS, clock.scheduler),
      filter(notices => notices.length > 0),
      mergeMap(summarise),
    ),
    take: (message, alongside, done) => {
      if (closing) return done(fault('log_closed'))
      const stream = streamOf(message.topic)
      const intake = stream === undefined ? undefined : intakes.get(stream)
      if (intake === undefined) {
        unrouted$.next({ kind: 'unrouted', records: 1 })
        return done()
      }
      const { topic, payload, qos, retain } = message
      intake.take({
        record: { topic, payload, qos, retain, receivedMonoMs: clock.monoMs() },
        alongside,
        done,
      })
    },
    close: () =>
      defer(() => {
        closing = true
        for (const intake of intakes.values()) intake.flush()
        return timer(0, IDLE_LOOK_MS, clock.scheduler).pipe(
          filter(() => [...intakes.values()].every(intake => intake.isIdle())),
          take(1),
          map(() => undefined),
        )
      }),
    isFull: () => [...intakes.values()].some(intake => intake.isFull()),
  }
}

const summarise = (told: readonly Told[]): Notice[] => {
  const counts = new Map<string, number>()
  const states: Notice[] = []
  for (const notice of told) {
    switch (notice.kind) {
      case 'sealed':
      case 'unrouted':
        counts.set(notice.kind, (counts.get(notice.kind) ?? 0) + notice.records)
        break
      case 'dropped': {
        const what = `dropped_${notice.because}`
        counts.set(what, (counts.get(what) ?? 0) + notice.records)
        break
      }
      case 'full':
        states.push({ kind: 'state', what: 'full', facts: { because: notice.because } })
        break
      case 'room':
        states.push({ kind: 'state', what: 'room', facts: {} })
        break
      default:
        unreachable(notice)
    }
  }
  const isLimit = (what: string): boolean => what.startsWith('dropped')
  return [
    ...states,
    ...[...counts].map(
      ([what, count]): Notice =>
        isLimit(what) ? { kind: 'limit', what, count } : { kind: 'progress', what, count },
    ),
  ]
}
