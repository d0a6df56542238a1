import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { encodeSenmlCbor } from '../../../schemas/senml/cbor.ts'
import { encodeSenmlJson } from '../../../schemas/senml/json.ts'
import {
  PACK_BYTES_MAX,
  PACK_RECORDS_MAX,
  type SenmlPack,
  type SenmlRecord,
} from '../../../schemas/senml/record.ts'
import { formatOf, parseSenml, type ResolvedRecord, resolveSenml } from '../../../schemas/senml/resolve.ts'
import { EXAMPLE_CBOR, EXAMPLES, NOW_MS } from './examples.ts'

const parsed = (payload: Uint8Array, format?: 'json' | 'cbor'): SenmlPack => {
  const result = parseSenml(payload, format)
  if (!result.ok) throw new Error(result.because)
  return result.value
}
const refusal = (payload: Uint8Array | string): string => {
  const result = parseSenml(typeof payload === 'string' ? Buffer.from(payload) : payload)
  return result.ok ? 'accepted' : result.because
}
const resolvedJson = (json: string) => resolveSenml(parsed(Buffer.from(json)), NOW_MS)
const hex = (text: string): Buffer => Buffer.from(text.replace(/\s/g, ''), 'hex')
const line = ({ name, unit, time, value }: ResolvedRecord) => [name, unit, time, value]

for (const { section, json, resolved } of EXAMPLES) {
  test(`RFC 8428 section ${section} resolves as published, from JSON and from CBOR`, () => {
    const pack = parsed(Buffer.from(json))
    assert.equal(resolveSenml(pack, NOW_MS).map(line), resolved)
    const again = parsed(encodeSenmlCbor(pack))
    assert.equal(resolveSenml(again, NOW_MS).map(line), resolved)
  })
}

test('RFC 8428 section 6 is read, and written byte for byte', () => {
  const published = hex(EXAMPLE_CBOR)
  const fromJson = EXAMPLES.find(({ section }) => section === '5.1.2, at each second')
  assert.equal(resolveSenml(parsed(published), NOW_MS).map(line), fromJson?.resolved)
  assert.equal(encodeSenmlCbor(parsed(published)).toString('hex'), published.toString('hex'))
})

test('a time below 2^28 is relative to now, from there on absolute', () => {
  const timeOf = (t: number) => resolvedJson(`[{"n":"a","v":1,"t":${t}}]`)[0]?.time
  const now = NOW_MS / 1000
  assert.is(timeOf(0), now)
  assert.is(timeOf(-10), now - 10)
  assert.is(timeOf(2 ** 28 - 1), now + 2 ** 28 - 1)
  assert.is(timeOf(2 ** 28), 2 ** 28)
  assert.is(resolvedJson(`[{"n":"a","v":1,"bt":${2 ** 28},"t":-1}]`)[0]?.time, now + 2 ** 28 - 1)
})

test('base value and base sum are added, and last until they are set anew', () => {
  const records = resolvedJson(
    '[{"bn":"a","bv":10,"bs":100,"v":1},{"v":2,"s":5},{"bv":0,"v":3},{"s":7},{"vs":"x"}]',
  )
  assert.equal(
    records.map(r => [r.value, r.sum]),
    [
      [11, 100],
      [12, 105],
      [3, 100],
      [undefined, 107],
      ['x', 100],
    ],
  )
})

test('update time passes through, and unit wins over base unit', () => {
  const [one, two] = resolvedJson('[{"n":"a","bu":"V","v":1,"ut":30},{"n":"b","u":"A","v":1}]')
  assert.equal([one?.unit, one?.updateTime, two?.unit, two?.updateTime], ['V', 30, 'A', undefined])
})

test('an unknown field is passed over, one that ends in _ is refused', () => {
  assert.equal(
    resolvedJson('[{"n":"a","v":1,"x":{"deep":[1]}}]').map(r => r.value),
    [1],
  )
  assert.match(refusal('[{"n":"a","v":1,"x_":1}]'), /"x_" must be understood/)
  // {0: "a", 2: 1, "x": [[{}]]} and {0: "a", 2: 1, "x_": 1}
  assert.equal(
    resolveSenml(parsed(hex('81 a3 00 6161 02 01 6178 8181a0')), NOW_MS).map(r => r.value),
    [1],
  )
  assert.match(refusal(hex('81 a3 00 6161 02 01 62785f 01')), /"x_" must be understood/)
})

test('a record has exactly one value or a sum, or sets base fields alone', () => {
  assert.match(refusal('[{"n":"a"}]'), /neither a value nor a sum/)
  assert.match(refusal('[{"n":"a","u":"V","t":1}]'), /neither a value nor a sum/)
  assert.match(refusal('[{}]'), /neither a value nor a sum/)
  assert.match(refusal('[{"n":"a","v":1,"vs":"x"}]'), /2 values/)
  assert.match(refusal('[{"n":"a","v":1,"vs":"x","vb":true,"vd":""}]'), /4 values/)
  assert.is(refusal('[{"n":"a","s":1}]'), 'accepted')
  assert.is(refusal('[{"n":"a","v":1,"s":1}]'), 'accepted')
  assert.equal(resolvedJson('[{"bn":"a","bt":-1}]'), [])
})

test('a version above 10, or another than the first record has, is refused', () => {
  assert.is(refusal('[{"n":"a","v":1,"bver":10},{"n":"a","v":1,"bver":10}]'), 'accepted')
  assert.is(refusal('[{"n":"a","v":1},{"n":"a","v":1,"bver":10}]'), 'accepted')
  assert.is(refusal('[{"n":"a","v":1,"bver":5},{"n":"a","v":1}]'), 'accepted')
  assert.match(refusal('[{"n":"a","v":1,"bver":11}]'), /version 11/)
  assert.match(refusal('[{"n":"a","v":1},{"n":"a","v":1,"bver":9}]'), /version 9 in a pack of version 10/)
  assert.match(
    refusal('[{"n":"a","v":1,"bver":5},{"n":"a","v":1,"bver":10}]'),
    /version 10 in a pack of version 5/,
  )
  for (const bver of ['0', '-1', '9.5'])
    assert.match(refusal(`[{"n":"a","v":1,"bver":${bver}}]`), /positive integer/)
})

test('a name has allowed characters only and starts with a letter or digit', () => {
  for (const name of ['a', '0', 'Z-:./_9']) assert.is(refusal(`[{"n":"${name}","v":1}]`), 'accepted', name)
  for (const name of ['a b', 'ü', 'a+', '[2001:db8::1]', 'a\\u0000']) {
    assert.match(refusal(`[{"n":"${name}","v":1}]`), /not allowed/, name)
    assert.match(refusal(`[{"bn":"${name}","v":1}]`), /not allowed/, name)
  }
  for (const name of ['-a', ':a', '.', '/', '_'])
    assert.match(refusal(`[{"n":"${name}","v":1}]`), /does not start/)
  assert.is(refusal('[{"bn":"a","n":"/b","v":1}]'), 'accepted')
  assert.match(refusal('[{"bn":"/","n":"b","v":1}]'), /does not start/)
  assert.match(refusal('[{"v":1}]'), /no name/)
})

test('a long base name cannot be multiplied by many records', () => {
  assert.match(refusal(`[{"bn":"${'a'.repeat(1_000)}","n":"${'b'.repeat(25)}","v":1}]`), /1025 characters/)
})

test('fields of a wrong type are refused with the record and the field', () => {
  assert.is(refusal('[{"n":"a","v":1},{"n":"a","v":"1"}]'), 'record 1: v is not a finite number')
  assert.is(refusal('[{"n":1,"v":1}]'), 'record 0: n is not a string')
  assert.is(refusal('[{"n":"a","vb":1}]'), 'record 0: vb is not a boolean')
  assert.is(refusal('[{"n":"a","vd":"a b"}]'), 'record 0: vd is not base64url')
  assert.is(refusal('[{"n":"a","v":null}]'), 'record 0: v is not a finite number')
  assert.is(refusal('[{"n":"a","v":1e999}]'), 'record 0: v is not a finite number')
  assert.is(refusal('[[]]'), 'record 0: not an object')
  assert.is(refusal(hex('81 a2 00 01 02 01')), 'record 0: n is not text')
  assert.is(refusal(hex('81 a2 00 6161 02 6131')), 'record 0: v is not a number')
  assert.is(refusal(hex('81 a2 00 6161 02 f97c00')), 'record 0: v is not a finite number')
  assert.is(refusal(hex('81 a2 00 6161 04 01')), 'record 0: vb is not a boolean')
  assert.is(refusal(hex('81 01')), 'record 0 is not a map')
})

test('sums that overflow are refused, so that resolution yields finite numbers only', () => {
  assert.match(refusal('[{"n":"a","bv":1e308,"v":1e308}]'), /a value that is no number/)
  assert.match(refusal('[{"n":"a","v":1,"bt":1e308,"t":1e308}]'), /a time that is no number/)
  assert.match(refusal('[{"n":"a","bs":1e308,"s":1e308}]'), /a sum that is no number/)
})

test('the format is told by the first byte', () => {
  assert.is(formatOf(Buffer.from(' \r\n\t[')), 'json')
  assert.is(formatOf(hex('81a0')), 'cbor')
  assert.is(formatOf(hex('9fff')), 'cbor')
  assert.is(formatOf(hex('d9d9f780')), 'cbor')
  for (const other of ['', '  ', '{"n":1}', 'hello', '21.5'])
    assert.is(formatOf(Buffer.from(other)), undefined)
  assert.match(refusal('21.5'), /neither a JSON nor a CBOR array/)
  assert.match(refusal('[]'), /without records/)
  assert.match(refusal(hex('80')), /without records/)
})

test('CBOR: indefinite lengths, tags, half floats and decimal fractions are understood', () => {
  const valueAt = (item: string) => resolveSenml(parsed(hex(`9f bf 00 6161 ${item} ff ff`)), NOW_MS)[0]?.value
  assert.is(valueAt('02 f93e00'), 1.5)
  assert.is(valueAt('02 f90001'), 2 ** -24)
  assert.is(valueAt('02 f9c400'), -4)
  assert.is(valueAt('02 fa47c35000'), 100_000)
  assert.is(valueAt('02 1b0020000000000000'), 2 ** 53)
  assert.is(valueAt('02 3903e7'), -1000)
  assert.is(valueAt('02 c4 82 21 19 6ab3'), 273.15)
  assert.is(valueAt('03 7f 6161 626263 ff'), 'abc')
  assert.equal(valueAt('08 5f 4101 420203 ff'), Buffer.of(1, 2, 3))
  assert.is(valueAt('02 c1 05'), 5)
  assert.is(refusal(hex('d9d9f7 81 a2 00 6161 02 01')), 'accepted')
})

test('CBOR: each number is written in the shortest form that keeps its value', () => {
  const lengths: [number, number][] = [
    [1, 1],
    [300, 3],
    [2 ** 53 - 1, 9],
    [2 ** 60, 5],
    [1e300, 9],
    [0.5, 3],
    [2 ** -20, 5],
    [0.1, 9],
  ]
  for (const [v, length] of lengths) {
    const bytes = encodeSenmlCbor([{ n: 'a', v }])
    assert.is(bytes.length - 6, length, String(v))
    assert.is(parsed(bytes)[0]?.v, v)
  }
})

test('CBOR: what is malformed is refused in words', () => {
  assert.match(refusal(hex('81 a2 00 6161 02')), /cut short/)
  assert.match(refusal(hex('9b ffffffffffffffff')), /cut short/)
  assert.match(refusal(hex('81 a2 00 7a ffffffff 61')), /cut short/)
  assert.match(refusal(hex('81 a2 00 6161 02 01 00')), /bytes behind/)
  assert.match(refusal(hex('81 a2 00 61ff 02 01')), /not UTF-8/)
  assert.match(refusal(hex('81 a2 00 7f 4161 ff 02 01')), /chunk of another type/)
  assert.match(refusal(hex('81 a2 00 6161 02 1c')), /reserved/)
  assert.match(refusal(hex(`81 a1 6178 ${'81'.repeat(40)} 00`)), /deeper than 16/)
  assert.match(refusal(hex(`81 a1 02 ${'c1'.repeat(40)} 00`)), /more than 16 tags/)
  assert.match(refusal(hex('81 a1 6178 ff')), /break/)
})

test('JSON that is not UTF-8 is refused, a real replacement character is not', () => {
  const pack = (character: Buffer) =>
    Buffer.concat([Buffer.from('[{"n":"a","vs":"'), character, Buffer.from('"}]')])
  assert.is(refusal(pack(Buffer.of(0xff))), 'not UTF-8')
  assert.is(refusal(pack(Buffer.from('\ufffd'))), 'accepted')
})

test('packs beyond the limits of bytes and records are refused', () => {
  assert.match(refusal(Buffer.alloc(PACK_BYTES_MAX + 1, '[')), /bytes, at most/)
  assert.match(refusal(Buffer.alloc(PACK_BYTES_MAX + 1, 0x81)), /bytes, at most/)
  const many: SenmlRecord[] = Array.from({ length: PACK_RECORDS_MAX + 1 }, () => ({ n: 'a', v: 1 }))
  assert.match(refusal(encodeSenmlJson(many)), /records, at most/)
  assert.match(refusal(encodeSenmlCbor(many)), /more than 20000 records/)
  assert.is(parsed(encodeSenmlCbor(many.slice(1))).length, PACK_RECORDS_MAX)
})

test('binary data read from CBOR does not keep the frame that it came in', () => {
  const frame = Buffer.alloc(10_000)
  const at = encodeSenmlCbor([{ n: 'a', vd: Buffer.from('xyz') }]).copy(frame)
  const [record] = parsed(frame.subarray(0, at))
  frame.fill(0)
  assert.equal(record?.vd, Buffer.from('xyz'))
})

// A JSON number has no -0.
const number = fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e300, max: 1e300 }).map(v => v + 0)
const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9:./_-]{0,30}$/)
const value = fc.oneof(
  number.map(v => ({ v })),
  fc.integer().map(v => ({ v })),
  fc.string({ unit: 'grapheme' }).map(vs => ({ vs })),
  fc.boolean().map(vb => ({ vb })),
  fc.uint8Array({ maxLength: 40 }).map(bytes => ({ vd: Buffer.from(bytes) })),
  number.map(s => ({ s })),
)
const extras = fc.record(
  {
    u: fc.constantFrom('Cel', '%RH', ''),
    t: number,
    ut: number,
    bt: number,
    bu: fc.constantFrom('V', 'A'),
    bn: name,
    bv: number,
    bs: number,
  },
  { requiredKeys: [] },
)
const packs = fc.array(
  fc.tuple(name, value, extras).map(([n, one, more]): SenmlRecord => ({ n, ...one, ...more })),
  { minLength: 1, maxLength: 8 },
)

test('what is encoded, in either form, is parsed and resolved to the same', () => {
  fc.assert(
    fc.property(packs, pack => {
      const expected = resolveSenml(pack, NOW_MS)
      assert.equal(parsed(encodeSenmlJson(pack)), pack)
      assert.equal(parsed(encodeSenmlCbor(pack)), pack)
      assert.equal(resolveSenml(parsed(encodeSenmlJson(pack)), NOW_MS), expected)
      assert.equal(resolveSenml(parsed(encodeSenmlCbor(pack)), NOW_MS), expected)
    }),
    { numRuns: 500 },
  )
})

test('resolved records are chronological, finite, and as many as have a value or sum', () => {
  fc.assert(
    fc.property(packs, pack => {
      const resolved = resolveSenml(pack, NOW_MS)
      assert.is(resolved.length, pack.length)
      for (const [i, { time }] of resolved.entries()) assert.ok(i === 0 || time >= resolved[i - 1]!.time)
    }),
  )
})

test('malformed input never throws', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.constantFrom(undefined, 'json' as const, 'cbor' as const),
      (bytes, format) => {
        parseSenml(bytes, format)
      },
    ),
    { numRuns: 3_000 },
  )
  fc.assert(
    fc.property(fc.jsonValue(), json => void parseSenml(Buffer.from(JSON.stringify([json])))),
    { numRuns: 1_000 },
  )
  fc.assert(
    fc.property(packs, fc.boolean(), fc.nat(), fc.nat(255), fc.nat(), (pack, binary, at, byte, cut) => {
      const bytes = binary ? encodeSenmlCbor(pack) : encodeSenmlJson(pack)
      bytes[at % bytes.length] = byte
      const result = parseSenml(bytes.subarray(0, cut % 4 === 0 ? cut % bytes.length : bytes.length))
      if (result.ok) resolveSenml(result.value, NOW_MS)
    }),
    { numRuns: 3_000 },
  )
})

test.run()
