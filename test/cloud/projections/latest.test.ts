import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DEAD_LETTERS_MAX, deadLetterPage, deadLetters } from '../../../cloud/projections/dead-letters.ts'
import { drainChanged, latest, latestPage, watchLatest } from '../../../cloud/projections/latest.ts'
import { NAMES_MAX } from '../../../cloud/projections/latest-slots.ts'
import { readLean } from '../../../cloud/projections/lean.ts'
import { parseSenml, resolveSenml } from '../../../schemas/senml/resolve.ts'
import { mount } from '../../../streams/fold/member.ts'
import { gatewayFrames, type Sent, STAMP, undecodable } from '../../support/gateway-frames.ts'
import { data, folded, START_MS } from './support.ts'

const page = (records: readonly Sent[], limit = 100) =>
  latestPage(folded(latest, [data(gatewayFrames('g1').seal(records))]), { gateway: 'g1', limit })
const senml = (pack: unknown, topic = 'a/b'): Sent => ({ topic, payload: JSON.stringify(pack) })

test('the newest value of each name is kept, with its unit, time and offset', () => {
  const { values, names, records } = page([
    senml([{ bn: 'dev:', n: 't', u: 'Cel', bt: 1.75e9, v: 20 }], 'old'),
    senml([{ bn: 'dev:', n: 't', u: 'Cel', bt: 1.75e9, t: 1.5, v: 21.5 }], 'new'),
    senml([{ n: 'door', vb: true }]),
  ])
  assert.equal(
    values.map(({ name, value, unit, topic, offset, updates, atMs, stream }) => [
      name,
      value,
      unit,
      topic,
      offset,
      updates,
      atMs,
      stream,
    ]),
    [
      ['dev:t', 21.5, 'Cel', 'new', 2, 2, 1.7500000015e12, 'data'],
      ['door', true, undefined, 'a/b', 3, 1, STAMP.wallMs, 'data'],
    ],
  )
  assert.equal([names, records], [2, 3])
})

test('a pack of many records, and CBOR, update each of their names', () => {
  const cbor = Buffer.from('81a200616302fb40370000000000 00'.replaceAll(' ', ''), 'hex')
  const { values, topics } = page([
    senml([
      { bn: 'd/', n: 'x', v: 1 },
      { n: 'y', vs: 'on' },
      { n: 'z', vd: 'AQI' },
    ]),
    { topic: 'c', payload: cbor },
  ])
  const shown = values.map(({ name, value, form }) => [name, value, form])
  assert.equal(shown.slice(0, 3), [
    ['d/x', 1, 'value'],
    ['d/y', 'on', 'value'],
    ['d/z', 'AQI', 'data'],
  ])
  assert.is(values.length + topics.length, 4)
})

test('what is not SenML arrives all the same, under its topic', () => {
  const { values, topics } = page([
    { topic: 'raw', payload: Buffer.from([0xff, 0xfe]) },
    { topic: 'text', payload: 'hello' },
    { topic: 'text', payload: 'later' },
    { topic: 'broken', payload: '[{"n":"x","v":1}' },
    { topic: 'wrong', payload: '[{"n":"x","v":"no number"}]' },
    { topic: 'long', payload: 'é'.repeat(200) },
  ])
  assert.equal(values, [])
  assert.equal(
    topics.map(({ topic, bytes, encoding, updates }) => [topic, bytes, encoding, updates]),
    [
      ['raw', 2, 'base64', 1],
      ['text', 5, 'utf8', 2],
      ['broken', 16, 'utf8', 1],
      ['wrong', 27, 'utf8', 1],
      ['long', 400, 'utf8', 1],
    ],
  )
  assert.is(topics[1]!.preview, 'later')
  assert.is(topics[4]!.preview, 'é'.repeat(128))
})

test('names of a gateway are bounded: new ones are counted, known ones go on', () => {
  const frames = gatewayFrames('g1')
  const given = []
  for (let first = 0; first < NAMES_MAX + 500; first += 500) {
    given.push(
      data(frames.seal(Array.from({ length: 500 }, (_, i) => senml([{ n: `n${first + i}`, v: 1 }])))),
    )
  }
  given.push(data(frames.seal([senml([{ n: 'n0', v: 2 }]), { topic: 'other', payload: 'x' }])))
  const view = folded(latest, given)
  const { names, namesMax, refused, values } = latestPage(view, { gateway: 'g1', prefix: 'n0', limit: 10 })
  assert.equal([names, namesMax, refused], [NAMES_MAX, NAMES_MAX, 501])
  assert.is(values[0]!.value, 2)
})

test('a time that no calendar holds is shown as the last one that it does', () => {
  const { values } = page([
    senml([{ n: 'x', v: 1, bt: 1e300 }]),
    senml([{ n: 'x', v: 1, bt: 1e300 }]),
    senml([{ n: 'y', v: 1, t: -1e300 }]),
  ])
  assert.equal(
    values.map(({ atMs }) => new Date(atMs).toISOString()),
    ['+275760-09-13T00:00:00.000Z', '-271821-04-20T00:00:00.000Z'],
  )
})

test('a topic or a text that is too long for a key or a view is counted or cut', () => {
  const { topics, values, refused } = page([
    { topic: 't'.repeat(2_000), payload: 'x' },
    senml([{ n: 'text', vs: 'y'.repeat(300) }]),
  ])
  assert.equal([topics.length, refused], [0, 1])
  assert.equal([values[0]!.value, values[0]!.cut], ['y'.repeat(256), true])
})

test('gateways and streams whose names begin alike are kept apart', () => {
  const view = folded(latest, [
    data(gatewayFrames('g1').seal([senml([{ n: 'x', v: 1 }])])),
    data(gatewayFrames('g11').seal([senml([{ n: 'x', v: 2 }])])),
    data(gatewayFrames('g1', 'gateway').seal([senml([{ n: 'x', v: 3 }])])),
  ])
  const values = latestPage(view, { gateway: 'g1', limit: 9 }).values.map(
    ({ stream, value }) => `${stream} ${value}`,
  )
  assert.equal(values.sort(), ['data 1', 'gateway 3'])
})

test('what the lean reader accepts, the full parser reads the same way', () => {
  const scalar = fc.oneof(fc.double(), fc.integer(), fc.string(), fc.boolean(), fc.constant(null))
  const field = fc.constantFrom(
    'bn',
    'bt',
    'bu',
    'bv',
    'n',
    'u',
    't',
    'v',
    'vs',
    'vb',
    'vd',
    's',
    'bver',
    'ut',
    'x',
    'must_',
    '__proto__',
  )
  const value = fc.oneof(
    fc.record({ v: fc.double({ noNaN: true }) }),
    fc.record({ vs: fc.oneof(fc.string(), fc.string({ unit: 'binary' })) }),
    fc.record({ vb: fc.boolean() }),
    fc.record({ v: fc.integer(), vs: fc.string() }),
  )
  const bases = fc.record(
    {
      bn: fc.constantFrom('dev:', 'dev:', 'é', '-x'),
      n: fc.constantFrom('t', 't', '', 'a b', 'ü'),
      bt: fc.oneof(fc.double({ noNaN: true }), fc.constantFrom(1.75e9, -5)),
      t: fc.double({ noNaN: true, min: -1e3, max: 1e3 }),
      bu: fc.constantFrom<string | number>('Cel', 'Cel', 'é', 5),
      u: fc.constantFrom('m', 'm', '°', null),
    },
    { requiredKeys: [] },
  )
  const likely = fc.tuple(bases, value).map(([base, one]) => ({ ...base, ...one }))
  const wild = fc.dictionary(field, scalar)
  let accepted = 0
  fc.assert(
    fc.property(fc.oneof(likely, wild), record => {
      const payload = Buffer.from(JSON.stringify([record]).replaceAll('null', '1e999'))
      const lean = readLean(payload)
      if (lean === undefined || !/^[A-Za-z0-9][-A-Za-z0-9:./_]*$/.test(lean.name)) return
      accepted += 1
      const pack = parseSenml(payload)
      assert.ok(pack.ok, payload.toString())
      const [full, ...rest] = resolveSenml(pack.value, 0)
      assert.is(rest.length, 0)
      assert.equal(
        [full?.name, full?.unit, full?.value, full?.sum],
        [lean.name, lean.unit, lean.value, undefined],
        payload.toString(),
      )
      assert.ok(Math.abs((full?.time ?? 0) * 1_000 - lean.timeMs) <= Math.abs(lean.timeMs) * 1e-12)
    }),
    { numRuns: 5_000, seed: 5 },
  )
  assert.ok(accepted > 150, `${accepted} accepted`)
})

test('watchers are told of changed values, in portions, each once', () => {
  const { view, apply } = mount(latest)
  const frames = gatewayFrames('g1')
  const send = (...names: string[]) =>
    apply([{ ...frames.seal(names.map(n => senml([{ n, v: 1 }]))), seq: 1, receivedAtMs: START_MS }], 'data')
  send('before')
  assert.equal(drainChanged(view, 9), [])
  watchLatest(view, true)
  send('a', 'b', 'a', 'c')
  assert.equal(
    drainChanged(view, 2).map(({ gateway, stream, name }) => `${gateway} ${stream} ${name}`),
    ['g1 data a', 'g1 data b'],
  )
  assert.equal(
    drainChanged(view, 2).map(({ name }) => name),
    ['c'],
  )
  watchLatest(view, false)
  send('a')
  assert.equal(drainChanged(view, 9), [])
})

test('a frame that cannot be decoded is a dead letter and holds nothing up', () => {
  const frames = gatewayFrames('g1')
  const good = frames.seal([senml([{ n: 'x', v: 1 }])])
  const bad = undecodable(frames.seal([senml([{ n: 'x', v: 2 }])]))
  const headless = { ...good, frame: Buffer.from('nonsense') }
  const given = [data(good), data(bad), data(headless), data(frames.seal([senml([{ n: 'x', v: 3 }])]))]
  assert.is(latestPage(folded(latest, given), { gateway: 'g1', limit: 9 }).values[0]!.value, 3)
  const { total, letters } = deadLetterPage(folded(deadLetters, given), 9)
  assert.is(total, 2)
  assert.equal(
    letters.map(({ seq, stream, first }) => [seq, stream, first]),
    [
      [3, undefined, undefined],
      [2, 'data', 2],
    ],
  )
})

test('the last thousand dead letters are kept, all are counted', () => {
  const headless = {
    ...gatewayFrames('g1').seal([{ topic: 't', payload: 'x' }]),
    frame: Buffer.from('nonsense'),
  }
  const view = folded(
    deadLetters,
    Array.from({ length: DEAD_LETTERS_MAX + 7 }, () => data(headless)),
  )
  const { total, letters } = deadLetterPage(view, 5_000)
  assert.equal([total, letters.length, letters[0]!.seq, letters.at(-1)!.seq], [1007, 1000, 1007, 8])
})

test.run()
