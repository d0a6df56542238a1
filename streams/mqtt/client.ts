// A link that keeps itself connected: attempts and waits in turn, subscriptions renewed at each connection, and
// every publish through the lanes of the one that is up.
//
//   shared    one connection, while `state$` has a subscriber
//   honest    `up` comes after the SUBACK of every wanted filter; what was not acknowledged fails with link_lost
//   patient   waits follow retry.ts; a local sign ends one early

import {
  BehaviorSubject,
  catchError,
  concat,
  defer,
  finalize,
  ignoreElements,
  merge,
  NEVER,
  Observable,
  of,
  race,
  repeat,
  type Subscriber,
  shareReplay,
  switchMap,
  take,
  tap,
  throwError,
  timer,
  filter as where$,
} from 'rxjs'
import { filterMatches } from '../../schemas/topics.ts'
import { fault, isFatal, reasonOf } from '../run/fault.ts'
import { type Connection, type ConnectionOptions, connectOnce } from './connection.ts'
import type { Incoming, Link, LinkState, Outgoing } from './link.ts'
import {
  RETRY_LIMITS,
  type RetryLimits,
  retryStart,
  retryWaitMs,
  signTried,
  signWaitMs,
  wentDown,
  wentUp,
} from './retry.ts'
import { LANE_LIMITS, type LaneLimits, type LaneStats, type Lanes, laneScheduler } from './scheduler.ts'
import { ticketHolder } from './secure.ts'

export interface LinkOptions extends ConnectionOptions {
  /** Carrier, route, address or resolver changed: worth one try at once. */
  readonly localSign$?: Observable<unknown>
  /** The other end's last hint; 1 without one. */
  readonly retryFactor?: () => number
  readonly retry?: Partial<RetryLimits>
  readonly lanes?: LaneLimits
}

export interface MqttLink extends Link {
  /** What waits for the socket of the current connection, and what a full lane refused. */
  stats(): LaneStats
}

interface Handed {
  readonly message: Outgoing
  readonly subscriber: Subscriber<never>
  isQueued: boolean
}

interface Live {
  readonly connection: Connection
  readonly lanes: Lanes<Handed>
}

/** Bytes of a PUBLISH beside topic and payload: fixed header, lengths, packet id. */
const PUBLISH_OVERHEAD_BYTES = 9

export const openLink = (options: LinkOptions): MqttLink => {
  const { address, clock, random, localSign$ = NEVER, retryFactor = () => 1 } = options
  const limits = { ...RETRY_LIMITS, ...options.retry }
  const where = `${address.host}:${address.port}`
  const tickets = ticketHolder()
  const wanted = new Map<string, Set<Subscriber<Incoming>>>()
  const idle = laneScheduler<Handed>({ write: () => undefined, writableLength: () => 0 }).stats
  let live: Live | undefined
  let subscribing: Connection | undefined

  const subscriptionRefused = (filter: string) =>
    fault('link_refused', { address: where, because: `subscription to ${filter} refused` })

  const dispatch = (message: Incoming) => {
    for (const [filter, subscribers] of wanted) {
      if (!filterMatches(filter, message.topic)) continue
      for (const subscriber of subscribers) subscriber.next(message)
    }
  }

  /** Emits the connection once the broker granted every filter that was wanted. */
  const subscribed = (connection: Connection): Observable<Connection> =>
    new Observable(subscriber => {
      subscribing = connection
      const filters = [...wanted.keys()]
      if (filters.length === 0) {
        subscriber.next(connection)
        return
      }
      connection.client.subscribe(filters, { qos: 1 }, (thrown, _, answer) => {
        const refused = filters[answer?.granted.indexOf(128) ?? -1]
        if (refused !== undefined) subscriber.error(subscriptionRefused(refused))
        else if (thrown) subscriber.error(fault('link_lost', { address: where, because: reasonOf(thrown) }))
        else subscriber.next(connection)
      })
    })

  const hand = (connection: Connection) => (handed: Handed) => {
    const { message, subscriber } = handed
    const { topic, payload, qos } = message
    handed.isQueued = false
    if (qos === 0) {
      connection.client.publish(topic, payload, { qos })
      subscriber.complete()
      return
    }
    connection.client.publish(topic, payload, { qos }, thrown => {
      if (thrown) subscriber.error(fault('link_lost', { address: where, because: reasonOf(thrown) }))
      else subscriber.complete()
    })
  }

  /** Holds `live` while subscribed: from `up` to the loss. */
  const carried = (connection: Connection): Observable<LinkState> =>
    new Observable<LinkState>(subscriber => {
      const { socket } = connection
      const lanes = laneScheduler<Handed>(
        { write: hand(connection), writableLength: () => socket.writableLength },
        options.lanes ?? LANE_LIMITS,
      )
      const here: Live = { connection, lanes }
      socket.on('drain', lanes.resume)
      live = here
      subscriber.next({ kind: 'up', connection: connection.id, resumed: connection.resumed })
      return () => {
        socket.off('drain', lanes.resume)
        if (live === here) live = undefined
        for (const { subscriber: waiting } of lanes.close())
          waiting.error(fault('link_lost', { address: where, because: 'it was not sent any more' }))
      }
    })

  const state$ = defer(() => {
    let retry = retryStart(clock.monoMs())
    let attempt = 0
    let waitMs = 0
    /** A sign came since the last try began. */
    const signed$ = new BehaviorSubject(false)

    const up$ = connectOnce(options, tickets, dispatch).pipe(
      switchMap(subscribed),
      tap(() => {
        retry = wentUp(retry, clock.monoMs())
        attempt = 0
      }),
      switchMap(carried),
      finalize(() => {
        subscribing = undefined
      }),
    )
    const goDown = (thrown: unknown): Observable<LinkState> => {
      if (isFatal(thrown)) return throwError(() => thrown)
      const nowMs = clock.monoMs()
      // A sign during a connection says nothing about the moment after its loss: else a cloud's restart would be met
      // by every gateway that ever saw one.
      if (retry.upSinceMs !== undefined) signed$.next(false)
      retry = wentDown(retry, nowMs, limits)
      waitMs = retryWaitMs(retry, { nowMs, unit: random.unit(), factor: retryFactor() }, limits)
      return of({ kind: 'down', because: reasonOf(thrown), retryInMs: Math.round(waitMs) })
    }
    const attempt$ = defer(() => {
      attempt += 1
      signed$.next(false)
      return concat(of<LinkState>({ kind: 'connecting', attempt }), up$)
    }).pipe(catchError(goDown))

    const signedTry$ = signed$.pipe(
      where$(signed => signed),
      switchMap(() => timer(signWaitMs(retry, clock.monoMs(), limits), clock.scheduler)),
      tap(() => {
        retry = signTried(retry, clock.monoMs())
      }),
    )
    const wait$ = defer(() => timer(waitMs, clock.scheduler))
    return merge(
      attempt$.pipe(repeat({ delay: () => race(wait$, signedTry$).pipe(take(1)) })),
      localSign$.pipe(
        tap(() => signed$.next(true)),
        ignoreElements(),
      ),
    )
  }).pipe(shareReplay({ bufferSize: 1, refCount: true }))

  return {
    state$,
    messages: filter =>
      new Observable<Incoming>(subscriber => {
        const subscribers = wanted.get(filter) ?? new Set()
        const first = subscribers.size === 0
        wanted.set(filter, subscribers.add(subscriber))
        const now = subscribing?.client
        if (first && now?.connected)
          now.subscribe(filter, { qos: 1 }, (_, __, answer) => {
            if (answer?.granted.includes(128) === true) subscriber.error(subscriptionRefused(filter))
          })
        return () => {
          subscribers.delete(subscriber)
          if (subscribers.size > 0) return
          wanted.delete(filter)
          const then = subscribing?.client
          if (then?.connected) then.unsubscribe(filter, () => undefined)
        }
      }),
    publish: message =>
      new Observable<never>(subscriber => {
        const here = live
        if (here === undefined) {
          subscriber.error(fault('link_down'))
          return undefined
        }
        const handed: Handed = { message, subscriber, isQueued: true }
        const bytes = message.topic.length + message.payload.length + PUBLISH_OVERHEAD_BYTES
        if (!here.lanes.offer(message.lane, bytes, handed))
          subscriber.error(fault('lane_full', { lane: message.lane, address: where }))
        return () => {
          if (handed.isQueued) here.lanes.withdraw(message.lane, handed)
        }
      }),
    stats: () => live?.lanes.stats() ?? idle(),
  }
}
