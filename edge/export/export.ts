// The gateway's log to the cloud's: hello, marks, frames; from the start again on every connection.

import {
  catchError,
  concat,
  concatMap,
  defer,
  EMPTY,
  filter,
  first,
  from,
  ignoreElements,
  map,
  merge,
  mergeMap,
  NEVER,
  type Observable,
  of,
  repeat,
  Subject,
  share,
  switchMap,
  takeUntil,
  tap,
  throwError,
  timeout,
  timer,
} from 'rxjs'
import { readHeader, sealSkip } from '../../schemas/frame.ts'
import { encodeHello, type Hello, type Mark, PROTOCOL_VERSION, parseMark } from '../../schemas/hello.ts'
import type { GatewayId, StreamName } from '../../schemas/ids.ts'
import { down, up } from '../../schemas/topics.ts'
import type { Entry, Position, StreamLog } from '../../streams/log/log.ts'
import type { Link } from '../../streams/mqtt/link.ts'
import { type Clock, type Random, stampOf } from '../../streams/run/clock.ts'
import { fault, isFatal, reasonOf } from '../../streams/run/fault.ts'
import { openPace, type Pace } from './pace.ts'
import { reconcile } from './reconcile.ts'
import { TRIM_LIMITS, type TrimLimits, trimming } from './trim.ts'
import { type UplinkStream, uplink } from './uplink.ts'

export interface ExportOptions {
  readonly gateway: GatewayId
  readonly version: string
  readonly link: Link
  readonly clock: Clock
  readonly random: Random
  /** Highest priority first. */
  readonly streams: readonly StreamLog[]
  readonly trim?: TrimLimits
}

export type ExportNotice =
  | { readonly kind: 'greeted'; readonly connection: string }
  | {
      readonly kind: 'marked'
      readonly stream: StreamName
      readonly at: Position
      readonly bytes: number
      readonly rate: number
    }
  | { readonly kind: 'declared'; readonly stream: StreamName; readonly first: number; readonly last: number }
  | { readonly kind: 'forked'; readonly stream: StreamName; readonly because: string; readonly epoch: string }
  | { readonly kind: 'mark_refused'; readonly stream: StreamName; readonly because: string }
  | { readonly kind: 'interrupted'; readonly because: string }
  | { readonly kind: 'trim_failed'; readonly because: string }

/** No answer to a hello, or no mark with data in flight, for so long: say hello again. */
const PROGRESS_MS_MAX = 10_000
/** The edge goes back at most once in this time, which is above any round trip that works. */
const HELLO_MS_MIN = 1_000
const REFUSED_AGAIN_MS = 60_000

export const exportLog = (options: ExportOptions): Observable<ExportNotice> =>
  defer(() => {
    const { gateway, link, clock, streams, trim = TRIM_LIMITS } = options
    const marks$ = new Subject<Mark>()
    const who$ = new Subject<void>()
    // Subscribed beside the connections, so that the broker knows the filters before the link calls itself up.
    const downlink$ = merge(
      link.messages(down.mark(gateway)).pipe(
        mergeMap(({ payload }) => {
          const mark = parseMark(payload)
          if (!mark.ok)
            return of({ kind: 'interrupted', because: `malformed mark: ${mark.because}` } as const)
          marks$.next(mark.value)
          return EMPTY
        }),
      ),
      merge(link.messages(down.who(gateway)), link.messages(down.whoAll())).pipe(
        tap(() => who$.next()),
        ignoreElements(),
      ),
    )
    const sessions$ = link.state$.pipe(
      switchMap(state => (state.kind === 'up' ? sessions(options, marks$, who$) : EMPTY)),
      share(),
    )
    const trims = streams.map(log => trimming(log, markedBytes$(sessions$, log), clock, trim))
    // The sessions last: they start with their first subscriber, and whoever came later would miss what they say.
    return merge(downlink$, ...trims, sessions$)
  })

const markedBytes$ = (notices$: Observable<ExportNotice>, { name }: StreamLog): Observable<number> =>
  notices$.pipe(
    mergeMap(notice => (notice.kind === 'marked' && notice.stream === name ? [notice.bytes] : [])),
  )

/** One after another on the same connection, until it ends. */
const sessions = (
  options: ExportOptions,
  marks$: Observable<Mark>,
  who$: Observable<void>,
): Observable<ExportNotice> => {
  const pause$ = (): Observable<unknown> => timer(HELLO_MS_MIN, options.clock.scheduler)
  // The pace outlives a session: the way to the cloud is the same.
  const pace = openPace()
  return session(options, pace, marks$).pipe(
    takeUntil(who$),
    catchError((thrown: unknown) => {
      if (isFatal(thrown)) return throwError(() => thrown)
      return of({ kind: 'interrupted', because: reasonOf(thrown) } as const)
    }),
    repeat({ delay: pause$ }),
  )
}

const session = (options: ExportOptions, pace: Pace, marks$: Observable<Mark>): Observable<ExportNotice> =>
  defer(() => {
    const unfinished = options.streams.filter(log => log.state().forking)
    const connection = options.random.bytes(8).toString('hex')
    return concat(
      from(unfinished).pipe(concatMap(log => log.fork().pipe(ignoreElements()))),
      // Deferred: what the hello says is read when the forks are finished.
      defer(() => greet(options, connection, marks$)).pipe(
        concatMap(mark =>
          concat(of({ kind: 'greeted', connection } as const), answered(options, pace, mark, marks$)),
        ),
      ),
    )
  })

/** Says hello and waits for the answer to it. Errors: link_lost. */
const greet = (
  { gateway, version, link, clock, streams }: ExportOptions,
  connection: string,
  marks$: Observable<Mark>,
): Observable<Mark> => {
  const hello: Hello = {
    protocol: PROTOCOL_VERSION,
    version,
    connection,
    bootId: clock.bootId,
    clock: { wallMs: Math.max(0, Math.round(clock.nowMs())), quality: clock.quality() },
    streams: streams.map(log => {
      const { name, epoch, origin, parent, tail, head, bytes } = log.state()
      const mark = log.marked()
      const waitingBytes = Math.ceil(bytes * ((head - mark.offset) / Math.max(1, head - tail + 1)))
      return {
        name,
        epoch,
        origin,
        ...(parent === undefined ? {} : { parent }),
        tail,
        head,
        mark,
        waitingBytes,
      }
    }),
  }
  const sent$ = link.publish({ topic: up.hello(gateway), payload: encodeHello(hello), qos: 1, lane: 'live' })
  return merge(marks$.pipe(filter(mark => mark.answers === connection)), sent$).pipe(
    first(),
    timeout({
      each: PROGRESS_MS_MAX,
      scheduler: clock.scheduler,
      with: () =>
        throwError(() => fault('link_lost', { address: 'the cloud', because: 'no answer to the hello' })),
    }),
  )
}

const answered = (
  options: ExportOptions,
  pace: Pace,
  mark: Mark,
  marks$: Observable<Mark>,
): Observable<ExportNotice> =>
  defer(() => {
    const notices: ExportNotice[] = []
    const ready: UplinkStream[] = []
    const forks: Observable<ExportNotice>[] = []
    for (const log of options.streams) {
      const stream = log.name
      const theirs = mark.streams.find(({ name }) => name === stream)
      const found =
        theirs === undefined
          ? ({ kind: 'refuse', because: 'the answer does not name it' } as const)
          : reconcile(log.state(), offset => log.chainAt(offset), theirs)
      switch (found.kind) {
        case 'resume':
          log.noteMark(found.after)
          ready.push({ log, start: found.after, after: found.after, declared: undefined })
          break
        case 'declare': {
          const declared = declare(options, log, found.first, found.through)
          notices.push({ kind: 'declared', stream, first: found.first, last: found.through.offset })
          const start = {
            offset: (found.first - 1) as Position['offset'],
            chain: theirs?.chain ?? found.through.chain,
          }
          ready.push({ log, start, after: found.through, declared })
          break
        }
        case 'fork':
          forks.push(
            log
              .fork()
              .pipe(map(({ epoch }) => ({ kind: 'forked', stream, because: found.because, epoch }) as const)),
          )
          break
        case 'refuse':
          notices.push({ kind: 'mark_refused', stream, because: found.because })
      }
    }
    // A fork changes what the hello said: it is said again, with nothing sent before.
    if (forks.length > 0) return concat(...forks)
    const again$ = ready.length < options.streams.length ? refusedAgain(options) : NEVER
    return concat(from(notices), merge(send(options, pace, ready, mark, marks$), again$))
  })

/** A stream that was left out is tried again with another hello: what was in its way may have passed. */
const refusedAgain = ({ clock }: ExportOptions): Observable<never> =>
  timer(REFUSED_AGAIN_MS, clock.scheduler).pipe(
    mergeMap(() =>
      throwError(() => fault('link_lost', { address: 'the cloud', because: 'a stream was refused' })),
    ),
  )

const declare = (
  { clock }: ExportOptions,
  log: StreamLog,
  first: Position['offset'],
  through: Position,
): Entry => {
  const { name: stream, epoch } = log.state()
  const count = through.offset - first + 1
  const bytes = sealSkip(
    { stream, epoch, first, count, cause: 'trimmed_after_mark', chain: through.chain },
    stampOf(clock),
  )
  return { header: readHeader(bytes), bytes }
}

const send = (
  options: ExportOptions,
  pace: Pace,
  streams: readonly UplinkStream[],
  { creditBytes }: Mark,
  marks$: Observable<Mark>,
): Observable<ExportNotice> => {
  const { gateway, link, clock } = options
  return uplink({
    gateway,
    link,
    clock,
    pace,
    streams,
    creditBytes,
    marks$,
    progressMsMax: PROGRESS_MS_MAX,
  }).pipe(
    map((notice): ExportNotice => {
      const stream = notice.log.name
      if (notice.kind === 'mark_refused') return { kind: 'mark_refused', stream, because: notice.because }
      notice.log.noteMark(notice.at)
      return { kind: 'marked', stream, at: notice.at, bytes: notice.bytes, rate: pace.rate() }
    }),
  )
}
