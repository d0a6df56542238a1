// The embedded broker: aedes 1.2.0 behind our listeners, asking the owner's rules at each step.
//
//   asked first   `connect` decides before an older connection with the same client id is touched
//   durable       PUBACK and PUBREC go out only after `take` called back; while it does not, the client is not read
//   once          a QoS 2 message is taken once, over restarts with the owner's hooks (qos2.ts)
//   one writer    what the owner sends, and what subscribers get, goes through each connection's lanes
//   bounded       connections, packets, topics, subscriptions, queues; a client that keeps offending is held off

import type { PublishPacket } from 'aedes'
import { catchError, concat, defer, ignoreElements, map, Observable, of, race, take, timer } from 'rxjs'
import type { Clock, Random } from '../run/clock.ts'
import { fault, isFatal, reasonOf } from '../run/fault.ts'
import type { Broker, BrokerRules, BrokerState, Held } from './broker.ts'
import { BROKER_LIMITS, type BrokerLimits } from './limits.ts'
import type { Outgoing } from './link.ts'
import type { Listener, ServerIdentity } from './listener.ts'
import type { OpenPersistence } from './persistence.ts'
import { type Running, runBroker } from './running.ts'
import type { SessionMemory } from './session.ts'

export interface BrokerOptions {
  readonly listeners: readonly Listener[]
  readonly rules: BrokerRules
  readonly clock: Clock
  readonly random: Random
  readonly limits?: Partial<BrokerLimits>
  /** What survives a restart for clients that are away; without it they are forgotten. */
  readonly memory?: SessionMemory
}

export interface EmbeddedBroker extends Broker {
  /** 48 new random bytes; tickets under the old ones lead to full handshakes. */
  rotateTickets(keys: Buffer): void
  /** New certificates of the TLS listeners, for new connections. */
  renew(identity: ServerIdentity): void
}

export const openBroker = (options: BrokerOptions): EmbeddedBroker => {
  const limits = { ...BROKER_LIMITS, ...options.limits }
  let running: Running | undefined

  const send = (clientId: string, message: Outgoing): Observable<never> =>
    new Observable(subscriber => {
      const entry = running?.connections.byClientId.get(clientId)
      if (entry === undefined) {
        subscriber.error(fault('link_down'))
        return undefined
      }
      return entry.downlink.send(message).subscribe(subscriber)
    })

  return {
    run$: new Observable<BrokerState>(subscriber => {
      const here = runBroker(options, limits, {
        emit: state => subscriber.next(state),
        fail: thrown => subscriber.error(thrown),
      })
      running = here
      return () => {
        here.stop()
        if (running === here) running = undefined
      }
    }),
    clients: () =>
      [...(running?.connections.byClientId.values() ?? [])].flatMap(({ peer }) =>
        peer === undefined ? [] : [peer],
      ),
    publish: ({ topic, payload, qos, retain = false }) =>
      new Observable<never>(subscriber => {
        const [aedes, sessions] = [running?.aedes(), running?.sessions]
        if (aedes === undefined || sessions === undefined) {
          subscriber.error(fault('link_down'))
          return
        }
        const packet: PublishPacket = { cmd: 'publish', topic, payload, qos, retain, dup: false }
        const lost = (thrown: unknown) =>
          subscriber.error(fault('link_lost', { address: 'the local broker', because: reasonOf(thrown) }))
        const route = () => aedes.publish(packet, thrown => (thrown ? lost(thrown) : subscriber.complete()))
        const plan = sessions.plan(packet, { topic, payload, qos }, retain)
        if (plan === undefined) return route()
        plan.save().then(
          () => {
            plan.keep()
            route()
          },
          thrown => {
            plan.cancel()
            lost(thrown)
          },
        )
      }),
    send,
    isAlive: (clientId, { topic, withinMs }) =>
      defer(() => {
        // Asked at every CONNECT: mostly there is none.
        if (running?.connections.byClientId.has(clientId) !== true) return of(false)
        const probe: Outgoing = { topic, payload: Buffer.alloc(0), qos: 1, lane: 'interactive' }
        return race(
          concat(send(clientId, probe).pipe(ignoreElements()), of(true)),
          timer(withinMs, options.clock.scheduler).pipe(map(() => false)),
        ).pipe(
          take(1),
          catchError(thrown => {
            if (isFatal(thrown)) throw thrown
            return of(false)
          }),
        )
      }),
    close: (clientId, because) => {
      const entry = running?.connections.byClientId.get(clientId)
      if (entry === undefined) return
      entry.because ??= because
      entry.client.close()
    },
    rotateTickets: keys => {
      for (const listener of running?.listeners ?? []) listener.rotateTickets(keys)
    },
    renew: identity => {
      for (const listener of running?.listeners ?? []) listener.renew(identity)
    },
    stats: () => {
      const entries = [...(running?.connections.live.values() ?? [])]
      return {
        connections: entries.length,
        received: 0,
        held: 0,
        refusedPublishes: 0,
        refusedSubscribes: 0,
        ...running?.counters,
        ...statsOf(running?.sessions, running?.counters.dropped ?? 0),
        duplicates: running?.duplicates() ?? 0,
        queuedBytes: entries.reduce((sum, { downlink }) => sum + downlink.queuedBytes(), 0),
        offendersHeldOff: running?.heldOff() ?? 0,
        admission: (running?.listeners ?? []).flatMap(listener => listener.admission?.stats() ?? []),
      }
    },
  }
}

const NONE: Held = { messages: 0, bytes: 0 }

const statsOf = (sessions: OpenPersistence | undefined, droppedInLanes: number) => {
  const droppedRetained = sessions?.droppedRetained() ?? 0
  const { droppedQueued, evictedSessions } = sessions?.kept.counters ?? {
    droppedQueued: 0,
    evictedSessions: 0,
  }
  return {
    dropped: droppedInLanes + droppedRetained + droppedQueued,
    retained: sessions?.retained.held() ?? NONE,
    droppedRetained,
    sessions: sessions?.kept.count() ?? 0,
    queued: sessions?.kept.queued() ?? NONE,
    droppedQueued,
    evictedSessions,
  }
}
