import { connectAsync, type MqttClient } from 'mqtt'
import { firstValueFrom, of, ReplaySubject } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type FanOutCounts, fanOut } from '../../../cloud/north/fan-out.ts'
import { mayMatch, openInterest } from '../../../cloud/north/interest.ts'
import { type NorthUsers, northRules } from '../../../cloud/north/rules.ts'
import { channelId, type GatewayId } from '../../../schemas/ids.ts'
import { openBroker } from '../../../streams/mqtt/embedded.ts'
import { systemClock, systemRandom } from '../../../streams/run/clock.ts'
import { type FrameBody, gatewayFrames, type Sent, undecodable } from '../../support/gateway-frames.ts'
import { type MemoryCloudLog, memoryCloudLog } from '../../support/memory-cloud-log.ts'

const clock = systemClock()
const CHANNEL = channelId('chan-1')
const fresh = { wallMs: 1_750_000_000_000 }
/** When the cloud received it: just after it was sealed. */
const receivedMs = fresh.wallMs + 5

interface Side {
  readonly log: MemoryCloudLog
  readonly port: number
  readonly counts: () => FanOutCounts | undefined
  readonly connect: (options?: {
    username?: string
    password?: string
    clientId?: string
  }) => Promise<MqttClient>
  append(...bodies: FrameBody[]): Promise<void>
}

const withSide = async (
  body: (side: Side) => Promise<void>,
  { users, ageMsMax }: { users?: NorthUsers; ageMsMax?: 'any' } = {},
) => {
  const log = memoryCloudLog(() => receivedMs)
  const interest = openInterest()
  const broker = openBroker({
    listeners: [{ kind: 'plain', host: '127.0.0.1', port: 0 }],
    rules: northRules(users, interest),
    clock,
    random: systemRandom,
  })
  const listening$ = new ReplaySubject<number>(1)
  let counted: FanOutCounts | undefined
  const running = broker.run$.subscribe(state => {
    if (state.kind === 'listening') listening$.next(state.port)
    if (state.kind === 'connected') interest.connected(state.peer.clientId)
    if (state.kind === 'disconnected') interest.disconnected(state.peer.clientId)
  })
  const channelOf = (gateway: GatewayId) =>
    of(gateway === 'g9' ? undefined : gateway === 'g1' ? CHANNEL : channelId('chan-2'))
  const options = { reader: log, port: broker, clock, isWanted: interest.isWanted, channelOf }
  running.add(
    fanOut(ageMsMax === 'any' ? { ...options, ageMsMax: undefined } : options).subscribe(now => {
      counted = now
    }),
  )
  const port = await firstValueFrom(listening$)
  const clients: MqttClient[] = []
  try {
    await body({
      log,
      port,
      counts: () => counted,
      connect: async (given = {}) => {
        const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0, ...given })
        clients.push(client)
        return client
      },
      append: async (...bodies) => {
        await firstValueFrom(log.append('data', bodies, []))
      },
    })
  } finally {
    for (const client of clients) client.end(true)
    running.unsubscribe()
  }
}

const collect = (client: MqttClient) => {
  const got: { topic: string; text: string; qos: number; retain: boolean }[] = []
  client.on('message', (topic, payload, { qos, retain }) =>
    got.push({ topic, text: payload.toString(), qos, retain }),
  )
  return got
}
const until = async (fits: () => boolean, withinMs = 5_000) => {
  const endsAt = Date.now() + withinMs
  while (!fits()) {
    if (Date.now() > endsAt) throw new Error('it did not come to pass')
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}
const record = (payload: string, more: Partial<Sent> = {}): Sent => ({ topic: 'dev/1', payload, ...more })

test('records appear on the channel of their gateway, in order, never retained', () =>
  withSide(async ({ connect, append }) => {
    const client = await connect()
    const got = collect(client)
    await client.subscribeAsync('channels/chan-1/messages/#', { qos: 1 })
    const frames = gatewayFrames('g1')
    const qoses = [1, 0, 2, 0, 0, 1] as const
    for (let i = 0; i < 50; i++) {
      await append(
        frames.seal(qoses.map((qos, j) => record(`${i * 6 + j}`, { qos, retain: true }))),
        gatewayFrames('g2').seal([record('other')]),
      )
    }
    await until(() => got.length >= 300)
    assert.equal(
      got.map(({ text }) => Number(text)),
      Array.from({ length: 300 }, (_, i) => i),
    )
    assert.equal(
      got.slice(0, 3).map(({ qos }) => qos),
      [1, 0, 1],
    )
    assert.ok(got.every(({ topic, retain }) => topic === 'channels/chan-1/messages/dev/1' && !retain))
    const late = await connect()
    const lateGot = collect(late)
    await late.subscribeAsync('#')
    await new Promise(resolve => setTimeout(resolve, 100))
    assert.equal(lateGot, [])
  }))

test('what was in the log before is not published', () =>
  withSide(async ({ connect, append }) => {
    const frames = gatewayFrames('g1')
    await append(frames.seal([record('before')]))
    const client = await connect()
    const got = collect(client)
    await client.subscribeAsync('channels/#')
    await append(frames.seal([record('after')]))
    await until(() => got.length === 1)
    assert.is(got[0]!.text, 'after')
  }))

test('records older than a minute at receipt are skipped and counted, unless asked for or of a clock that is not known', async () => {
  const send = async ({ connect, append }: Side) => {
    const client = await connect()
    const got = collect(client)
    await client.subscribeAsync('channels/#')
    const frames = gatewayFrames('g1')
    await append(frames.seal([record('old', { receivedMonoMs: 1_000_000 - 61_000 }), record('new')]))
    await append(frames.seal([record('no clock')], { wallMs: 1_000, quality: 'unknown' }))
    await until(() => got.some(({ text }) => text === 'no clock'))
    return got.map(({ text }) => text)
  }
  await withSide(async side => {
    assert.equal(await send(side), ['new', 'no clock'])
    await until(() => side.counts()?.late === 1)
  })
  await withSide(async side => assert.equal(await send(side), ['old', 'new', 'no clock']), {
    ageMsMax: 'any',
  })
})

test('frames that cannot be decoded, and topics that cannot be published, are counted and hold nothing up', () =>
  withSide(async ({ connect, append, counts }) => {
    const client = await connect()
    const got = collect(client)
    await client.subscribeAsync('channels/#')
    const frames = gatewayFrames('g1')
    await append(
      undecodable(frames.seal([record('lost')])),
      frames.skip(3, 'quota'),
      gatewayFrames('g9').seal([record('homeless')]),
    )
    await append(frames.seal([record('wild', { topic: 'a/#' }), record('good', { topic: '' })]))
    await until(() => got.length === 1 && counts()?.untopical === 1)
    assert.is(got[0]!.topic, 'channels/chan-1/messages')
    const { published, undecodable: bad, homeless } = counts()!
    assert.equal([published, bad, homeless], [1, 1, 1])
  }))

test('a channel that nobody listens to is not decoded', () =>
  withSide(async ({ connect, append, counts }) => {
    const client = await connect()
    const got = collect(client)
    await client.subscribeAsync('channels/chan-2/messages/#')
    await append(
      undecodable(gatewayFrames('g1').seal([record('never looked at')])),
      gatewayFrames('g2').seal([record('x')]),
    )
    await until(() => got.length === 1 && counts()?.published === 1)
    assert.is(counts()?.undecodable, 0)
  }))

test('nothing that a north client publishes is taken', () =>
  withSide(async ({ connect, append, counts }) => {
    const listener = await connect()
    const got = collect(listener)
    await listener.subscribeAsync('#')
    const forger = await connect()
    const closed = new Promise<void>(resolve => forger.once('close', () => resolve()))
    forger.publish('channels/chan-1/messages/dev/1', 'forged', { qos: 1 })
    await closed
    await append(gatewayFrames('g1').seal([record('real')]))
    await until(() => got.length === 1 && counts()?.published === 1)
    assert.is(got[0]!.text, 'real')
  }))

test('where users are named, a wrong token or none is refused', () =>
  withSide(
    async ({ connect }) => {
      const code = (options: { username?: string; password?: string }) =>
        connect(options).then(
          () => 0,
          thrown => thrown.code,
        )
      assert.is(await code({ username: 'erp', password: 'secret' }), 0)
      for (const wrong of [
        {},
        { username: 'erp', password: 'x' },
        { username: 'toString', password: '' },
        { username: 'other', password: '' },
      ]) {
        assert.is(await code(wrong), 4, JSON.stringify(wrong))
      }
    },
    { users: { erp: 'secret' } },
  ))

test('a subscriber that does not read loses messages, counted; another one gets them all', () =>
  withSide(async ({ connect, append, counts }) => {
    const slow = await connect({ clientId: 'slow' })
    await slow.subscribeAsync('channels/#')
    slow.stream.pause()
    const quick = await connect({ clientId: 'quick' })
    const got = collect(quick)
    await quick.subscribeAsync('channels/#')
    const frames = gatewayFrames('g1')
    const large = 'x'.repeat(60_000)
    let sent = 0
    for (let i = 0; i < 100; i++) {
      await append(frames.seal(Array.from({ length: 10 }, () => record(`${sent++} ${large}`))))
      await until(() => got.length === sent, 10_000)
    }
    await until(() => (counts()?.dropped ?? 0) > 0)
    assert.equal(
      got.map(({ text }) => Number(text.split(' ')[0])),
      Array.from({ length: 1_000 }, (_, i) => i),
    )
  }))

test('interest errs only on the side of decoding', () => {
  for (const [wanted, fits] of [
    ['#', true],
    ['channels/#', true],
    ['channels/+/messages/a', true],
    ['channels/chan-1/messages', true],
    ['channels/chan-1/messages/x/+', true],
    ['channels/chan-1', false],
    ['channels/chan-10/messages/#', false],
    ['+/+/other/#', false],
  ] as const) {
    assert.is(mayMatch(wanted, CHANNEL), fits, wanted)
  }
  const interest = openInterest()
  assert.not(interest.isWanted(CHANNEL))
  interest.subscribed('a', 'channels/#')
  assert.ok(interest.isWanted(CHANNEL))
  interest.disconnected('a')
  assert.not(interest.isWanted(CHANNEL))
  interest.connected('a')
  assert.ok(interest.isWanted(CHANNEL))
})

test.run()
