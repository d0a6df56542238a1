// The gate in front of TLS, with real sockets from several loopback addresses.

import { connect, createServer, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { ADMISSION_LIMITS, type AdmissionLimits, admission } from '../../../streams/mqtt/admission.ts'
import type { Listener } from '../../../streams/mqtt/listener.ts'
import { issue, makeCa } from '../../support/certificates.ts'
import { clock, message, outcome, pause, startBroker, startLink, stateOf, until } from './harness.ts'

const ca = await makeCa()
const server = await issue(ca, { cn: 'cloud', server: {} })
const gateway = await issue(ca, { cn: 'g1' })
const tls: Listener = { kind: 'tls', host: '127.0.0.1', port: 0, ...server }

/** The bytes of a real ClientHello. */
const clientHello = (): Promise<Buffer> =>
  new Promise(resolve => {
    const listener = createServer(socket =>
      socket.once('data', hello => {
        socket.destroy()
        listener.close()
        resolve(hello)
      }),
    ).listen(0, '127.0.0.1', () => {
      const address = listener.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      connectTls({ port, host: '127.0.0.1', minVersion: 'TLSv1.3' }).on('error', () => undefined)
    })
  })

const quiet = (port: number, localAddress: string, bytes?: Buffer): Socket => {
  const socket = connect({ port, host: '127.0.0.1', localAddress })
  socket.on('error', () => undefined)
  if (bytes !== undefined) socket.write(bytes)
  return socket
}

test('a good gateway gets in within a second beside 16 silent peers, 16 half hellos and 16 that hang after theirs', async () => {
  const { port, broker, stop } = await startBroker(tls)
  const hello = await clientHello()
  const peers = [
    ...Array.from({ length: 16 }, () => quiet(port, '127.0.0.1')),
    ...Array.from({ length: 16 }, (_, i) => quiet(port, `127.0.0.${10 + i}`, hello.subarray(0, 50))),
    ...Array.from({ length: 16 }, () => quiet(port, '127.0.0.2', hello)),
  ]
  const gate = () => broker.stats().admission[0]!
  await until(() => gate().handshakes === 4 && gate().waiting === 44)
  const startMs = performance.now()
  const { link, stop: leave } = startLink(port, { tls: gateway })
  await stateOf(link, 'up')
  assert.ok(performance.now() - startMs < 1_000, `${performance.now() - startMs} ms`)
  assert.is(await outcome(link.publish(message('a'))), 'done')
  assert.is(gate().handshakes, 4, 'one address holds four slots, silent peers hold none')
  for (const peer of peers) peer.destroy()
  await until(() => gate().waiting === 0 && gate().handshakes === 0)
  leave()
  stop()
})

test('a hello that comes in pieces is whole for TLS', async () => {
  const { port, broker, state, stop } = await startBroker(tls)
  // A relay that passes on byte by byte at first.
  const relay = createServer(inner => {
    const outer = connect({ port, host: '127.0.0.1', noDelay: true })
    let passed = 0
    inner.on('data', async chunk => {
      inner.pause()
      for (let at = 0; at < chunk.length; ) {
        const step = passed < 40 ? 1 : chunk.length
        outer.write(chunk.subarray(at, at + step))
        at += step
        passed += step
        if (passed <= 40) await pause(1)
      }
      inner.resume()
    })
    outer.pipe(inner)
    for (const socket of [inner, outer])
      socket
        .on('error', () => undefined)
        .on('close', () => {
          inner.destroy()
          outer.destroy()
        })
  }).listen(0, '127.0.0.1')
  await new Promise(resolve => relay.once('listening', resolve))
  const address = relay.address()
  const { link, stop: leave } = startLink(
    typeof address === 'object' && address !== null ? address.port : 0,
    { tls: gateway },
  )
  await stateOf(link, 'up')
  await state('connected')
  assert.is(broker.stats().admission[0]?.admitted, 1)
  leave()
  stop()
  relay.close()
})

test('what is no TLS is refused at once, and a silent peer in time', async () => {
  const { port, state, stop } = await startBroker(
    tls,
    {},
    { limits: { admission: { ...ADMISSION_LIMITS, helloWaitMsMax: 100 } } },
  )
  quiet(port, '127.0.0.1', Buffer.from('GET / HTTP/1.1\r\n\r\n'))
  const { code } = await state('refused', ({ because }) => because === 'not TLS')
  assert.is(code, 'admission')
  quiet(port, '127.0.0.3')
  await state('refused', ({ because, address }) => because === 'it said nothing' && address === '127.0.0.3')
  stop()
})

/** The gate alone: what it admits, it hands to the test. */
const openGate = async (limits: Partial<AdmissionLimits>, onAdmit: () => unknown = () => undefined) => {
  const admitted: Socket[] = []
  const refused: string[] = []
  const gate = admission(
    clock,
    {
      admit: socket => {
        admitted.push(socket)
        onAdmit()
      },
      refused: (_, because) => refused.push(because),
    },
    { ...ADMISSION_LIMITS, ...limits },
  )
  const listener = createServer({ pauseOnConnect: true }, socket => gate.enter(socket)).listen(0, '127.0.0.1')
  await new Promise(resolve => listener.once('listening', resolve))
  const address = listener.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const stop = () => {
    listener.close()
    gate.close()
    for (const socket of admitted) socket.destroy()
  }
  return { gate, admitted, refused, port, stop }
}

test('at most so many handshakes run; the next gets its slot when one is released, failed or too slow', async () => {
  const { gate, admitted, refused, port, stop } = await openGate({ slotsMax: 2, handshakeMsMax: 300 })
  const hello = await clientHello()
  for (let i = 0; i < 5; i += 1) quiet(port, `127.0.0.${20 + i}`, hello)
  await until(() => admitted.length === 2 && gate.stats().waiting === 3)
  gate.release(admitted[0]!)
  await until(() => admitted.length === 3)
  admitted[1]!.destroy()
  await until(() => admitted.length === 4)
  assert.is(gate.stats().handshakes, 2)
  await until(() => admitted.length === 5)
  assert.ok(refused.includes('handshake_too_slow'))
  assert.ok(
    admitted.every(socket => socket.remoteAddress === undefined || socket.readableLength > 0),
    'the hello is put back',
  )
  stop()
})

test('in one turn of the event loop at most so many start, however many are ready', async () => {
  let turn = 0
  let next = setImmediate(function tick() {
    turn += 1
    next = setImmediate(tick)
  })
  const startedIn: number[] = []
  const { port, stop } = await openGate({ startsPerTurnMax: 2 }, () => startedIn.push(turn))
  const hello = await clientHello()
  for (let i = 0; i < 12; i += 1) quiet(port, `127.0.0.${40 + i}`, hello)
  await until(() => startedIn.length === 12)
  clearImmediate(next)
  const most = Math.max(...startedIn.map(at => startedIn.filter(other => other === at).length))
  assert.is(most, 2)
  stop()
})

test('a socket that ended while it waited is skipped', async () => {
  const { gate, admitted, refused, port, stop } = await openGate({ slotsMax: 1 })
  const hello = await clientHello()
  quiet(port, '127.0.0.1', hello)
  await until(() => admitted.length === 1)
  const gone = quiet(port, '127.0.0.2', hello)
  await until(() => gate.stats().waiting === 1)
  const half = quiet(port, '127.0.0.3', hello)
  await until(() => gate.stats().waiting === 2)
  gone.destroy()
  half.end()
  await until(() => gate.stats().waiting === 0)
  quiet(port, '127.0.0.4', hello)
  await until(() => gate.stats().waiting === 1)
  gate.release(admitted[0]!)
  await until(() => admitted.length === 2)
  assert.is(admitted[1]?.remoteAddress, '127.0.0.4')
  assert.equal(refused, ['ended', 'ended'])
  stop()
})

test('a full list drops the oldest silent peer for the newer one', async () => {
  const { gate, refused, port, stop } = await openGate({ waitingMax: 3 })
  const sockets: Socket[] = []
  for (let i = 0; i < 3; i += 1) {
    sockets.push(quiet(port, '127.0.0.1'))
    await until(() => gate.stats().waiting === i + 1)
  }
  sockets.push(quiet(port, '127.0.0.1'))
  await until(() => refused.length === 1)
  await until(() => sockets[0]!.destroyed)
  assert.equal(refused, ['list_full'])
  assert.is(gate.stats().waiting, 3)
  assert.not(sockets[3]!.destroyed)
  for (const socket of sockets) socket.destroy()
  stop()
})

test.run()
