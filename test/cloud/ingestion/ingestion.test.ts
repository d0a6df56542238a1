import { Subject } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Uplink } from '../../../cloud/context.ts'
import { openAssembler } from '../../../cloud/ingestion/assemble.ts'
import { openCredit } from '../../../cloud/ingestion/credit.ts'
import { ingest } from '../../../cloud/ingestion/ingest.ts'
import type { IngestionNotice } from '../../../cloud/ingestion/ports.ts'
import { receiveFrame } from '../../../cloud/ingestion/receive.ts'
import { packPart, packWhole, unpack } from '../../../schemas/bundle.ts'
import { restampFrame, sealFrame, sealSkip } from '../../../schemas/frame.ts'
import { encodeHello, type Hello, type HelloStream, type Mark } from '../../../schemas/hello.ts'
import { CHAIN_ZERO, type Chain, epochOf, gatewayId, type Offset } from '../../../schemas/ids.ts'
import { clock, DATA, EVENTS, record } from '../../support/logs.ts'
import { memoryCloudLog } from '../../support/memory-cloud-log.ts'
import { virtualClock } from '../../support/virtual-clock.ts'

const epoch = epochOf(Buffer.alloc(8, 1))
const stamp = { wallMs: 1, monoMs: 1, bootId: clock.bootId, quality: 'synchronised' as const }
const G = gatewayId('g')

/** Frames of `count` records each, chained. */
const chain = (counts: readonly number[], stream = DATA): Buffer[] => {
  let previous: Chain = CHAIN_ZERO
  let first = 1
  return counts.map(count => {
    const frame = sealFrame(
      Array.from({ length: count }, (_, i) => record(`r${first + i}`)),
      { stream, epoch, first: first as Offset, previous },
      stamp,
    )
    previous = frame.toString('hex', 58, 74) as Chain
    first += count
    return frame
  })
}
const at = () => ({ stream: DATA, epoch, received: { offset: 0 as Offset, chain: CHAIN_ZERO as Chain } })

test('a frame is taken only behind the one before it, by offset and by chain', () => {
  const [one, two, three] = chain([2, 3, 1]) as [Buffer, Buffer, Buffer]
  const place = at()
  assert.is(receiveFrame(two, place).kind, 'early')
  const taken = receiveFrame(one, place)
  assert.is(taken.kind, 'taken')
  if (taken.kind === 'taken') place.received = taken.position
  assert.is(receiveFrame(one, place).kind, 'duplicate')
  const other = sealFrame(
    [record('x'), record('y'), record('z')],
    { stream: DATA, epoch, first: 3 as Offset, previous: CHAIN_ZERO },
    stamp,
  )
  const refused = receiveFrame(other, place)
  assert.ok(refused.kind === 'refused' && refused.code === 'frame_chain')
  assert.is(receiveFrame(two, place).kind, 'taken')
  assert.is(receiveFrame(three, place).kind, 'early')
})

test('a wrong checksum, another epoch, another stream, an overlap and a torn frame are each refused by their code', () => {
  const [one] = chain([5]) as [Buffer]
  const code = (bytes: Buffer, place = at()) => {
    const outcome = receiveFrame(bytes, place)
    return outcome.kind === 'refused' ? outcome.code : outcome.kind
  }
  const damaged = Buffer.from(one)
  damaged[damaged.length - 1]! ^= 1
  assert.is(code(damaged), 'frame_crc')
  assert.is(code(restampFrame(one, epochOf(Buffer.alloc(8, 2)), CHAIN_ZERO)), 'frame_epoch')
  assert.is(code(chain([5], EVENTS)[0]!), 'frame_malformed')
  assert.is(code(one, { ...at(), received: { offset: 3 as Offset, chain: CHAIN_ZERO } }), 'frame_sequence')
  assert.is(code(one.subarray(0, 40)), 'frame_malformed')
  assert.is(code(Buffer.concat([one, Buffer.of(0)])), 'frame_malformed')
})

test('a skip is taken where data is missing, also when part of it was received already', () => {
  const skip = sealSkip(
    { stream: DATA, epoch, first: 1 as Offset, count: 10, cause: 'quota', chain: 'ab'.repeat(16) as Chain },
    stamp,
  )
  const outcome = receiveFrame(skip, { ...at(), received: { offset: 4 as Offset, chain: CHAIN_ZERO } })
  assert.ok(
    outcome.kind === 'taken' && outcome.position.offset === 10 && outcome.frame.readUIntBE(24, 6) === 5,
  )
})

test('parts in order make the frame; one out of place drops what was begun', () => {
  const frame = Buffer.from('0123456789')
  const part = (position: number, length: number) =>
    unpack(packPart({ first: 1, total: 10, position, bytes: frame.subarray(position, position + length) }))
  const whole = openAssembler()
  assert.equal(whole.add(part(0, 4)), [])
  assert.equal(whole.add(part(4, 4)), [])
  assert.equal(whole.add(part(8, 2)), [frame])
  const torn = openAssembler()
  torn.add(part(0, 4))
  assert.equal(torn.add(part(6, 4)), [])
  assert.equal(torn.add(part(8, 2)), [])
})

test('credit: no backlog always has the base; backlogs share the rest; who comes too late waits for one to end', () => {
  const served: string[] = []
  const limits = { budgetBytes: 100, baseBytes: 10, baseBytesMin: 4, shareBytesMin: 25, shareBytesMax: 60 }
  const credit = openCredit(limits, gateway => served.push(gateway))
  const names = ['a', 'b', 'c', 'd'].map(gatewayId)
  credit.present(names[0]!, true)
  assert.is(credit.of(names[0]!), 60)
  for (const name of names) credit.present(name, true)
  assert.equal(
    names.map(name => credit.of(name)),
    [25, 25, 25, 0],
  )
  assert.is(credit.waiting(), 1)
  credit.present(names[1]!, false)
  assert.equal(served, ['d'])
  assert.equal(
    names.map(name => credit.of(name)),
    [25, 6, 25, 25],
  )
  credit.gone(names[0]!)
  assert.is(credit.of(names[2]!), 37)
  for (let i = 0; i < 100; i++) credit.present(gatewayId(`live-${i}`), false)
  assert.is(credit.of(gatewayId('live-7')), 4, 'many share a quarter of the budget')
})

const stream = (over: Partial<HelloStream> = {}): HelloStream => ({
  name: DATA,
  epoch,
  origin: { offset: 0 as Offset, chain: CHAIN_ZERO },
  tail: 1 as Offset,
  head: 0 as Offset,
  mark: { offset: 0 as Offset, chain: CHAIN_ZERO },
  waitingBytes: 0,
  ...over,
})
const hello = (streams: HelloStream[], connection = '00000000000000c1'): Buffer => {
  const said: Hello = {
    protocol: 1,
    version: 'test',
    connection,
    bootId: clock.bootId,
    clock: { wallMs: 1, quality: 'synchronised' },
    streams,
  }
  return encodeHello(said)
}

const running = () => {
  const uplink$ = new Subject<Uplink>()
  const time = virtualClock()
  const { scheduler } = time
  const pass = (ms: number): void => {
    scheduler.maxFrames = scheduler.frame + ms
    scheduler.flush()
    scheduler.frame = scheduler.maxFrames
  }
  const log = memoryCloudLog()
  const commits: number[] = []
  const marks: Mark[] = []
  const asked: string[] = []
  const closed: string[] = []
  const notices: IngestionNotice[] = []
  const events = () => log.kept('events').flatMap(entry => (entry.kind === 'event' ? [entry.event.kind] : []))
  const held = ingest({
    log: {
      ...log,
      append: (logClass, bodies, moved) => {
        if (logClass === 'data') commits.push(bodies.length)
        return log.append(logClass, bodies, moved)
      },
    },
    clock: time,
    uplink$,
    sendMark: (_, payload) => marks.push(JSON.parse(payload.toString()) as Mark),
    sendWho: gateway => asked.push(gateway),
    close: (gateway, because) => closed.push(`${gateway} ${because}`),
  }).subscribe(notice => notices.push(notice))
  const say = (payload: Buffer, connection = 'c1') => {
    uplink$.next({ kind: 'hello', gateway: G, connection, payload })
    pass(100)
  }
  const sendAtOnce = (frames: readonly Buffer[], connection = 'c1') =>
    uplink$.next({ kind: 'export', gateway: G, connection, stream: DATA, payload: packWhole(frames) })
  const send = (frames: readonly Buffer[], connection = 'c1') => {
    sendAtOnce(frames, connection)
    pass(100)
  }
  return { uplink$, log, commits, closed, marks, asked, notices, events, say, send, sendAtOnce, pass, held }
}

test('frames before a hello are not taken: the gateway is asked for one', () => {
  const { send, asked, log, held } = running()
  send(chain([1]))
  assert.equal(asked, ['g'])
  assert.is(log.head('data'), 0)
  held.unsubscribe()
})

test('a hello is answered with marks and credit, frames with a mark once they are durable', () => {
  const { say, send, marks, log, held } = running()
  say(hello([stream()]))
  assert.equal(
    [marks[0]!.answers, marks[0]!.streams[0]!.offset, marks[0]!.creditBytes > 0],
    ['00000000000000c1', 0, true],
  )
  send(chain([2, 3]))
  assert.is(log.head('data'), 2)
  assert.equal([marks[1]!.answers, marks[1]!.streams[0]!.offset], [undefined, 5])
  held.unsubscribe()
})

test('after a pause a frame is committed at once; what follows within five milliseconds shares a commit', () => {
  const { say, sendAtOnce, pass, commits, marks, held } = running()
  say(hello([stream()]))
  for (const frame of chain([1, 1, 1, 1])) sendAtOnce([frame])
  assert.equal(commits, [1], 'the first does not wait')
  pass(4)
  assert.equal(commits, [1])
  pass(1)
  assert.equal(commits, [1, 3])
  assert.is(marks.at(-1)!.streams[0]!.offset, 4)
  held.unsubscribe()
})

test('who came waits for company, a skip that the cloud has to know of does not', () => {
  const { uplink$, events, pass, held } = running()
  const came = (connection: string, payload: Buffer) =>
    uplink$.next({ kind: 'hello', gateway: G, connection, payload })
  const hellos = () => events().filter(kind => kind === 'hello').length
  came('c1', hello([stream()]))
  pass(100)
  came('c2', hello([stream()], '00000000000000c2'))
  came('c4', hello([stream()], '00000000000000c4'))
  assert.is(hellos(), 2, 'after a pause at once, the next with what follows')
  came('c3', hello([stream({ tail: 11 as Offset, head: 20 as Offset })], '00000000000000c3'))
  assert.ok(events().includes('mark_behind_tail'))
  pass(100)
  assert.is(hellos(), 4)
  held.unsubscribe()
})

test('a duplicate is dropped and counted; a malformed hello or frame is refused, and nothing that was taken is touched', () => {
  const { say, send, marks, notices, events, log, uplink$, held } = running()
  say(hello([stream()]))
  const frames = chain([2, 3])
  send(frames)
  send(frames)
  assert.is(log.head('data'), 2)
  assert.ok(notices.some(notice => notice.kind === 'duplicates' && notice.count === 2))
  uplink$.next({
    kind: 'export',
    gateway: G,
    connection: 'c1',
    stream: DATA,
    payload: Buffer.from('nonsense'),
  })
  say(Buffer.from('{"protocol":1}'), 'c2')
  assert.is(notices.filter(({ kind }) => kind === 'refused').length, 2)
  assert.is(log.head('data'), 2)
  assert.is(marks.at(-1)!.streams[0]!.offset, 5)
  assert.ok(events().includes('frame_refused') && events().includes('duplicates_dropped'))
  held.unsubscribe()
})

test('another protocol version is refused with its number', () => {
  const { say, notices, marks, held } = running()
  say(Buffer.from(hello([stream()]).toString().replace('"protocol":1', '"protocol":99')))
  assert.ok(notices.some(notice => notice.kind === 'refused' && notice.because.includes('99')))
  assert.is(marks.length, 0)
  held.unsubscribe()
})

test('a forked epoch begins at its origin and is recorded as a fork', () => {
  const { say, send, events, marks, held } = running()
  say(hello([stream()]))
  send(chain([2, 3]))
  const forked = epochOf(Buffer.alloc(8, 9))
  const origin = { offset: 2 as Offset, chain: chain([2])[0]!.toString('hex', 58, 74) as Chain }
  say(
    hello(
      [stream({ epoch: forked, origin, parent: epoch, tail: 3 as Offset, head: 3 as Offset })],
      '00000000000000c2',
    ),
    'c2',
  )
  assert.ok(events().includes('forked'))
  assert.equal(marks.at(-1)!.streams[0], { name: DATA, epoch: forked, ...origin })
  held.unsubscribe()
})

test("a mark below the gateway's tail is recorded, and the declared skip is taken", () => {
  const { say, send, events, marks, held } = running()
  say(hello([stream({ tail: 11 as Offset, head: 20 as Offset })]))
  assert.ok(events().includes('mark_behind_tail'))
  send([
    sealSkip(
      {
        stream: DATA,
        epoch,
        first: 1 as Offset,
        count: 10,
        cause: 'trimmed_after_mark',
        chain: 'ab'.repeat(16) as Chain,
      },
      stamp,
    ),
  ])
  assert.is(marks.at(-1)!.streams[0]!.offset, 10)
  held.unsubscribe()
})

test.run()
