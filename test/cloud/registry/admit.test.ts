import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { admit } from '../../../cloud/registry/admit.ts'
import { channelId, gatewayId } from '../../../schemas/ids.ts'
import type { GatewayRecord, GatewayState } from '../../../schemas/registry.ts'
import type { Peer, PeerCertificate } from '../../../streams/mqtt/broker.ts'

const NOW = 1_800_000_000_000
const record: GatewayRecord = {
  id: gatewayId('plant-7'),
  name: 'Plant 7',
  labels: {},
  state: 'active',
  serial: '4A01',
  certificateNotAfterMs: NOW + 1_000,
  controlChannel: channelId('c1'),
  dataChannel: channelId('d1'),
  createdAtMs: 1,
}
const certificate: PeerCertificate = {
  commonName: 'plant-7',
  serial: '4A01',
  notAfterMs: NOW + 1_000,
  resumed: false,
}
const peer: Peer = {
  clientId: 'plant-7',
  username: undefined,
  address: '127.0.0.1',
  connection: 'x',
  certificate,
}

const said = (verdict: ReturnType<typeof admit>) =>
  verdict.kind === 'allow' ? 'allow' : `${verdict.code}: ${verdict.because}`
const withCertificate = (changed: Partial<PeerCertificate>): Peer => ({
  ...peer,
  certificate: { ...certificate, ...changed },
})

test('an enrolled or active gateway with its current certificate is let in', () => {
  for (const state of ['enrolled', 'active'] as const)
    assert.is(said(admit(peer, { ...record, state }, NOW)), 'allow')
})

test('a name that the registry does not know is refused', () => {
  assert.match(said(admit(peer, undefined, NOW)), /^unauthorised: no gateway is named "plant-7"/)
  assert.match(
    said(admit(withCertificate({ commonName: 'plant-8' }), record, NOW)),
    /^unauthorised: no gateway is named "plant-8"/,
  )
})

test('a gateway that is suspended, revoked or has never enrolled is refused, resumed handshake or not', () => {
  const expected: [GatewayState, RegExp][] = [
    ['suspended', /^unauthorised: gateway "plant-7" is suspended/],
    ['revoked', /^unauthorised: gateway "plant-7" is revoked/],
    ['registered', /^unauthorised: gateway "plant-7" has not enrolled/],
  ]
  for (const [state, because] of expected) {
    for (const resumed of [true, false])
      assert.match(said(admit(withCertificate({ resumed }), { ...record, state }, NOW)), because)
  }
})

test('a certificate with another serial than the current one is refused, also when there is no current one', () => {
  assert.match(
    said(admit(withCertificate({ serial: '4A00' }), record, NOW)),
    /^credentials: certificate 4A00 of "plant-7" is not its current one, 4A01/,
  )
  const { serial: _, ...without } = record
  assert.match(said(admit(peer, without, NOW)), /^credentials: /)
})

test('an expired certificate is refused from its last millisecond on', () => {
  assert.match(
    said(admit(peer, record, NOW + 1_000)),
    /^credentials: the certificate of "plant-7" expired on 2027-01-15T/,
  )
  assert.is(said(admit(peer, record, NOW + 999)), 'allow')
})

test('a client id other than the gateway id is refused', () => {
  for (const clientId of ['plant-8', '', 'Plant-7'])
    assert.match(said(admit({ ...peer, clientId }, record, NOW)), /^identifier: /)
})

test('a peer without a certificate is refused', () => {
  assert.match(
    said(admit({ ...peer, certificate: undefined }, record, NOW)),
    /^credentials: no client certificate/,
  )
})

test.run()
