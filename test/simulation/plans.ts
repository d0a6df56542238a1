// Plans of faults, drawn by fast-check, and what must hold after each.

import fc from 'fast-check'
import * as assert from 'uvu/assert'
import { seededRandom } from '../support/logs.ts'
import { arrivedIn, copyCloud, copyDisk, openWorld, type World } from './world.ts'

const count = fc.integer({ min: 1, max: 4 })
export const faults = fc.oneof(
  {
    // Records larger than a window, in frames of their own.
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('appendLarge' as const),
      count,
      kilobytes: fc.constantFrom(1, 10, 60, 300),
    }),
  },
  // Another stream that keeps moving must not hide that this one stands still.
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('tick' as const), times: fc.integer({ min: 1, max: 20 }) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('append' as const), count: fc.integer({ min: 1, max: 1500 }) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('cut' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('crash' as const),
      side: fc.constantFrom('edge' as const, 'cloud' as const),
      written: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('disturb' as const),
      direction: fc.constantFrom('up' as const, 'down' as const),
      what: fc.constantFrom('lose' as const, 'double' as const),
      count,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('failCommits' as const),
      side: fc.constantFrom('edge' as const, 'cloud' as const),
      count,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('drop' as const),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
)
export const restores = fc.record({
  kind: fc.constant('restore' as const),
  side: fc.constantFrom('edge' as const, 'cloud' as const),
})

const step = (of: fc.Arbitrary<Fault>) =>
  fc.record({ fault: of, afterMs: fc.constantFrom(0, 1, 2, 3, 6, 11, 60, 700, 12_000) })
export type Fault =
  typeof faults extends fc.Arbitrary<infer F> ? F | { kind: 'restore'; side: 'edge' | 'cloud' } : never
export interface Step {
  readonly fault: Fault
  readonly afterMs: number
}

export const plan = fc.array(step(faults), { maxLength: 25 })
export const planWithRestores = fc.array(
  step(fc.oneof({ weight: 8, arbitrary: faults }, { weight: 2, arbitrary: restores })),
  { maxLength: 25 },
)

/** Long enough for a hello that was lost, a watchdog and a repeat. */
const SETTLE_MS = 90_000

export interface Played {
  readonly world: World
  readonly survivors: readonly string[]
  readonly restored: boolean
}

export const play = (steps: readonly Step[], seed: number): Played => {
  const world = openWorld(seededRandom(seed))
  let saved = { edge: copyDisk(world.edgeDisk), cloud: copyCloud(world.cloudDisk) }
  let survivors: readonly string[] = []
  let restored = false
  let savedSurvivors: readonly string[] = []
  let counted = 0
  const note = () => {
    survivors = survivors.concat(world.acknowledged.slice(counted))
    counted = world.acknowledged.length
  }
  world.run(100)
  for (const [i, { fault, afterMs }] of steps.entries()) {
    switch (fault.kind) {
      case 'append':
        world.append(fault.count)
        break
      case 'appendLarge':
        world.append(fault.count, fault.kilobytes * 1024)
        break
      case 'tick':
        for (let i = 0; i < fault.times; i++) {
          world.tick()
          world.run(2_000)
        }
        break
      case 'cut':
        world.cut()
        break
      case 'crash':
        world.crash(fault.side, fault.written)
        break
      case 'disturb':
        world.disturb(fault.direction, fault.what, fault.count)
        break
      case 'failCommits':
        world.failCommits(fault.side, fault.count)
        break
      case 'drop':
        world.drop(fault.share)
        break
      case 'restore':
        restored = true
        note()
        if (fault.side === 'edge') {
          world.edgeDisk = copyDisk(saved.edge)
          survivors = savedSurvivors
        } else world.cloudDisk = copyCloud(saved.cloud)
        world.crash(fault.side, false)
        break
    }
    world.run(afterMs)
    note()
    // A backup is taken now and then, of both disks at their own moments.
    if (i % 7 === 3) {
      saved = { ...saved, edge: copyDisk(world.edgeDisk) }
      savedSurvivors = survivors
    }
    if (i % 7 === 5) saved = { ...saved, cloud: copyCloud(world.cloudDisk) }
  }
  world.calm()
  world.run(SETTLE_MS)
  note()
  return { world, survivors, restored }
}

/** Safety, order, no silent gap, bounded window, liveness. */
export const check = ({ world, survivors, restored }: Played): void => {
  if (world.fatal !== undefined) throw world.fatal
  const arrived = arrivedIn(world)
  const ends = new Map<string, number>()
  const at = new Map<string, string>()
  for (const { epoch, header, texts } of arrived) {
    const expected = ends.get(epoch)
    if (expected !== undefined)
      assert.is(header.first, expected + 1, 'every offset is data or a declared skip')
    ends.set(epoch, header.last)
    for (const [i, text] of texts.entries()) at.set(`${epoch} ${header.first + i}`, text)
  }
  const texts = arrived.flatMap(each => each.texts)
  const skipped = arrived
    .filter(({ header }) => header.kind === 'skip')
    .reduce((sum, { header }) => sum + header.count, 0)
  if (!restored) {
    assert.is(new Set(texts).size, texts.length, 'each record once')
    assert.is(ends.size <= 1, true, 'one epoch')
    const numbers = texts.map(text => Number(text.slice(1)))
    assert.equal(
      numbers,
      [...numbers].sort((a, b) => a - b),
      'in order',
    )
  }
  const held = new Set(texts)
  const missing = survivors.filter(text => !held.has(text))
  assert.ok(
    missing.length <= skipped,
    `${missing.length} of ${survivors.length} acknowledged records are missing, ${skipped} are declared skipped; first ${missing[0]}`,
  )
  assert.ok(world.flyingBytesMax <= 1024 * 1024 + 64 * 1024, `${world.flyingBytesMax} bytes in flight`)
}
