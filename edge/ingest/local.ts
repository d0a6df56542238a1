// The embedded local broker: devices publish here, and get PUBACK or PUBREC when their message is in the log.

import { filter, map, merge, of, Subject, switchMap, takeUntil } from 'rxjs'
import { RECORD_BYTES_MAX } from '../../schemas/frame.ts'
import { isAgentLocal } from '../../schemas/topics.ts'
import type { BrokerRules, Peer, Received, Verdict } from '../../streams/mqtt/broker.ts'
import { openBroker } from '../../streams/mqtt/embedded.ts'
import { fault } from '../../streams/run/fault.ts'
import type { Concern, Notice } from '../../streams/run/supervise.ts'
import type { EdgeContext } from '../context.ts'
import { openHeldIds } from './held.ts'
import { type Intakes, openIntakes } from './intakes.ts'

export const localBroker: Concern<EdgeContext> = {
  name: 'ingest',
  run: ({ settings, clock, random, streams, stop$ }) => {
    const intakes = openIntakes({
      streams,
      clock,
      routes: settings.routes,
      sealWaitMsMax: settings.seal.waitMsMax,
    })
    const refused$ = new Subject<Notice>()
    const { host, port, connectionsMax } = settings.local
    const broker = openBroker({
      listeners: [{ kind: 'plain', host, port, configKey: 'local.port' }],
      rules: localRules(intakes, openHeldIds(streams), refused$),
      clock,
      random,
      limits: { connectionsMax },
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
    return merge(intakes.run$, refused$, states$).pipe(
      takeUntil(stop$.pipe(switchMap(() => intakes.close()))),
    )
  },
}

const allow: Verdict = { kind: 'allow' }

const localRules = (
  intakes: Intakes,
  held: ReturnType<typeof openHeldIds>,
  refused$: Subject<Notice>,
): BrokerRules => {
  // Clients that were sent away because the log was full: they are let in when there is room again.
  const turnedAway = new Set<string>()
  const take = (
    { peer, topic, payload, qos, retain, messageId }: Received,
    done: (error?: Error) => void,
  ): void => {
    const bytes = payload.length + topic.length
    if (bytes > RECORD_BYTES_MAX) {
      const tooLarge = fault('record_too_large', { bytes, bytesMax: RECORD_BYTES_MAX })
      refused$.next({ kind: 'rejected', what: 'record', reason: `${peer.clientId}: ${tooLarge.message}` })
      return done(tooLarge)
    }
    const isHeld = qos === 2 && messageId !== undefined
    intakes.take(
      { topic, payload, qos, retain },
      isHeld ? [held.write(peer.clientId, messageId)] : undefined,
      error => {
        if (error !== undefined) turnedAway.add(peer.clientId)
        else if (isHeld) held.noteHeld(peer.clientId, messageId)
        done(error)
      },
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
    isHeldQos2: ({ clientId }, messageId) => held.has(clientId, messageId),
    releaseQos2: ({ clientId }, messageId) => held.release(clientId, messageId),
    discardQos2: ({ clientId }) => held.discard(clientId),
  }
}
