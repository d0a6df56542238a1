// The gateways' broker as a concern: listens, and tells the others who came and went.

import { map, type Observable, takeUntil, tap } from 'rxjs'
import { gatewayId } from '../../schemas/ids.ts'
import type { BrokerState } from '../../streams/mqtt/broker.ts'
import { unreachable } from '../../streams/run/fault.ts'
import type { Concern, Notice } from '../../streams/run/supervise.ts'
import type { CloudContext, Uplink } from '../context.ts'

export const gatewayBroker: Concern<CloudContext> = {
  name: 'broker',
  run: ({ broker, uplink$, stop$ }): Observable<Notice> =>
    broker.run$.pipe(
      tap(state => {
        const told = uplinkOf(state)
        if (told !== undefined) uplink$.next(told)
      }),
      map(noticeOf),
      takeUntil(stop$),
    ),
}

const uplinkOf = (state: BrokerState): Uplink | undefined => {
  if (state.kind !== 'connected' && state.kind !== 'disconnected') return undefined
  const { clientId, connection, address } = state.peer
  const gateway = gatewayId(clientId)
  return state.kind === 'connected'
    ? { kind: 'connected', gateway, connection, address }
    : { kind: 'disconnected', gateway, connection, because: state.because }
}

const noticeOf = (state: BrokerState): Notice => {
  switch (state.kind) {
    case 'listening':
      return { kind: 'state', what: 'listening', facts: { address: `${state.host}:${state.port}` } }
    case 'connected':
      return {
        kind: 'progress',
        what: state.peer.certificate?.resumed ? 'connected_resumed' : 'connected',
        count: 1,
      }
    case 'disconnected':
      return { kind: 'progress', what: 'disconnected', count: 1 }
    case 'refused':
      return {
        kind: 'rejected',
        what: `connection_${state.code}`,
        reason: `${state.address}: ${state.because}`,
      }
    default:
      return unreachable(state)
  }
}
