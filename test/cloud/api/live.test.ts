import { EventEmitter } from 'node:events'
import { firstValueFrom, Subject } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WebSocket } from 'ws'
import { BUFFERED_BYTES_MAX, EVENTS_IN_FLIGHT_MAX, serveLive } from '../../../cloud/api/live.ts'
import type { CloudEvent } from '../../../schemas/events.ts'
import type { LatestChange } from '../../../schemas/views.ts'
import { gatewayFrames } from '../../support/gateway-frames.ts'
import { memoryCloudLog } from '../../support/memory-cloud-log.ts'
import { virtualClock } from '../../support/virtual-clock.ts'
import { type Answer, until, withApi } from './support.ts'

const stopped = (run: string): CloudEvent => ({ kind: 'cloud_stopped', run })

const opened = (url: string, path: string, headers: Record<string, string> = {}) => {
  const socket = new WebSocket(url.replace('http', 'ws') + path, { headers })
  const messages: Answer[] = []
  let closed: { code: number; reason: string } | undefined
  socket.on('message', (data: Buffer) => messages.push(JSON.parse(data.toString())))
  socket.on('close', (code, reason) => {
    closed = { code, reason: reason.toString() }
  })
  socket.on('error', () => undefined)
  return {
    socket,
    messages,
    closed: () => closed,
    events: () => messages.filter(m => m.type === 'event').map(m => m.event.run),
  }
}

test('events come as they happen, and go on behind a cursor after a lost connection', () =>
  withApi(
    async ({ append, url, get }) => {
      for (const run of ['a', 'b']) await append('events', { kind: 'event', event: stopped(run) })
      const first = opened(url, '/api/live')
      await until(async () => first.messages.length === 1)
      await append('events', { kind: 'event', event: stopped('c') })
      await until(async () => first.events().length === 1)
      assert.equal(first.events(), ['c'])
      const { cursor } = first.messages.at(-1)
      first.socket.terminate()
      await append('events', { kind: 'event', event: stopped('d') }, { kind: 'event', event: stopped('e') })
      const second = opened(url, `/api/live?after=${cursor}`)
      await until(async () => second.events().length === 2)
      assert.equal(second.events(), ['d', 'e'])
      second.socket.close()

      const { body } = await get('/api/events?limit=3')
      assert.equal(
        body.events.map((e: Answer) => e.event.run),
        ['a', 'b', 'c'],
      )
      const rest = (await get(`/api/events?after=${body.cursor}`)).body
      assert.equal([rest.events.map((e: Answer) => e.event.run), rest.atHead], [['d', 'e'], true])
    },
    { projections: false },
  ))

test('latest values are told as they change', () =>
  withApi(async ({ append, url }) => {
    const { messages, socket } = opened(url, '/api/live')
    await until(async () => messages.length === 1)
    const frames = gatewayFrames('g1')
    let v = 0
    await until(async () => {
      await append('data', frames.seal([{ topic: 'a', payload: JSON.stringify([{ n: 'x', v: ++v }]) }]))
      return messages.some(({ type }) => type === 'latest')
    })
    const { changes } = messages.find(({ type }) => type === 'latest')
    assert.equal([changes[0].gateway, changes[0].name, changes[0].stream], ['g1', 'x', 'data'])
    socket.close()
  }))

test('a page of another site gets no socket, a wrong cursor a reason, and a stop a goodbye', () =>
  withApi(
    async ({ url, stop }) => {
      const foreign = opened(url, '/api/live', { origin: 'https://evil.example' })
      await until(async () => foreign.closed() !== undefined)
      assert.is(foreign.closed()?.code, 1006)
      const wrong = opened(url, '/api/live?after=nonsense')
      await until(async () => wrong.closed() !== undefined)
      assert.is(wrong.closed()?.code, 1008)
      assert.match(wrong.closed()?.reason ?? '', 'cursor')
      const own = opened(url, '/api/live', { origin: url })
      await until(async () => own.messages.length === 1)
      stop()
      await until(async () => own.closed() !== undefined)
      assert.is(own.closed()?.code, 1001)
    },
    { projections: false },
  ))

/** A socket whose other end reads only when told. */
const slowSocket = () => {
  const waiting: (() => void)[] = []
  const sent: Answer[] = []
  const socket = Object.assign(new EventEmitter(), {
    OPEN: 1,
    readyState: 1,
    bufferedAmount: 0,
    closedWith: undefined as number | undefined,
    send: (text: string, done: (thrown?: Error) => void) => {
      sent.push(JSON.parse(text))
      socket.bufferedAmount += text.length
      waiting.push(() => {
        socket.bufferedAmount -= text.length
        done()
      })
    },
    ping: () => undefined,
    close: (code: number) => {
      socket.closedWith = code
    },
    terminate: () => undefined,
  })
  const drain = () => {
    for (const taken of waiting.splice(0)) taken()
  }
  return { socket, sent, drain }
}

const change = (value: number): LatestChange => ({
  ...{
    gateway: 'g1',
    stream: 'data',
    name: 'x',
    topic: 't',
    unit: undefined,
    value,
    form: 'value',
    cut: false,
    sum: undefined,
  },
  ...{ atMs: 0, receivedAtMs: 0, offset: 1, updates: 1 },
})

const slow = async (events: number) => {
  const log = memoryCloudLog()
  for (let i = 0; i < events; i++)
    await firstValueFrom(log.append('events', [{ kind: 'event', event: stopped(`${i}`) }], []))
  const latest$ = new Subject<readonly LatestChange[]>()
  const stop$ = new Subject<void>()
  const clock = virtualClock()
  const { socket, sent, drain } = slowSocket()
  const views = { latest$, ready$: latest$, query: () => latest$ } as Answer
  const serving = serveLive({
    socket: socket as Answer,
    after: 0,
    context: { reader: log, views, clock, stop$ },
  }).subscribe()
  return { clock, latest$, socket, sent, drain, serving }
}

test('a slow socket holds a bounded number of events and loses none', async () => {
  const { sent, drain, serving } = await slow(500)
  const runs = () => sent.filter(({ type }) => type === 'event').map(({ event }) => Number(event.run))
  assert.is(runs().length, EVENTS_IN_FLIGHT_MAX)
  for (let i = 0; i < 20; i++) drain()
  assert.equal(
    runs(),
    Array.from({ length: 500 }, (_, i) => i),
  )
  serving.unsubscribe()
})

test('values that find no room are dropped, counted and told with the cursor', async () => {
  const { latest$, sent, drain, socket, serving } = await slow(1)
  const changes = Array.from({ length: 1_000 }, (_, i) => change(i))
  for (let i = 0; i < 50; i++) latest$.next(changes)
  assert.ok(socket.bufferedAmount < BUFFERED_BYTES_MAX + 400_000, `${socket.bufferedAmount}`)
  const held = sent.filter(({ type }) => type === 'latest').length
  drain()
  latest$.next(changes)
  const behind = sent.find(({ type }) => type === 'behind')
  assert.is(behind.dropped, (50 - held) * 1_000)
  assert.ok(behind.cursor)
  assert.is(sent.at(-1).type, 'latest')
  serving.unsubscribe()
})

test('a socket that answers no ping is closed', async () => {
  const { clock, socket, sent } = await slow(1)
  clock.scheduler.maxFrames = 31_000
  clock.scheduler.flush()
  assert.is(socket.closedWith, 1013)
  assert.is(sent.at(-1).type, 'behind')
})

test.run()
