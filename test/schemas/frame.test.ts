import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { packPart, packWhole, unpack } from '../../schemas/bundle.ts'
import {
  chainAfter,
  crcOf,
  FrameError,
  readHeader,
  readRecords,
  restampFrame,
  SKIP_CAUSES,
  type Stamp,
  sealFrame,
  sealSkip,
  shortenSkip,
} from '../../schemas/frame.ts'
import {
  bootIdOf,
  CHAIN_ZERO,
  type Chain,
  epochOf,
  OFFSET_MAX,
  type Offset,
  streamName,
} from '../../schemas/ids.ts'
import type { TakenRecord } from '../../schemas/records.ts'

const stream = streamName('data')
const epoch = epochOf(Buffer.alloc(8, 1))
const stamp: Stamp = {
  wallMs: 1_800_000_000_123,
  monoMs: 5_000,
  bootId: bootIdOf(Buffer.alloc(8, 2)),
  quality: 'synchronised',
}
const at = (first: number) => ({ stream, epoch, first: first as Offset, previous: CHAIN_ZERO })

const record = fc.record({
  topic: fc.string({ minLength: 1, maxLength: 40, unit: 'grapheme' }),
  payload: fc.uint8Array({ maxLength: 300 }),
  qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
  retain: fc.boolean(),
  receivedMonoMs: fc.integer({ min: 0, max: 5_000 }),
})
const taken = fc
  .array(record, { minLength: 1, maxLength: 60 })
  .map(records => records.toSorted((a, b) => a.receivedMonoMs - b.receivedMonoMs) as TakenRecord[])

const throwsFrameError = (step: () => unknown): boolean => {
  try {
    step()
    return false
  } catch (thrown) {
    if (thrown instanceof FrameError) return true
    throw thrown
  }
}

test('records come back as they were taken, with topic, bytes, QoS, retain and the time of their receipt', () => {
  fc.assert(
    fc.property(
      taken,
      fc.constantFrom('plain' as const, 'deflate' as const),
      fc.integer({ min: 1, max: OFFSET_MAX - 100 }),
      (records, codec, first) => {
        const frame = sealFrame(records, at(first), stamp, codec)
        const header = readHeader(frame)
        assert.equal(
          [header.first, header.last, header.count],
          [first, first + records.length - 1, records.length],
        )
        assert.is(header.crc, crcOf(frame))
        assert.equal(
          readRecords(frame).map(r => ({ ...r, payload: [...r.payload] })),
          records.map(({ receivedMonoMs, payload, ...rest }) => ({
            ...rest,
            payload: [...payload],
            receivedAtMs: stamp.wallMs - (stamp.monoMs - receivedMonoMs),
          })),
        )
      },
    ),
  )
})

test('what compresses is stored compressed, and what does not is stored plain', () => {
  const many = (payload: (i: number) => Buffer) =>
    Array.from(
      { length: 100 },
      (_, i): TakenRecord => ({ topic: 't', payload: payload(i), qos: 1, retain: false, receivedMonoMs: 0 }),
    )
  const text = sealFrame(
    many(i => Buffer.from(`{"temperature":${i}}`)),
    at(1),
    stamp,
  )
  assert.is(readHeader(text).codec, 'deflate')
  assert.ok(text.length < 1_000, `${text.length}`)
  assert.is(readHeader(sealFrame(many(() => randomBytes(2_000)).slice(0, 2), at(1), stamp)).codec, 'plain')
})

test('any flipped bit is noticed by the checksum or refused by the header', () => {
  const frame = sealFrame(
    [{ topic: 'a', payload: Buffer.from('payload'), qos: 1, retain: false, receivedMonoMs: 1 }],
    at(7),
    stamp,
  )
  for (let bit = 0; bit < frame.length * 8; bit++) {
    const damaged = Buffer.from(frame)
    damaged[bit >> 3]! ^= 1 << (bit & 7)
    const noticed = throwsFrameError(() => {
      const header = readHeader(damaged)
      if (header.length !== damaged.length || crcOf(damaged) !== header.crc) throw new FrameError('noticed')
    })
    assert.ok(noticed, `bit ${bit}`)
  }
})

test('cut, extended or random bytes never give records, and never anything but a FrameError', () => {
  const frame = sealFrame(
    Array.from({ length: 20 }, (_, i) => ({
      topic: `t${i}`,
      payload: Buffer.from(`payload ${i}`),
      qos: 1,
      retain: false,
      receivedMonoMs: i,
    })),
    at(1),
    stamp,
  )
  for (let length = 0; length < frame.length; length++) {
    assert.ok(
      throwsFrameError(() => {
        if (readHeader(frame.subarray(0, length)).length !== length) throw new FrameError('short')
      }),
      `${length}`,
    )
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(frame.length - 1), (noise, from) => {
      const damaged = Buffer.from(frame)
      damaged.set(noise.subarray(0, damaged.length - from), from)
      try {
        readRecords(damaged)
      } catch (thrown) {
        assert.ok(thrown instanceof FrameError, String(thrown))
      }
    }),
    { numRuns: 2_000 },
  )
})

test('a body that inflates beyond what the header announced is refused', () => {
  const frame = sealFrame(
    [{ topic: 't', payload: Buffer.alloc(500_000), qos: 0, retain: false, receivedMonoMs: 0 }],
    at(1),
    stamp,
  )
  frame.writeUInt32BE(1_000, 12)
  assert.ok(throwsFrameError(() => readRecords(frame)))
})

test('the chain depends on every frame before', () => {
  const one = sealFrame(
    [{ topic: 't', payload: Buffer.from('1'), qos: 0, retain: false, receivedMonoMs: 0 }],
    at(1),
    stamp,
  )
  const other = sealFrame(
    [{ topic: 't', payload: Buffer.from('2'), qos: 0, retain: false, receivedMonoMs: 0 }],
    at(1),
    stamp,
  )
  const next = (after: Buffer) =>
    readHeader(
      sealFrame(
        [{ topic: 't', payload: Buffer.from('3'), qos: 0, retain: false, receivedMonoMs: 0 }],
        { ...at(2), previous: readHeader(after).chain },
        stamp,
      ),
    ).chain
  assert.is(chainAfter(CHAIN_ZERO, one), readHeader(one).chain)
  assert.is.not(next(one), next(other))
})

test('a skip stands for offsets, carries a cause and a chain, and can be shortened', () => {
  const chain = 'ab'.repeat(16) as Chain
  for (const cause of SKIP_CAUSES) {
    const skip = sealSkip(
      { stream, epoch, first: 10 as Offset, count: 1_000_000_000_000, cause, chain },
      stamp,
    )
    const header = readHeader(skip)
    assert.equal(
      [header.kind, header.cause, header.first, header.count, header.chain, header.crc],
      ['skip', cause, 10, 1_000_000_000_000, chain, crcOf(skip)],
    )
    assert.equal(readRecords(skip), [])
    const rest = readHeader(shortenSkip(skip, 500 as Offset))
    assert.equal([rest.first, rest.last, rest.chain], [500, header.last, chain])
  }
})

test('restamping changes epoch and chain, and not a byte of the records', () => {
  const frame = sealFrame(
    [{ topic: 't', payload: Buffer.from('kept'), qos: 1, retain: true, receivedMonoMs: 0 }],
    at(3),
    stamp,
  )
  const again = restampFrame(frame, epochOf(Buffer.alloc(8, 9)), 'cd'.repeat(16) as Chain)
  assert.equal(readRecords(again), readRecords(frame))
  assert.is(readHeader(again).crc, crcOf(again))
  assert.is.not(readHeader(again).chain, readHeader(frame).chain)
})

test('bundles carry whole frames or one part, and refuse every other form', () => {
  const frames = [1, 2, 3].map(first =>
    sealFrame(
      [{ topic: 't', payload: Buffer.alloc(first * 10), qos: 0, retain: false, receivedMonoMs: 0 }],
      at(first),
      stamp,
    ),
  )
  const whole = packWhole(frames)
  assert.equal(unpack(whole), { kind: 'whole', frames })
  const part = { first: 5, total: 100, position: 40, bytes: Buffer.alloc(60, 1) }
  assert.equal(unpack(packPart(part)), { kind: 'part', part })
  for (let length = 0; length < whole.length; length++) {
    const ends = frames.map((_, i) => 1 + frames.slice(0, i + 1).reduce((sum, f) => sum + f.length, 0))
    if (!ends.includes(length))
      assert.ok(
        throwsFrameError(() => unpack(whole.subarray(0, length))),
        `${length}`,
      )
  }
  for (const bad of [Buffer.of(3), packPart({ ...part, total: 50 }), Buffer.of(2, 0, 0)])
    assert.ok(throwsFrameError(() => unpack(bad)))
})

test.run()
