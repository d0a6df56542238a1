// Who may do what on the gateways' broker: the registry says whether, the topic says whose.

import {
  concatMap,
  defaultIfEmpty,
  defer,
  ignoreElements,
  map,
  type Observable,
  of,
  type Subject,
} from 'rxjs'
import type { CloudEvent } from '../../schemas/events.ts'
import { type GatewayId, gatewayId } from '../../schemas/ids.ts'
import type { GatewayRecord } from '../../schemas/registry.ts'
import { down, mayGatewayPublish, mayGatewaySubscribe, parseUp } from '../../schemas/topics.ts'
import type { BrokerRules, Peer, Received, Verdict } from '../../streams/mqtt/broker.ts'
import type { Clock } from '../../streams/run/clock.ts'
import type { Uplink } from '../context.ts'

export interface RulesPorts {
  readonly clock: Clock
  readonly uplink$: Subject<Uplink>
  /** The record under a certificate's common name, and whether it may connect. */
  readonly find: (commonName: string) => GatewayRecord | undefined
  readonly admit: (peer: Peer, record: GatewayRecord | undefined, nowMs: number) => Verdict
  /** A first connection makes a gateway active. */
  readonly activate: (id: GatewayId) => Observable<unknown>
  /** False at once when the client is not connected. */
  readonly isAlive: (
    clientId: string,
    probe: { readonly topic: string; readonly withinMs: number },
  ) => Observable<boolean>
  readonly record: (event: CloudEvent) => Observable<void>
}

/** How long the older of two connections with one certificate has to answer. */
const ALIVE_MS_MAX = 2_000

export const gatewayRules = (ports: RulesPorts): BrokerRules => {
  const { clock, uplink$, find, admit } = ports
  return {
    connect: peer =>
      defer(() => {
        const record = find(peer.certificate?.commonName ?? '')
        const verdict = admit(peer, record, clock.nowMs())
        if (verdict.kind === 'refuse' || record === undefined) return of(verdict)
        const verdict$ = contest(ports, peer, record.id)
        if (record.state !== 'enrolled') return verdict$
        return ports.activate(record.id).pipe(
          ignoreElements(),
          defaultIfEmpty(undefined),
          concatMap(() => verdict$),
        )
      }),
    refusePublish: ({ clientId }, topic) =>
      mayGatewayPublish(gatewayId(clientId), topic) ? undefined : `${clientId} may not publish to ${topic}`,
    refuseSubscribe: ({ clientId }, filter) =>
      mayGatewaySubscribe(gatewayId(clientId), filter)
        ? undefined
        : `${clientId} may not subscribe to ${filter}`,
    take: (received, done) => {
      forward(uplink$, received)
      // Never held: that would stop keystrokes and PINGREQ as well. What counts is the mark.
      done()
    },
    routing: 'consume',
  }
}

/** Two live connections with one certificate: the newer is refused while the older answers, and both are told of. */
const contest = ({ isAlive, record }: RulesPorts, peer: Peer, gateway: GatewayId): Observable<Verdict> =>
  isAlive(gateway, { topic: down.alive(gateway), withinMs: ALIVE_MS_MAX }).pipe(
    concatMap((alive): Observable<Verdict> => {
      if (!alive) return of({ kind: 'allow' })
      const refused: Verdict = {
        kind: 'refuse',
        code: 'unavailable',
        because: `another live connection uses the certificate of "${gateway}"`,
      }
      return record({
        kind: 'second_connection_refused',
        gateway,
        connection: peer.connection,
        address: peer.address,
      }).pipe(map(() => refused))
    }),
  )

const forward = (uplink$: Subject<Uplink>, { peer: { connection }, topic, payload }: Received): void => {
  const parsed = parseUp(topic)
  switch (parsed?.kind) {
    case 'hello':
      return uplink$.next({ kind: 'hello', gateway: parsed.gateway, connection, payload })
    case 'export':
      return uplink$.next({
        kind: 'export',
        gateway: parsed.gateway,
        connection,
        stream: parsed.stream,
        payload,
      })
    default:
      // Sessions are not opened by this version; a will is what the connection's end tells already.
      return undefined
  }
}
