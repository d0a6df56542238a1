// The link and the embedded broker, against each other, over real mutual TLS.

import { randomBytes } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Listener } from '../../../streams/mqtt/listener.ts'
import { issue, makeCa } from '../../support/certificates.ts'
import { message, outcome, pause, startBroker, startLink, stateOf, textOf, until } from './harness.ts'

const ca = await makeCa()
const server = await issue(ca, { cn: 'cloud', server: {} })
const gateway = await issue(ca, { cn: 'g1' })
const ticketKeys = randomBytes(48)
const tlsAt = (port = 0): Listener => ({ kind: 'tls', host: '127.0.0.1', port, ...server, ticketKeys })

test('a gateway connects with its certificate, publishes, and hears what it subscribed to', async () => {
  const taken: string[] = []
  const { broker, port, state, stop } = await startBroker(tlsAt(), {
    routing: 'consume',
    take: (received, done) => {
      taken.push(textOf(received))
      done()
    },
  })
  const { link, stop: leave } = startLink(port, { tls: gateway })
  const heard: string[] = []
  const listening = link.messages('down/#').subscribe(incoming => heard.push(textOf(incoming)))
  const up = await stateOf(link, 'up')
  assert.is(up.resumed, false)
  const { peer } = await state('connected')
  assert.is(peer.certificate?.commonName, 'g1')
  assert.is(peer.certificate?.serial, gateway.serial)
  assert.is(peer.certificate?.resumed, false)

  assert.is(await outcome(link.publish(message('up/a', 'one'))), 'done')
  assert.equal(taken, ['up/a one'])
  assert.is(await outcome(broker.send('g1', message('down/x', 'two'))), 'done')
  assert.is(await outcome(broker.send('g1', message('down/y', 'three', { qos: 0 }))), 'done')
  await until(() => heard.length === 2)
  assert.equal(heard, ['down/x two', 'down/y three'])
  assert.is(await outcome(broker.send('nobody', message('down/x'))), 'link_down')

  listening.unsubscribe()
  leave()
  const { because } = await state('disconnected')
  assert.ok(because)
  stop()
})

test('a link comes back after a restart of the broker, resumed, and renews its subscriptions', async () => {
  const first = await startBroker(tlsAt())
  const { link, states, stop: leave } = startLink(first.port, { tls: gateway })
  const heard: string[] = []
  link.messages('down/#').subscribe(incoming => heard.push(textOf(incoming)))
  await stateOf(link, 'up')
  await pause(50) // The tickets come after the handshake.
  first.stop()
  await stateOf(link, 'down')
  assert.is(await outcome(link.publish(message('a'))), 'link_down')

  const second = await startBroker(tlsAt(first.port))
  const up = await stateOf(link, 'up')
  assert.is(up.resumed, true)
  const { peer } = await second.state('connected')
  assert.is(peer.certificate?.resumed, true)
  assert.is(peer.certificate?.commonName, 'g1', 'a resumed session still tells who it is')
  assert.is(peer.certificate?.serial, gateway.serial)
  assert.is(await outcome(second.broker.send('g1', message('down/again'))), 'done')
  await until(() => heard.length === 1)

  second.stop()
  await stateOf(link, 'down')
  const third = await startBroker(tlsAt(first.port))
  assert.is((await stateOf(link, 'up')).resumed, true, 'the first ticket is kept')
  assert.ok(states.some(state => state.kind === 'down' && /closed|reset|listens/.test(state.because)))
  leave()
  third.stop()
})

test('a new certificate drops the ticket', async () => {
  const { port, broker, state, stop } = await startBroker(tlsAt())
  const renewed = await issue(ca, { cn: 'g1' })
  let identity = gateway
  const { link, stop: leave } = startLink(port, { tls: () => identity })
  await stateOf(link, 'up')
  await pause(50)
  identity = renewed
  broker.close('g1', 'test')
  await stateOf(link, 'down')
  assert.is((await stateOf(link, 'up')).resumed, false)
  await state('connected', ({ peer }) => peer.certificate?.serial === renewed.serial)
  leave()
  stop()
})

test('certificates of another CA are refused with a readable reason at both ends', async () => {
  const { port, state, stop } = await startBroker(tlsAt())
  const stranger = await issue(await makeCa('Another'), { cn: 'g1' })
  const one = startLink(port, { tls: { ...stranger, ca: ca.cert } })
  const { because, code } = await state('refused')
  assert.is(code, 'tls')
  assert.is(because, 'certificate of an unknown CA')
  assert.match((await stateOf(one.link, 'down')).because, /may not accept this certificate|reset|unknown CA/)
  one.stop()

  const two = startLink(port, { tls: { ...gateway, ca: stranger.ca } })
  assert.match((await stateOf(two.link, 'down')).because, /certificate of an unknown CA/)
  two.stop()

  const expired = await issue(ca, { cn: 'g1', notAfter: new Date(Date.now() - 1000) })
  const three = startLink(port, { tls: expired })
  await state('refused', refused => /expired/.test(refused.because))
  three.stop()
  stop()
})

test('what the broker refuses at CONNECT is named', async () => {
  const { throwError, of } = await import('rxjs')
  const { port, state, stop } = await startBroker(tlsAt(), {
    connect: peer =>
      peer.clientId === 'g2'
        ? throwError(() =>
            Object.assign(new Error('registry is away'), { name: 'Fault', severity: 'transient', code: 'x' }),
          )
        : of({ kind: 'refuse', code: 'unauthorised', because: 'revoked' }),
  })
  const { link, stop: leave } = startLink(port, { tls: gateway })
  assert.match((await stateOf(link, 'down')).because, /refused the connection: not authorised/)
  await state('refused', refused => refused.because === 'revoked' && refused.code === 'unauthorised')
  leave()
  const other = startLink(port, { tls: gateway, clientId: 'g2' })
  assert.match((await stateOf(other.link, 'down')).because, /server unavailable/)
  other.stop()
  stop()
})

test('what was not acknowledged when the connection broke fails with link_lost and is not sent again', async () => {
  const taken: string[] = []
  const { port, broker, stop } = await startBroker(tlsAt(), {
    take: received => {
      taken.push(textOf(received)) // Never done.
    },
  })
  const { link, stop: leave } = startLink(port, { tls: gateway })
  await stateOf(link, 'up')
  const publishing = outcome(link.publish(message('a', '1')))
  await until(() => taken.length === 1)
  broker.close('g1', 'test')
  assert.is(await publishing, 'link_lost')
  await stateOf(link, 'up')
  await pause(100)
  assert.is(taken.length, 1)
  leave()
  stop()
})

test('a refused subscription keeps the link down, and says so', async () => {
  const { port, stop } = await startBroker(tlsAt(), { refuseSubscribe: () => 'not yours' })
  const { link, stop: leave } = startLink(port, { tls: gateway })
  const heard = link.messages('other/#').subscribe({ error: () => undefined })
  assert.match((await stateOf(link, 'down')).because, /subscription to other\/# refused/)
  heard.unsubscribe()
  leave()
  stop()
})

test('unsubscribing says DISCONNECT: the will is not published', async () => {
  const taken: string[] = []
  const { port, state, stop, broker } = await startBroker(tlsAt(), {
    take: (received, done) => {
      taken.push(textOf(received))
      done()
    },
  })
  const will = { topic: 'gone', payload: Buffer.from('g1'), qos: 1 as const }
  const polite = startLink(port, { tls: gateway, will })
  await stateOf(polite.link, 'up')
  polite.stop()
  await state('disconnected')
  await pause(50)
  assert.equal(taken, [])
  const cut = startLink(port, { tls: gateway, will, clientId: 'g2' })
  await state('connected', ({ peer }) => peer.clientId === 'g2')
  broker.close('g2', 'test')
  await until(() => taken.length === 1)
  assert.equal(taken, ['gone g1'])
  cut.stop()
  stop()
})

test('nothing listening, and a half-open server, are told apart', async () => {
  const { createServer } = await import('node:net')
  const silent = createServer().listen(0, '127.0.0.1')
  await new Promise(resolve => silent.once('listening', resolve))
  const address = silent.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const { link, stop } = startLink(port, { tls: gateway, connectionLimits: { tlsWaitMsMax: 200 } })
  assert.match((await stateOf(link, 'down')).because, /no TLS handshake within 200 ms/)
  stop()
  silent.close()
  await pause(20)
  const none = startLink(port, { tls: gateway })
  assert.match((await stateOf(none.link, 'down')).because, /nothing listens there/)
  none.stop()
})

test.run()
