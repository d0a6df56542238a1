// A broker while it runs: aedes, its listeners and its connections, put together and taken apart again.

import type { Socket } from 'node:net'
import type { Aedes } from 'aedes'
import { reasonOf } from '../run/fault.ts'
import { type AedesClient, beforeRouting, consumeOnly, startAedes } from './aedes.ts'
import type { BrokerState, PeerCertificate, RefusalCode } from './broker.ts'
import { type Connections, openConnections } from './connections.ts'
import type { BrokerOptions } from './embedded.ts'
import { brokerHooks, type Counters, subscriptionGate } from './hooks.ts'
import type { BrokerLimits } from './limits.ts'
import { type OpenListener, openListener } from './listener.ts'
import { offenders } from './offenders.ts'
import { type OpenPersistence, openPersistence } from './persistence.ts'
import { qos2 } from './qos2.ts'
import { connectionReason } from './reasons.ts'

export interface Running {
  readonly connections: Connections
  readonly listeners: readonly OpenListener[]
  readonly aedes: () => Aedes | undefined
  readonly counters: Counters
  readonly sessions: OpenPersistence
  heldOff(): number
  duplicates(): number
  stop(): void
}

export interface RunHandlers {
  readonly emit: (state: BrokerState) => void
  readonly fail: (thrown: unknown) => void
}

export const runBroker = (
  { listeners, rules, clock, random, memory }: BrokerOptions,
  limits: BrokerLimits,
  { emit, fail }: RunHandlers,
): Running => {
  const counters: Counters = { received: 0, held: 0, refusedPublishes: 0, refusedSubscribes: 0, dropped: 0 }
  const exactlyOnce = qos2(rules)
  const offending = offenders(clock)
  const sessions = openPersistence({
    qos2: exactlyOnce,
    limits: limits.sessions,
    subscriptionsMax: limits.subscriptionsMax,
    memory,
    ownerOf: client => {
      const entry = connections.of(client)
      return entry?.peer === undefined ? undefined : { peer: entry.peer, isClean: entry.isClean }
    },
    acknowledged: (client, messageId) => connections.of(client)?.downlink.acknowledged(messageId) === true,
    maySubscribe: (client, filter) => maySubscribe(connections.of(client), filter),
    cut: (client, thrown) => {
      const entry = connections.of(client)
      if (entry !== undefined) connections.cut(entry, reasonOf(thrown))
    },
    fail,
  })
  const connections: Connections = openConnections({
    clock,
    random,
    limits,
    emit,
    left: ({ client, peer, isClean }) => {
      if (peer !== undefined) exactlyOnce.forget({ peer, isClean })
      sessions.left(client)
    },
  })
  const maySubscribe = subscriptionGate(rules, limits)
  const open: OpenListener[] = []
  let aedes: Aedes | undefined
  let isStopped = false

  const hooks = brokerHooks({ rules, limits, connections, exactlyOnce, sessions, offending, counters, fail })

  const started = (broker: Aedes) => {
    if (isStopped) {
      broker.close()
      return
    }
    aedes = broker
    sessions.restore()
    beforeRouting(broker, sessions.numbered)
    if (rules.routing === 'consume') consumeOnly(broker)
    const failed = (client: AedesClient, thrown: Error) => {
      const entry = connections.of(client)
      if (entry !== undefined) entry.because ??= connectionReason(thrown)
    }
    broker.on('clientError', failed)
    broker.on('connectionError', failed)
    broker.on('connackSent', ({ returnCode }, client) => {
      const entry = connections.of(client)
      if (returnCode !== 0 || entry?.peer === undefined) return
      connections.accepted(entry, entry.peer)
    })
    const handlers = {
      listening: (host: string, port: number) => emit({ kind: 'listening', host, port }),
      arrived: (socket: Socket, address: string, certificate: PeerCertificate | undefined) =>
        connections.arrived(broker, socket, address, certificate),
      refused: (address: string, because: string, code: RefusalCode) =>
        emit({ kind: 'refused', address, because, code }),
      failed: fail,
    }
    for (const listener of listeners) open.push(openListener(listener, clock, handlers, limits.admission))
  }
  startAedes(hooks, sessions.persistence).then(started).catch(fail)

  return {
    connections,
    listeners: open,
    aedes: () => aedes,
    counters,
    sessions,
    heldOff: offending.heldOff,
    duplicates: exactlyOnce.duplicates,
    stop: () => {
      isStopped = true
      for (const listener of open) listener.close()
      for (const entry of [...connections.live.values()]) connections.cut(entry, 'the broker stops')
      aedes?.close()
    },
  }
}
