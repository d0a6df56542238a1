// What every stream log must do, whatever store lies under it.

import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { firstValueFrom, Subject } from 'rxjs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { chainAfter, crcOf, FRAME_BODY_BYTES_MAX, FRAME_RECORDS_MAX } from '../../../schemas/frame.ts'
import { CHAIN_ZERO, type Offset, ORIGIN } from '../../../schemas/ids.ts'
import type { StreamLog } from '../../../streams/log/log.ts'
import type { Store } from '../../../streams/log/store.ts'
import {
  append,
  contents,
  DATA,
  EVENTS,
  entriesOf,
  GENEROUS,
  record,
  records,
  withStreams,
} from '../../support/logs.ts'

/** Gives a store; `reopen` gives it again as a next process would find it. */
export type UseStore = (body: (reopen: () => Promise<Store>) => Promise<void>) => Promise<void>

const codeOf = (thrown: unknown): string => (thrown as { code: string }).code

export const logContract = (name: string, use: UseStore): void => {
  const test = suite(`log/${name}`)
  const fresh = (body: (log: StreamLog) => Promise<void>) =>
    use(async reopen => withStreams(await reopen(), streams => body(streams.stream(DATA))))

  test('offsets are dense and replay is ordered', () =>
    fresh(async log => {
      assert.equal(await append(log, records(1)), { first: 1, last: 1 })
      assert.equal(await append(log, records(1200, 1)), { first: 2, last: 1201 })
      const entries = await entriesOf(log)
      assert.equal(
        contents(entries),
        Array.from({ length: 1201 }, (_, i) => `r${i}`),
      )
      assert.equal(
        entries.map(e => e.header.first),
        [1, 2, 502, 1002],
      )
      assert.ok(
        entries.every(
          e => e.header.count <= FRAME_RECORDS_MAX && e.header.bodyLength <= FRAME_BODY_BYTES_MAX,
        ),
      )
    }))

  test('each frame continues the chain of the one before, and carries its own checksum', () =>
    fresh(async log => {
      for (let i = 0; i < 5; i++) await append(log, records(300, i))
      let chain = CHAIN_ZERO
      for (const { header, bytes } of await entriesOf(log)) {
        assert.is(header.chain, chainAfter(chain, bytes))
        assert.is(header.crc, crcOf(bytes))
        chain = header.chain
      }
      assert.is(log.state().chain, chain)
    }))

  test('never emits more than was granted', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: 40 }),
        (grants, appended) =>
          fresh(async log => {
            for (let i = 0; i < appended; i++) await append(log, records(1, i))
            const demand$ = new Subject<number>()
            let seen = 0
            const running = log.replay({ after: ORIGIN, atHead: 'follow', demand$ }).subscribe(() => {
              seen += 1
            })
            let granted = 0
            for (const n of grants) {
              demand$.next(n)
              granted += n
              assert.is(seen, Math.min(granted, appended))
            }
            running.unsubscribe()
          }),
      ),
      { numRuns: 8 },
    ))

  test('following picks up what is appended later, and nothing after unsubscription', () =>
    fresh(async log => {
      const seen: unknown[] = []
      const demand$ = new Subject<number>()
      const running = log
        .replay({ after: ORIGIN, atHead: 'follow', demand$ })
        .subscribe(e => seen.push(...contents([e])))
      demand$.next(100)
      await append(log, records(2))
      assert.equal(seen, ['r0', 'r1'])
      running.unsubscribe()
      await append(log, records(1))
      assert.is(seen.length, 2)
    }))

  test('replaying from before the trimmed part fails instead of skipping', () =>
    fresh(async log => {
      await append(log, records(600))
      assert.is(await firstValueFrom(log.trim(550 as Offset)), 500, 'whole frames only')
      assert.equal(contents(await entriesOf(log, 500 as Offset)).length, 100)
      assert.is(await entriesOf(log).catch(codeOf), 'log_gap')
    }))

  test('a log trimmed to its end goes on where it stopped when it is opened again', () =>
    use(async reopen => {
      await withStreams(await reopen(), async streams => {
        await append(streams.stream(DATA), records(3))
        await firstValueFrom(streams.stream(DATA).trim(3 as Offset))
      })
      await withStreams(await reopen(), async streams => {
        const log = streams.stream(DATA)
        assert.equal(await append(log, records(1)), { first: 4, last: 4 })
        const [entry] = await entriesOf(log, 3 as Offset)
        assert.is(entry!.header.chain, log.state().chain)
      })
    }))

  test('a stream keeps its epoch over restarts, from its first record on', () =>
    use(async reopen => {
      const epochs = new Set<string>()
      for (let i = 0; i < 3; i++) {
        await withStreams(await reopen(), async streams => {
          await append(streams.stream(DATA), records(1, i))
          epochs.add(streams.stream(DATA).state().epoch)
        })
      }
      assert.is(epochs.size, 1)
    }))

  test('an empty stream keeps its epoch over restarts as well', () =>
    use(async reopen => {
      const epochs = new Set<string>()
      for (let i = 0; i < 3; i++) {
        await withStreams(await reopen(), async streams => {
          epochs.add(streams.stream(DATA).state().epoch)
          await append(streams.stream(EVENTS), records(1))
        })
      }
      assert.is(epochs.size, 1)
    }))

  test('what is appended while a commit runs forms the next one, streams together', () =>
    use(async reopen => {
      const store = await reopen()
      let commits = 0
      const counted: Store = {
        ...store,
        commit: writes => {
          commits += 1
          return store.commit(writes)
        },
      }
      await withStreams(counted, async streams => {
        const all = Array.from({ length: 50 }, (_, i) =>
          append(streams.stream(i % 2 ? DATA : EVENTS), records(1, i)),
        )
        await Promise.all(all)
        assert.is(streams.stream(DATA).state().head, 25)
      })
      if (name === 'lmdb') assert.is(commits, 2)
    }))

  test('a batch in no hurry waits for company, yet not longer than the seal wait', () =>
    fresh(async log => {
      const patient = firstValueFrom(log.append(records(1), { patience: 'wait' }))
      assert.is(log.state().head, 0)
      await append(log, records(1, 1))
      assert.equal(await patient, { first: 1, last: 1 })
      assert.equal(await firstValueFrom(log.append(records(1, 2), { patience: 'wait' })), {
        first: 3,
        last: 3,
      })
    }))

  test('rows alongside are in the same commit', () =>
    use(async reopen => {
      const row = { table: 'streams', key: Buffer.from('x'), value: Buffer.from('1') }
      await withStreams(await reopen(), streams =>
        firstValueFrom(streams.stream(DATA).append(records(1), { alongside: [row] })),
      )
      assert.equal((await reopen()).read('streams', Buffer.from('x'))?.toString(), '1')
    }))

  test('a dropped part becomes a skip; neighbours merge, and replay from inside gives the rest', () =>
    fresh(async log => {
      for (let i = 0; i < 6; i++) await append(log, records(10, i * 10))
      await firstValueFrom(log.drop(20 as Offset, 'quota'))
      await firstValueFrom(log.drop(40 as Offset, 'quota'))
      const entries = await entriesOf(log)
      assert.equal(contents(entries).slice(0, 2), [[1, 40], 'r40'])
      assert.is(chainAfter(entries[0]!.header.chain, entries[1]!.bytes), entries[1]!.header.chain)
      assert.equal(contents(await entriesOf(log, 25 as Offset)).slice(0, 2), [[26, 40], 'r40'])
    }))

  test('trims and drops that meet in one group leave no hole', () =>
    use(async reopen => {
      await withStreams(await reopen(), async streams => {
        const log = streams.stream(DATA)
        for (let i = 0; i < 6; i++) await append(log, records(10, i * 10))
        // The append occupies the committer: what follows it forms one group.
        const together = [
          append(log, records(1, 60)),
          firstValueFrom(log.drop(40 as Offset, 'quota')),
          firstValueFrom(log.trim(20 as Offset)),
          firstValueFrom(log.drop(50 as Offset, 'age')),
        ]
        await Promise.all(together)
      })
      await withStreams(await reopen(), async streams => {
        const { tail, head } = streams.stream(DATA).state()
        assert.is(head, 61)
        assert.equal(contents(await entriesOf(streams.stream(DATA), (tail - 1) as Offset)), [
          [1, 40],
          [41, 50],
          ...Array.from({ length: 11 }, (_, i) => `r${i + 50}`),
        ])
      })
    }))

  test('a full stream that refuses says so and keeps what it has', () =>
    use(async reopen => {
      const limits = new Map([[DATA, { ...GENEROUS, bytesMax: 32 * 1024 }]])
      await withStreams(
        await reopen(),
        async streams => {
          const log = streams.stream(DATA)
          let refused = ''
          for (let i = 0; i < 200 && refused === ''; i++)
            await append(log, [record(randomBytes(500).toString('hex'))]).catch(thrown => {
              refused = codeOf(thrown)
            })
          assert.is(refused, 'stream_full')
          const kept = log.state().head
          assert.ok(kept > 10)
          assert.is((await entriesOf(log)).length, kept)
        },
        limits,
      )
    }))

  test('a full stream that drops loses the oldest behind a skip, and every offset stays accounted for', () =>
    use(async reopen => {
      const limits = new Map([
        [DATA, { bytesMax: 128 * 1024, onFull: 'dropOldest' as const, reserved: false }],
      ])
      await withStreams(
        await reopen(),
        async streams => {
          const log = streams.stream(DATA)
          for (let i = 0; i < 400; i++) await append(log, [record(randomBytes(700).toString('hex'))])
          const entries = await entriesOf(log)
          assert.is(entries[0]!.header.kind, 'skip')
          assert.is(entries[0]!.header.cause, 'quota')
          let next = 1
          for (const { header } of entries) {
            assert.is(header.first, next)
            next = header.last + 1
          }
          assert.is(next, 401)
          assert.ok(log.state().bytes < 160 * 1024, `${log.state().bytes}`)
        },
        limits,
      )
    }))

  test('a fork restamps what is not proven delivered, and nothing else', () =>
    use(async reopen => {
      await withStreams(await reopen(), async streams => {
        const log = streams.stream(DATA)
        for (let i = 0; i < 4; i++) await append(log, records(500, i * 500))
        const before = log.state()
        const second = (await entriesOf(log))[1]!
        log.noteMark({ offset: second.header.last, chain: second.header.chain })
        const after = await firstValueFrom(log.fork())
        assert.is.not(after.epoch, before.epoch)
        assert.is(after.parent, before.epoch)
        assert.equal(after.origin, { offset: 1000, chain: second.header.chain })
        const entries = await entriesOf(log, 1000 as Offset)
        assert.equal(
          contents(entries),
          Array.from({ length: 1000 }, (_, i) => `r${i + 1000}`),
        )
        let chain = second.header.chain
        for (const { header, bytes } of entries) {
          assert.is(header.epoch, after.epoch)
          assert.is(header.crc, crcOf(bytes))
          assert.is(chainAfter(chain, bytes), header.chain)
          chain = header.chain
        }
        await append(log, records(1, 2000))
      })
      await withStreams(await reopen(), async streams => assert.is(streams.stream(DATA).state().head, 2001))
    }))

  test('it does what a list would do, through any sequence of appends, trims, drops and restarts', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            {
              weight: 4,
              arbitrary: fc.record({
                kind: fc.constant('append' as const),
                count: fc.integer({ min: 1, max: 700 }),
              }),
            },
            {
              weight: 2,
              arbitrary: fc.record({
                kind: fc.constantFrom('trim' as const, 'drop' as const),
                share: fc.double({ min: 0, max: 1, noNaN: true }),
              }),
            },
            { weight: 1, arbitrary: fc.record({ kind: fc.constant('reopen' as const) }) },
          ),
          { maxLength: 14 },
        ),
        steps =>
          use(async reopen => {
            let model: (string | 'skipped')[] = []
            let tail = 1
            let at = 0
            while (at < steps.length || at === 0) {
              await withStreams(await reopen(), async streams => {
                const log = streams.stream(DATA)
                for (; at < steps.length; at++) {
                  const step = steps[at]!
                  if (step.kind === 'reopen') break
                  if (step.kind === 'append') {
                    await append(log, records(step.count, model.length))
                    model = model.concat(Array.from({ length: step.count }, (_, i) => `r${model.length + i}`))
                    continue
                  }
                  const through = Math.floor(tail - 1 + step.share * (model.length - tail + 1))
                  const ends = (await entriesOf(log, (tail - 1) as Offset))
                    .map(e => e.header.last as number)
                    .filter(last => last <= through)
                  const reached = ends.at(-1) ?? tail - 1
                  if (step.kind === 'trim') {
                    await firstValueFrom(log.trim(through as Offset))
                    tail = reached + 1
                  } else {
                    await firstValueFrom(log.drop(through as Offset, 'quota'))
                    for (let i = tail; i <= reached; i++) model[i - 1] = 'skipped'
                  }
                }
                at += 1
                const found = contents(await entriesOf(log, (tail - 1) as Offset)).flatMap(item =>
                  typeof item === 'string'
                    ? [item]
                    : Array.from({ length: item[1] - item[0] + 1 }, () => 'skipped'),
                )
                assert.equal(found, model.slice(tail - 1))
                assert.is(log.state().head, model.length)
                assert.is(log.state().tail, tail)
              })
            }
          }),
      ),
      { numRuns: 25 },
    ))

  test.run()
}
