import fc from 'fast-check'
import { concatMap, defer, lastValueFrom, of, Subject, throwError } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type FoldState, fold } from '../../../streams/fold/fold.ts'
import { mount } from '../../../streams/fold/member.ts'
import type { Projection } from '../../../streams/fold/projection.ts'
import type { CloudBody, LogClass } from '../../../streams/log/cloudlog.ts'
import { memoryStore } from '../../../streams/log/memory.ts'
import type { Row, Store } from '../../../streams/log/store.ts'
import { fault } from '../../../streams/run/fault.ts'
import { type MemoryCloudLog, memoryCloudLog } from '../../support/memory-cloud-log.ts'
import { virtualClock } from '../../support/virtual-clock.ts'

interface Tally {
  seqs: number[]
}
const bodyOf = (key: string): CloudBody => ({ kind: 'event', event: { kind: 'cloud_stopped', run: key } })

/** Counts what it saw, per class and key; every third entry removes its key. Nothing idempotent about it. */
const tallies = (
  name: string,
  version = 1,
  classes: readonly LogClass[] = ['data', 'events'],
): Projection<Tally> => ({
  name,
  version,
  classes,
  apply: (view, page) => {
    for (const entry of page) {
      if (entry.kind !== 'event' || entry.event.kind !== 'cloud_stopped') continue
      const key = entry.event.run
      if (key.endsWith('gone')) view.delete(key.slice(0, -5))
      const known = view.get(key)
      if (known === undefined) view.set(key, { seqs: [entry.seq] })
      else {
        known.seqs.push(entry.seq)
        view.touch(key)
      }
    }
  },
})

const contents = (view: { keys(prefix: string): Iterable<string>; get(key: string): Tally | undefined }) =>
  Object.fromEntries([...view.keys('')].sort().map(key => [key, view.get(key)?.seqs]))

interface RunOptions {
  readonly log: MemoryCloudLog
  readonly store: Store
  readonly projections: readonly Projection<Tally>[]
  readonly checkpointEntriesMax?: number
  readonly laneEntriesMax?: number
}
/** Folds to the head in virtual time. */
const runOnce = ({ log, store, projections, ...limits }: RunOptions) => {
  const clock = virtualClock()
  const members = projections.map(projection => mount(projection))
  const states: FoldState[] = []
  let failed: unknown
  let complete = false
  fold({ reader: log, members, store, clock, atHead: 'complete', ...limits }).subscribe({
    next: state => states.push(state),
    error: thrown => {
      failed = thrown
    },
    complete: () => {
      complete = true
    },
  })
  clock.scheduler.flush()
  return { members, states, failed, complete }
}

const appended = (keys: Partial<Record<LogClass, readonly string[]>>): MemoryCloudLog => {
  const log = memoryCloudLog()
  for (const logClass of ['data', 'events'] as const)
    for (const key of keys[logClass] ?? []) log.append(logClass, [bodyOf(key)], []).subscribe()
  return log
}

/** Dies at the given commits, before or after they are durable. */
const crashing = (
  rows: Map<string, Row[]>,
  deaths: readonly ('before' | 'after' | 'none')[],
): { store: Store; left: () => number } => {
  const real = memoryStore(rows)
  let at = 0
  const died = () => throwError(() => fault('commit_failed', { file: 'memory', because: 'crash' }))
  return {
    left: () => deaths.length - at,
    store: {
      ...real,
      commit: writes =>
        defer(() => {
          const death = deaths[at++] ?? 'none'
          if (death === 'before') return died()
          return real.commit(writes).pipe(concatMap(() => (death === 'after' ? died() : of(undefined))))
        }),
    },
  }
}

test('every entry has effect exactly once, whichever commits die', () => {
  const keys = fc.array(fc.constantFrom('a', 'b', 'c', 'a/gone', 'b/gone'), { maxLength: 60 })
  fc.assert(
    fc.property(
      keys,
      keys,
      fc.array(fc.constantFrom('before' as const, 'after' as const, 'none' as const), { maxLength: 20 }),
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 5 }),
      (data, events, deaths, checkpointEntriesMax, laneEntriesMax) => {
        // Each class has its own projection as well: the model of two interleaved classes would need their order.
        const projections = [tallies('data-only', 1, ['data']), tallies('events-only', 1, ['events'])]
        const log = appended({ data, events })
        const rows = new Map<string, Row[]>()
        const { store } = crashing(rows, deaths)
        let runs = 0
        for (; runs <= deaths.length; runs++) {
          const run = runOnce({ log, store, projections, checkpointEntriesMax, laneEntriesMax })
          if (run.complete) break
          assert.match(String(run.failed), 'crash')
        }
        const again = projections.map(projection => mount(projection))
        const loaded: FoldState[] = []
        fold({ reader: log, members: again, store: memoryStore(rows), clock: virtualClock() })
          .subscribe(state => loaded.push(state))
          .unsubscribe()
        const head = { data: data.length, events: events.length }
        assert.is(loaded[0]?.through['data-only']?.data ?? 0, head.data)
        assert.is(loaded[0]?.through['events-only']?.events ?? 0, head.events)
        const [one, two] = again
        assert.equal(one && contents(one.view), model(data))
        assert.equal(two && contents(two.view), model(events))
      },
    ),
    { numRuns: 300, seed: 11 },
  )
})

const model = (keys: readonly string[]): Record<string, number[]> => {
  const state = new Map<string, number[]>()
  for (const [i, key] of keys.entries()) {
    if (key.endsWith('gone')) state.delete(key.slice(0, -5))
    state.set(key, [...(state.get(key) ?? []), i + 1])
  }
  return Object.fromEntries([...state].sort(([a], [b]) => (a < b ? -1 : 1)))
}

test('a run goes on behind the checkpoint and reads nothing twice', () => {
  const log = appended({ data: ['a', 'b'] })
  const store = memoryStore()
  runOnce({ log, store, projections: [tallies('t')] })
  log.append('data', [bodyOf('a')], []).subscribe()
  let replayed = 0
  const counted: MemoryCloudLog = {
    ...log,
    replay: options => {
      if (options.class === 'data') assert.is(options.after, 2)
      replayed += 1
      return log.replay(options)
    },
  }
  const { members } = runOnce({ log: counted, store, projections: [tallies('t')] })
  assert.is(replayed, 2)
  assert.equal(members[0] && contents(members[0].view), { a: [1, 3], b: [2] })
})

test('a raised version starts from nothing, and holds back no other projection', () => {
  const log = appended({ data: ['a', 'b', 'c'] })
  const store = memoryStore()
  runOnce({ log, store, projections: [tallies('old'), tallies('same')] })
  log.append('data', [bodyOf('d')], []).subscribe()
  const { members, states } = runOnce({ log, store, projections: [tallies('old', 2), tallies('same')] })
  assert.equal(states[0]?.through, { old: { data: 0, events: 0 }, same: { data: 3, events: 0 } })
  for (const member of members) assert.equal(contents(member.view), { a: [1], b: [2], c: [3], d: [4] })
})

test('a checkpoint beyond the head of the log starts from nothing', () => {
  const store = memoryStore()
  runOnce({ log: appended({ data: ['a', 'b', 'c'] }), store, projections: [tallies('t')] })
  const { members } = runOnce({ log: appended({ data: ['z'] }), store, projections: [tallies('t')] })
  assert.equal(members[0] && contents(members[0].view), { z: [1] })
})

test('a reset that dies half way is a reset again', () => {
  const rows = new Map<string, Row[]>()
  const many = Array.from({ length: 5_000 }, (_, i) => `k${i}`)
  runOnce({ log: appended({ data: many }), store: memoryStore(rows), projections: [tallies('t')] })
  const fresh = appended({ data: ['z'] })
  const { store } = crashing(rows, ['none', 'before'])
  assert.ok(runOnce({ log: fresh, store, projections: [tallies('t')] }).failed)
  const { members } = runOnce({ log: fresh, store: memoryStore(rows), projections: [tallies('t')] })
  assert.equal(members[0] && contents(members[0].view), { z: [1] })
})

test('entries that the log dropped before they were folded are counted as missed', () => {
  const store = memoryStore()
  const log = appended({ data: ['a', 'b'] })
  runOnce({ log, store, projections: [tallies('t')] })
  for (const key of ['c', 'd', 'e']) log.append('data', [bodyOf(key)], []).subscribe()
  log.forget('data', 5)
  const { members, states } = runOnce({ log, store, projections: [tallies('t')] })
  assert.is(states.at(-1)?.missed, 2)
  assert.equal(members[0] && contents(members[0].view), { a: [1], b: [2], e: [5] })
})

test('never holds more entries than its credit, while a commit hangs', () => {
  const log = appended({ data: Array.from({ length: 100 }, () => 'a') })
  const never$ = new Subject<void>()
  const store: Store = { ...memoryStore(), commit: () => never$ }
  let granted = 0
  const counted: MemoryCloudLog = {
    ...log,
    replay: options => {
      options.demand$.subscribe(count => {
        granted += count
      })
      return log.replay(options)
    },
  }
  const { members } = runOnce({
    log: counted,
    store,
    projections: [tallies('t', 1, ['data'])],
    laneEntriesMax: 7,
  })
  assert.is(members[0]?.view.get('a')?.seqs.length, 100)
  assert.is(granted, 107)
})

test('a key is written once for each commit in which it changed', () => {
  const member = mount(tallies('t', 1, ['data']))
  const take = () => member.takeWrites().map(({ key, value }) => `${key} ${value}`)
  member.apply(
    [
      { ...bodyOf('a'), seq: 1, receivedAtMs: 0 },
      { ...bodyOf('a'), seq: 2, receivedAtMs: 0 },
    ],
    'data',
  )
  assert.equal(take(), ['a {"seqs":[1,2]}'])
  assert.equal(take(), [])
  member.apply([{ ...bodyOf('a/gone'), seq: 3, receivedAtMs: 0 }], 'data')
  assert.equal(take(), ['a undefined', 'a/gone {"seqs":[3]}'])
})

test('following commits what arrives later, within checkpointMs', async () => {
  const log = appended({ data: ['a'] })
  const clock = virtualClock()
  const member = mount(tallies('t', 1, ['data']))
  const seen: string[] = []
  const running = fold({
    reader: log,
    members: [member],
    store: memoryStore(),
    clock,
    checkpointMs: 500,
  }).subscribe(state => seen.push(`${state.kind} ${state.through['t']?.data} at ${clock.monoMs()}`))
  clock.scheduler.flush()
  await lastValueFrom(log.append('data', [bodyOf('b')], []))
  clock.scheduler.flush()
  running.unsubscribe()
  assert.equal(seen, ['loaded 0 at 0', 'committed 1 at 500', 'committed 2 at 1000'])
})

test.run()
