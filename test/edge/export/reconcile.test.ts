import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reconcile } from '../../../edge/export/reconcile.ts'
import { type Chain, type Epoch, type Offset, streamName } from '../../../schemas/ids.ts'
import type { ChainAt, StreamState } from '../../../streams/log/log.ts'

const epoch = '00000000000000e1' as Epoch
const chainOf = (offset: number) => offset.toString(16).padStart(32, '0') as Chain
const at = (offset: number) => ({ offset: offset as Offset, chain: chainOf(offset) })
const state: StreamState = {
  name: streamName('data'),
  epoch,
  origin: at(0),
  parent: undefined,
  tail: 101 as Offset,
  head: 200 as Offset,
  chain: chainOf(200),
  mark: at(100),
  forking: false,
  bytes: 1,
}
/** Frames of ten records; 151…170 is a skip. */
const chainAt = (offset: Offset): ChainAt => {
  if (offset > 200) return { kind: 'beyond' }
  if (offset < 100 || (offset > 150 && offset < 170)) return { kind: 'gone' }
  return offset % 10 === 0 ? { kind: 'known', chain: chainOf(offset) } : { kind: 'inside' }
}
const answer = (offset: number, over: Partial<{ epoch: Epoch; chain: Chain }> = {}) =>
  reconcile(state, chainAt, { name: state.name, epoch, ...at(offset), ...over })

test('a mark of ours resumes behind it', () => {
  assert.equal(answer(130), { kind: 'resume', after: at(130) })
  assert.equal(answer(100), { kind: 'resume', after: at(100) })
  assert.equal(answer(200), { kind: 'resume', after: at(200) })
})

test('a mark below the tail leads to a declared skip through the tail', () => {
  assert.equal(answer(40), { kind: 'declare', first: 41, through: at(100) })
  assert.equal(answer(0), { kind: 'declare', first: 1, through: at(100) })
})

test('another chain at our frame, a mark inside a frame and a mark beyond our head are forks', () => {
  assert.is(answer(130, { chain: chainOf(1) }).kind, 'fork')
  assert.is(answer(135).kind, 'fork')
  assert.is(answer(201).kind, 'fork')
})

test('a mark inside a skip cannot be proven, and is taken', () => {
  assert.equal(answer(160), { kind: 'resume', after: at(160) })
})

test('a mark of another epoch, or from before this one began, is refused', () => {
  assert.is(answer(130, { epoch: '00000000000000e2' as Epoch }).kind, 'refuse')
  assert.is(
    reconcile({ ...state, origin: at(50) }, chainAt, { name: state.name, epoch, ...at(40) }).kind,
    'refuse',
  )
})

test.run()
