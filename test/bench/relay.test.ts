// The bad network of the harness, measured: what it says of itself has to be true, or every scenario on it is wrong.

import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { until } from '../../bench/harness/installation.ts'
import { openRelay, type Relay, type RelayOptions } from '../../bench/harness/relay.ts'

interface World {
  readonly relay: Relay
  readonly dial: () => Promise<Socket>
  /** The cloud's ends, in the order of their arrival. */
  readonly arrived: Socket[]
  /** Bytes that the cloud has. */
  readonly received: () => number
}

const inWorld = async (
  options: RelayOptions,
  body: (world: World) => Promise<void>,
  { echo = false } = {},
): Promise<void> => {
  const arrived: Socket[] = []
  const dialled: Socket[] = []
  let received = 0
  const cloud = createServer({ noDelay: true }, socket => {
    arrived.push(socket)
    socket.on('error', () => undefined)
    socket.on('data', chunk => {
      received += chunk.length
      if (echo) socket.write(chunk)
    })
  })
  cloud.listen(0, '127.0.0.1')
  await once(cloud, 'listening')
  const relay = await openRelay((cloud.address() as AddressInfo).port, options)
  const dial = async (): Promise<Socket> => {
    const socket = connect({ host: '127.0.0.1', port: relay.port, noDelay: true })
    dialled.push(socket)
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    return socket
  }
  try {
    await body({ relay, dial, arrived, received: () => received })
  } finally {
    await relay.close()
    for (const socket of [...dialled, ...arrived]) socket.destroy()
    await new Promise(resolve => cloud.close(resolve))
  }
}

const roundTripMs = async (socket: Socket): Promise<number> => {
  const startedMs = performance.now()
  socket.write('x')
  await once(socket, 'data')
  return performance.now() - startedMs
}
const within = (found: number, low: number, high: number, what: string): void =>
  assert.ok(found >= low && found <= high, `${what}: ${found}, wanted ${low}…${high}`)
const soon = (what: string, isTrue: () => boolean): Promise<true> =>
  until(what, async () => (isTrue() ? true : undefined), 3_000)

/** What the cloud gets in a second, once the queue is full. */
const rateOf = async (received: () => number): Promise<number> => {
  await sleep(300)
  const [bytes, startedMs] = [received(), performance.now()]
  await sleep(1_000)
  return (received() - bytes) / ((performance.now() - startedMs) / 1_000)
}

test('a rate is kept within ten per cent, and two connections share it evenly', async () => {
  await inWorld({ rate: 125_000 }, async ({ dial, arrived, received }) => {
    const first = await dial()
    first.write(Buffer.alloc(1_000_000))
    within(await rateOf(received), 112_500, 137_500, 'alone')
    const second = await dial()
    second.write(Buffer.alloc(1_000_000))
    await soon('the second is through', () => (arrived[1]?.bytesRead ?? 0) > 0)
    const before = arrived.map(({ bytesRead }) => bytesRead)
    within(await rateOf(received), 112_500, 137_500, 'together')
    const [one = 0, other = 0] = arrived.map(({ bytesRead }, i) => bytesRead - (before[i] ?? 0))
    within(one / other, 0.8, 1.25, 'shares')
  })
})

test('a rate holds in the other direction as well, and each direction has its own', async () => {
  await inWorld({ rate: 125_000 }, async ({ dial, arrived, received }) => {
    const gateway = await dial()
    let down = 0
    gateway.on('data', chunk => {
      down += chunk.length
    })
    await soon('it is through', () => arrived.length > 0)
    gateway.write(Buffer.alloc(500_000))
    arrived[0]?.write(Buffer.alloc(500_000))
    const [upRate, downRate] = await Promise.all([rateOf(received), rateOf(() => down)])
    within(upRate, 112_500, 137_500, 'up')
    within(downRate, 112_500, 137_500, 'down')
  })
})

test('what is slower than the rate is not held up by it', async () => {
  await inWorld(
    { rate: 125_000 },
    async ({ dial }) => {
      within(await roundTripMs(await dial()), 0, 10, 'round trip')
    },
    { echo: true },
  )
})

test('the queue is bounded: a small message waits for it and for no more', async () => {
  await inWorld({ rate: 125_000, queueBytes: 12_500 }, async ({ dial, arrived }) => {
    const bulk = await dial()
    const small = await dial()
    await soon('both are through', () => arrived.length === 2)
    bulk.write(Buffer.alloc(1_000_000))
    await sleep(300)
    const startedMs = performance.now()
    small.write('x')
    await soon('it came', () => arrived.some(({ bytesRead }) => bytesRead === 1))
    within(performance.now() - startedMs, 50, 170, '12,500 bytes at 125,000 a second take 100 ms')
  })
})

test('a delay is added once each way', async () => {
  await inWorld(
    { delayMs: 50 },
    async ({ dial }) => {
      const socket = await dial()
      await roundTripMs(socket)
      const found: number[] = []
      for (let i = 0; i < 5; i++) found.push(await roundTripMs(socket))
      within(Math.min(...found), 100, 106, 'shortest round trip')
    },
    { echo: true },
  )
})

test('a delay keeps order and bytes, and the end comes behind them', async () => {
  await inWorld(
    { delayMs: 20, rate: 2_000_000 },
    async ({ dial }) => {
      const socket = await dial()
      const sent = Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 7 + (i >> 8)) % 256))
      const came: Buffer[] = []
      socket.on('data', chunk => came.push(chunk))
      socket.end(sent)
      await once(socket, 'close')
      assert.ok(Buffer.concat(came).equals(sent), 'echoed byte for byte')
    },
    { echo: true },
  )
})

test('cut resets and refuses; restored it serves again at the same port', async () => {
  await inWorld(
    {},
    async ({ relay, dial }) => {
      const socket = await dial()
      const closed = once(socket, 'close')
      await relay.cut()
      await closed
      const refused = connect({ host: '127.0.0.1', port: relay.port })
      const [thrown] = (await once(refused, 'error')) as [NodeJS.ErrnoException]
      assert.is(thrown.code, 'ECONNREFUSED')
      await relay.restore()
      await roundTripMs(await dial())
    },
    { echo: true },
  )
})

test('stalled it accepts and forwards nothing; resumed, all of it comes', async () => {
  await inWorld(
    {},
    async ({ relay, dial, received }) => {
      const before = await dial()
      await roundTripMs(before)
      relay.stall()
      const during = await dial()
      during.write('abc')
      before.write('de')
      await sleep(300)
      assert.is(received(), 1, 'only what came before')
      relay.resume()
      await soon('all came', () => received() === 6)
    },
    { echo: true },
  )
})

test('half open: the cloud is gone, the gateway is not told and writes into nothing', async () => {
  await inWorld({}, async ({ relay, dial, arrived, received }) => {
    const gateway = await dial()
    await soon('it is through', () => arrived.length === 1)
    relay.forgetCloud()
    await soon('the cloud knows', () => arrived[0]?.destroyed === true)
    gateway.write('abc')
    await sleep(200)
    assert.not.ok(gateway.destroyed || gateway.readableEnded, 'the gateway does not')
    assert.is(received(), 0)
  })
})

test('half open: the gateway is gone, the cloud is not told', async () => {
  await inWorld({}, async ({ relay, dial, arrived }) => {
    const gateway = await dial()
    await soon('it is through', () => arrived.length === 1)
    relay.forgetGateway()
    await soon('the gateway knows', () => gateway.destroyed)
    arrived[0]?.write('abc')
    await sleep(200)
    assert.not.ok(arrived[0]?.destroyed || arrived[0]?.readableEnded, 'the cloud does not')
  })
})

test.run()
