// How quick an idle link is, over mTLS on loopback. With Nagle at either end, a window of one gives 25 frames a second.

import { randomBytes } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { percentile } from '../../bench/scenario.ts'
import { message, outcome, startBroker, startLink, stateOf } from '../streams/mqtt/harness.ts'
import { issue, makeCa } from '../support/certificates.ts'

const ECHO_P99_MS_MAX = 15
const FRAMES_PER_SECOND_MIN = 100

const connected = async (
  run: (link: ReturnType<typeof startLink>['link']) => Promise<void>,
): Promise<void> => {
  const ca = await makeCa()
  const [server, gateway] = await Promise.all([
    issue(ca, { cn: 'cloud', server: {} }),
    issue(ca, { cn: 'g1' }),
  ])
  const { port, stop } = await startBroker({
    kind: 'tls',
    host: '127.0.0.1',
    port: 0,
    ...server,
    ticketKeys: randomBytes(48),
  })
  const { link, stop: leave } = startLink(port, { tls: gateway })
  try {
    await run(link)
  } finally {
    leave()
    stop()
  }
}

test('a QoS 1 message comes back through link and broker with a p99 of at most 15 ms', () =>
  connected(async link => {
    let heard: () => void = () => undefined
    const listening = link.messages('echo').subscribe(() => heard())
    await stateOf(link, 'up')
    const latenciesMs: number[] = []
    for (let i = 0; i < 500; i++) {
      const back = new Promise<void>(resolve => {
        heard = resolve
      })
      const sentMs = performance.now()
      assert.is(await outcome(link.publish(message('echo', Buffer.alloc(200)))), 'done')
      await back
      latenciesMs.push(performance.now() - sentMs)
    }
    listening.unsubscribe()
    const p99 = percentile(latenciesMs.slice(50), 0.99)
    console.log(`echo p50 ${percentile(latenciesMs, 0.5).toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`)
    assert.ok(p99 <= ECHO_P99_MS_MAX, `${p99} ms`)
  }))

test('with a window of one, at least 100 frames a second are acknowledged', () =>
  connected(async link => {
    await stateOf(link, 'up')
    for (const bytes of [500, 8 * 1024, 64 * 1024]) {
      const startedMs = performance.now()
      const frames = 200
      for (let i = 0; i < frames; i++)
        assert.is(
          await outcome(link.publish(message('frame', randomBytes(bytes), { lane: 'backlog' }))),
          'done',
        )
      const perSecond = frames / ((performance.now() - startedMs) / 1_000)
      console.log(`${bytes} bytes: ${perSecond.toFixed(0)} frames/s`)
      assert.ok(perSecond >= FRAMES_PER_SECOND_MIN, `${bytes} bytes: ${perSecond}`)
    }
  }))

test.run()
