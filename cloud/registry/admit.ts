// Who may connect on 8883. Asked at every CONNECT, because a resumed handshake has verified nothing. Pure.

import type { GatewayRecord } from '../../schemas/registry.ts'
import type { Peer, Verdict } from '../../streams/mqtt/broker.ts'
import { unreachable } from '../../streams/run/fault.ts'

type Refusal = Extract<Verdict, { kind: 'refuse' }>
const refuse = (code: Refusal['code'], because: string): Refusal => ({ kind: 'refuse', code, because })

/** `gateway`: the record under the certificate's common name, if there is one. */
export const admit = (peer: Peer, gateway: GatewayRecord | undefined, nowMs: number): Verdict => {
  const { certificate } = peer
  if (certificate === undefined) return refuse('credentials', 'no client certificate')
  const { commonName, serial, notAfterMs } = certificate
  if (gateway === undefined || gateway.id !== commonName)
    return refuse('unauthorised', `no gateway is named "${commonName}"`)
  switch (gateway.state) {
    case 'suspended':
    case 'revoked':
      return refuse('unauthorised', `gateway "${gateway.id}" is ${gateway.state}`)
    case 'registered':
      return refuse('unauthorised', `gateway "${gateway.id}" has not enrolled`)
    case 'enrolled':
    case 'active':
      break
    default:
      return unreachable(gateway.state)
  }
  if (gateway.serial !== serial)
    return refuse(
      'credentials',
      `certificate ${serial} of "${gateway.id}" is not its current one, ${gateway.serial}`,
    )
  if (nowMs >= notAfterMs)
    return refuse(
      'credentials',
      `the certificate of "${gateway.id}" expired on ${new Date(notAfterMs).toISOString()}`,
    )
  if (peer.clientId !== gateway.id)
    return refuse(
      'identifier',
      `client id "${peer.clientId}" of "${gateway.id}": it must be the gateway's id`,
    )
  return { kind: 'allow' }
}
