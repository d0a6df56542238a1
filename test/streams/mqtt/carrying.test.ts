// What a link does on bad connections: half-open peers, a thin line, local signs; the far end is a relay.

import { connect, createServer, type Socket } from 'node:net'
import { Subject } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { message, outcome, pause, plainAt, startBroker, startLink, stateOf, until } from './harness.ts'

/** Passes bytes on, at most `upBytesPerS` of them upwards, until it is told to go silent. */
const startRelay = async (port: number, upBytesPerS = Number.POSITIVE_INFINITY) => {
  const sockets = new Set<Socket>()
  let isSilent = false
  const listener = createServer(inner => {
    const outer = connect({ port, host: '127.0.0.1', noDelay: true })
    for (const socket of [inner, outer]) sockets.add(socket.on('error', () => undefined))
    inner.on('data', async chunk => {
      if (isSilent) return
      if (upBytesPerS !== Number.POSITIVE_INFINITY) {
        inner.pause()
        await pause((chunk.length / upBytesPerS) * 1_000)
        inner.resume()
      }
      outer.write(chunk)
    })
    outer.on('data', chunk => {
      if (!isSilent) inner.write(chunk)
    })
    inner.on('close', () => outer.destroy())
    outer.on('close', () => {
      if (!isSilent) inner.destroy()
    })
  }).listen(0, '127.0.0.1')
  await new Promise(resolve => listener.once('listening', resolve))
  const address = listener.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    goSilent: () => {
      isSilent = true
    },
    stop: () => {
      listener.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

test('a half-open link is noticed: no PINGRESP, down, and what waited fails with link_lost', async () => {
  const broker = await startBroker(plainAt())
  const relay = await startRelay(broker.port)
  const { link, stop } = startLink(relay.port, { keepAliveS: 1 })
  await stateOf(link, 'up')
  relay.goSilent()
  const publishing = outcome(link.publish(message('a')))
  const { because } = await stateOf(link, 'down')
  assert.match(because, /Keepalive timeout/)
  assert.is(await publishing, 'link_lost')
  stop()
  relay.stop()
  broker.stop()
})

test('a keystroke overtakes a megabyte of bulk, and a full lane says so', async () => {
  const order: string[] = []
  const broker = await startBroker(plainAt(), {
    routing: 'consume',
    take: (received, done) => {
      order.push(received.topic)
      done()
    },
  })
  const relay = await startRelay(broker.port, 4_000_000)
  const { link, stop } = startLink(relay.port)
  await stateOf(link, 'up')
  const payload = Buffer.alloc(32_000)
  // The kernel's buffers on loopback take a few megabytes before the socket fills.
  const bulk = Array.from({ length: 240 }, (_, i) =>
    outcome(link.publish(message(`bulk/${i}`, payload, { lane: 'bulk' }))),
  )
  await until(() => link.stats().queuedBytes.bulk > 0, 'bulk waits')
  const queued = link.stats().queuedMessages.bulk
  const startMs = performance.now()
  assert.is(await outcome(link.publish(message('key', 'x', { lane: 'interactive' }))), 'done')
  assert.ok(queued > 30, `${queued} were queued`)
  assert.ok(240 - order.indexOf('key') >= queued - 5, 'it went before what was queued')
  const outcomes = await Promise.all(bulk)
  const refused = outcomes.filter(result => result === 'lane_full').length
  assert.is(refused, link.stats().refusedMessages.bulk)
  assert.is(outcomes.filter(result => result === 'done').length, 240 - refused)
  const numbers = order.filter(topic => topic.startsWith('bulk')).map(topic => Number(topic.slice(5)))
  assert.equal(
    numbers,
    [...numbers].sort((a, b) => a - b),
    'bulk stays in order',
  )
  assert.ok(performance.now() - startMs < 10_000)
  stop()
  relay.stop()
  broker.stop()
})

test('a local sign ends a long wait, and one within five seconds of it does not', async () => {
  const sign$ = new Subject<void>()
  const spare = await startBroker(plainAt())
  const { port } = spare
  spare.stop()
  const { link, states, stop } = startLink(port, {
    localSign$: sign$,
    retry: { firstWaitMsMax: 60_000 },
    random: { bytes: count => Buffer.alloc(count, 1), unit: () => 0.9 },
  })
  const down = await stateOf(link, 'down')
  assert.is(down.retryInMs, 54_000)
  const attempts = () => states.filter(state => state.kind === 'connecting').length
  sign$.next()
  await until(() => attempts() === 2)
  await until(() => states.at(-1)?.kind === 'down')
  sign$.next()
  await pause(300)
  assert.is(attempts(), 2)

  const back = await startBroker(plainAt(port))
  await stateOf(link, 'up') // The second sign was kept for when its five seconds were over.
  assert.is(attempts(), 3)
  stop()
  back.stop()
})

test('while the link is down every publish says so at once', async () => {
  const { link, stop } = startLink(1)
  assert.is(await outcome(link.publish(message('a'))), 'link_down')
  stop()
})

test.run()
