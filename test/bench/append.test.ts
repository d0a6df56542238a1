// The log's bench, tiny: what was sealed is what is replayed and what the cloud's log took, and every field is there.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { append } from '../../bench/append.ts'
import type { Plot } from '../../bench/harness/plots.ts'
import { silent } from '../../bench/harness/told.ts'
import { flagsOf } from '../../bench/scenario.ts'

const FIELDS = [
  'perSecond',
  'framesPerSecond',
  'p50Ms',
  'p99Ms',
  'recordsPerFrame',
  'framesPerCommit',
  'bytesPerRecord',
  'writtenBytesPerRecord',
  'singlePerSecond',
  'singleFramesPerCommit',
  'singleP50Ms',
  'singleP99Ms',
  'sealedPerSecond',
  'sealedP50Ms',
  'sealedP99Ms',
  'sealedBytesPerRecord',
  'sealedWrittenBytesPerRecord',
  'lonePerSecond',
  'loneP99Ms',
  'loneWrittenBytes',
  'replayPerSecond',
  'readPerSecond',
]

test('every field is there, and the figures agree with one another', async () => {
  const plots: Plot[] = []
  const told = { ...silent, plot: (plot: Plot) => void plots.push(plot) }
  const result = await append.run(flagsOf(append, { tiny: true }), told)
  const of = (name: string): number => {
    const value = result[name]
    assert.ok(typeof value === 'number' && Number.isFinite(value) && value > 0, `${name} is ${String(value)}`)
    return value
  }
  for (const name of FIELDS) of(name)
  assert.is(of('records'), 20_000)
  assert.ok(of('recordsPerFrame') > 100 && of('recordsPerFrame') <= 500, 'frames are as full as they may be')
  const perFrame = of('perSecond') / of('framesPerSecond')
  assert.ok(Math.abs(perFrame / of('recordsPerFrame') - 1) < 0.01, `${perFrame} records a frame`)
  assert.ok(
    of('singleFramesPerCommit') <= of('framesPerCommit'),
    'one message has no more than half a window',
  )
  assert.ok(of('replayPerSecond') > of('readPerSecond'), 'reading opens what replaying hands on')
  assert.ok(of('loneWrittenBytes') >= 4_096, 'a commit writes a page at least')
  for (const what of ['p', 'singleP', 'sealedP']) assert.ok(of(`${what}50Ms`) <= of(`${what}99Ms`), what)
  assert.match(String(result['durability']), /fdatasync/)
  assert.ok(plots.every(({ lines }) => lines.every(({ points }) => points.length > 1)))
  assert.is(plots.length, 2)
})

test.run()
