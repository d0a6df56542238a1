// The embedded local broker: devices publish here, and get PUBACK or PUBREC when their message is in the log.

import {
  defer,
  filter,
  from,
  interval,
  lastValueFrom,
  map,
  merge,
  mergeMap,
  type Observable,
  of,
  Subject,
  switchMap,
  takeUntil,
} from 'rxjs'
import { RECORD_BYTES_MAX } from '../../schemas/frame.ts'
import { isAgentLocal } from '../../schemas/topics.ts'
import type { Streams } from '../../streams/log/streams.ts'
import type { BrokerRules, Peer, Received, Verdict } from '../../streams/mqtt/broker.ts'
import { type EmbeddedBroker, openBroker } from '../../streams/mqtt/embedded.ts'
import { fault, reasonOf } from '../../streams/run/fault.ts'
import type { Concern, Notice } from '../../streams/run/supervise.ts'
import type { EdgeContext } from '../context.ts'
import { openHeldIds } from './held.ts'
import { type Intakes, openIntakes } from './intakes.ts'
import { openMemory, rowsOf } from './memory.ts'
import { openRoutes } from './routes.ts'

/** Counts are told this often, when there are any. */
const TELL_MS = 1_000
/** Client ids that are remembered while the log is full; one beyond is held again before it is sent away. */
const TURNED_AWAY_MAX = 10_000

export const localBroker: Concern<EdgeContext> = {
  name: 'ingest',
  run: ({ settings, clock, random, streams, stop$ }) => {
    const intakes = openIntakes({
      streams,
      clock,
      routes: settings.routes,
      sealWaitMsMax: settings.seal.waitMsMax,
      sealSpacingMs: settings.seal.spacingMs,
    })
    const refused$ = new Subject<Notice>()
    const { host, port, connectionsMax } = settings.local
    const streamOf = openRoutes(settings.routes)
    const broker = openBroker({
      listeners: [{ kind: 'plain', host, port, configKey: 'local.port' }],
      rules: localRules(
        intakes,
        openHeldIds(streams),
        streams.put,
        topic => streamOf(topic) !== undefined,
        refused$,
      ),
      clock,
      random,
      limits: { connectionsMax },
      memory: openMemory(streams),
    })
    const states$ = broker.run$.pipe(
      filter(state => state.kind === 'listening' || state.kind === 'refused'),
      map(
        (state): Notice =>
          state.kind === 'listening'
            ? { kind: 'state', what: 'listening', facts: { address: `${state.host}:${state.port}` } }
            : { kind: 'rejected', what: 'client', reason: `${state.address}: ${state.because}` },
      ),
    )
    // What was taken before the stop is still acknowledged.
    return merge(intakes.run$, refused$, states$, limits$(broker, clock)).pipe(
      takeUntil(stop$.pipe(switchMap(() => intakes.close()))),
    )
  },
}

/** How often limits of the broker's memory were reached since it was told last. */
const limits$ = (broker: EmbeddedBroker, { scheduler }: EdgeContext['clock']): Observable<Notice> =>
  defer(() => {
    const told = new Map<string, number>()
    return interval(TELL_MS, scheduler).pipe(
      mergeMap(() => {
        const { droppedRetained, droppedQueued, evictedSessions } = broker.stats()
        const counts = {
          dropped_retained: droppedRetained,
          dropped_queued: droppedQueued,
          evicted_session: evictedSessions,
        }
        const news = Object.entries(counts).map(([what, total]): Notice => {
          const count = total - (told.get(what) ?? 0)
          told.set(what, total)
          return { kind: 'limit', what, count }
        })
        return from(news)
      }),
      filter(notice => notice.kind !== 'limit' || notice.count > 0),
    )
  })

const allow: Verdict = { kind: 'allow' }

const localRules = (
  intakes: Intakes,
  held: ReturnType<typeof openHeldIds>,
  put: Streams['put'],
  isRouted: (topic: string) => boolean,
  refused$: Subject<Notice>,
): BrokerRules => {
  // Clients that were sent away because the log was full: they are let in when there is room again.
  const turnedAway = new Set<string>()
  const take = (
    { peer, topic, payload, qos, retain, messageId, isClean, changes }: Received,
    done: (error?: Error) => void,
  ): void => {
    const bytes = payload.length + topic.length
    if (bytes > RECORD_BYTES_MAX) {
      const tooLarge = fault('record_too_large', { bytes, bytesMax: RECORD_BYTES_MAX })
      refused$.next({ kind: 'rejected', what: 'record', reason: `${peer.clientId}: ${tooLarge.message}` })
      return done(tooLarge)
    }
    const isHeld = qos === 2 && messageId !== undefined && !isClean
    const message = { topic, payload, qos, retain }
    const settle = (error?: Error): void => {
      if (error !== undefined && turnedAway.size < TURNED_AWAY_MAX) turnedAway.add(peer.clientId)
      if (error === undefined && isHeld) held.noteHeld(peer.clientId, messageId)
      done(error)
    }
    if (changes === undefined && !isHeld) return intakes.take(message, undefined, settle)
    const rows = [...(isHeld ? [held.write(peer.clientId, messageId)] : []), ...rowsOf(changes ?? [])]
    if (isRouted(topic)) return intakes.take(message, rows, settle)
    // What no route takes has no record that its rows could go along with.
    lastValueFrom(put(rows, 'now'), { defaultValue: undefined }).then(
      () => intakes.take(message, undefined, settle),
      thrown => settle(thrown instanceof Error ? thrown : new Error(reasonOf(thrown))),
    )
  }
  return {
    connect: ({ clientId }: Peer) => {
      if (!intakes.isFull()) turnedAway.clear()
      return of(
        turnedAway.has(clientId)
          ? ({ kind: 'refuse', code: 'unavailable', because: 'the log is full' } as const)
          : allow,
      )
    },
    refusePublish: (_, topic) =>
      isAgentLocal(topic) ? 'only the agent publishes under commands/' : undefined,
    refuseSubscribe: () => undefined,
    take,
    routing: 'forward',
    takesChanges: true,
    isHeldQos2: ({ clientId }, messageId) => held.has(clientId, messageId),
    releaseQos2: ({ clientId }, messageId) => held.release(clientId, messageId),
    discardQos2: ({ clientId }) => held.discard(clientId),
  }
}
