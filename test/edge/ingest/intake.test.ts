import { filter, firstValueFrom, Observable, throwError, VirtualTimeScheduler } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openHeldIds } from '../../../edge/ingest/held.ts'
import { INTAKE_LIMITS, type IntakeNotice, openIntake } from '../../../edge/ingest/intake.ts'
import { openRoutes } from '../../../edge/ingest/routes.ts'
import { streamName } from '../../../schemas/ids.ts'
import type { StreamLog } from '../../../streams/log/log.ts'
import { memoryStore } from '../../../streams/log/memory.ts'
import type { Row } from '../../../streams/log/store.ts'
import type { Clock } from '../../../streams/run/clock.ts'
import { fault } from '../../../streams/run/fault.ts'
import { clock, DATA, record, withStreams } from '../../support/logs.ts'

/** A log whose appends wait for the test; virtual time. */
const held = () => {
  const scheduler = new VirtualTimeScheduler(undefined, Number.POSITIVE_INFINITY)
  const virtual: Clock = { ...clock, monoMs: () => scheduler.now(), scheduler }
  const appends: { texts: string[]; finish: () => void; fail: (thrown: unknown) => void }[] = []
  const log = {
    name: DATA,
    append: (batch: readonly { payload: Uint8Array }[]) =>
      new Observable(subscriber => {
        appends.push({
          texts: batch.map(({ payload }) => Buffer.from(payload).toString()),
          finish: () => {
            subscriber.next({ first: 1, last: 1 })
            subscriber.complete()
          },
          fail: thrown => subscriber.error(thrown),
        })
      }),
  } as unknown as StreamLog
  const intake = openIntake(log, virtual)
  const notices: IntakeNotice[] = []
  const running = intake.notices$.subscribe(notice => notices.push(notice))
  const outcomes: string[] = []
  const take = (text: string, qos: 0 | 1 | 2) =>
    intake.take({
      record: record(text, 't', qos),
      done: error =>
        outcomes.push(error === undefined ? `${text} ok` : `${text} ${(error as { code?: string }).code}`),
    })
  const pass = (ms: number) => {
    const until = scheduler.now() + ms
    scheduler.schedule(() => undefined, ms)
    scheduler.maxFrames = until
    scheduler.flush()
    scheduler.frame = until
  }
  return { appends, intake, notices, outcomes, take, pass, running }
}

test('an acknowledgement waits for the commit; what arrives meanwhile forms the next one', () => {
  const { appends, outcomes, take } = held()
  take('a', 1)
  take('b', 1)
  take('c', 2)
  assert.equal(
    appends.map(({ texts }) => texts),
    [['a']],
  )
  assert.equal(outcomes, [])
  appends[0]!.finish()
  assert.equal(outcomes, ['a ok'])
  assert.equal(appends[1]!.texts, ['b', 'c'])
  appends[1]!.finish()
  assert.equal(outcomes, ['a ok', 'b ok', 'c ok'])
})

test('QoS 0 is owed nothing: it waits for the seal, or goes with the next message that is', () => {
  const { appends, outcomes, take, pass } = held()
  take('a', 0)
  assert.equal(outcomes, ['a ok'])
  pass(INTAKE_LIMITS.sealWaitMsMax - 1)
  assert.is(appends.length, 0)
  pass(1)
  assert.equal(appends[0]!.texts, ['a'])
  appends[0]!.finish()
  take('b', 0)
  take('c', 1)
  assert.equal(appends[1]!.texts, ['b', 'c'], 'in the order of their arrival')
})

test('commits for QoS 0 alone keep a distance; many bytes, an acknowledged message and the end do not wait', () => {
  const { appends, intake, take, pass } = held()
  const { sealWaitMsMax, sealSpacingMs, sealBytes } = INTAKE_LIMITS
  take('a', 0)
  pass(sealWaitMsMax)
  appends[0]!.finish()
  take('b', 0)
  pass(sealSpacingMs - 1)
  assert.is(appends.length, 1)
  take('c', 0)
  pass(1)
  assert.equal(appends[1]!.texts, ['b', 'c'])
  take('d', 0) // While a commit runs: at its end, the distance counts as well.
  appends[1]!.finish()
  pass(sealSpacingMs - 1)
  assert.is(appends.length, 2)
  take('e'.repeat(sealBytes), 0)
  assert.is(appends.length, 3, 'the bytes of a frame')
  appends[2]!.finish()
  take('f', 0)
  take('g', 1)
  assert.equal(appends[3]!.texts, ['f', 'g'])
  appends[3]!.finish()
  take('h', 0)
  intake.flush()
  assert.equal(appends[4]!.texts, ['h'])
  appends[4]!.finish()
  pass(2 * sealSpacingMs)
  take('i', 0)
  pass(sealWaitMsMax)
  assert.equal(appends[5]!.texts, ['i'], 'after a pause it waits no longer than before')
})

test('on a full stream QoS 0 is dropped and counted, QoS 1 is held and tried again in its place', () => {
  const { appends, notices, outcomes, take, pass, intake } = held()
  take('a', 1)
  take('b', 0)
  appends[0]!.fail(fault('stream_full', { stream: 'data' }))
  take('c', 1)
  pass(INTAKE_LIMITS.retryMs)
  assert.equal(appends[1]!.texts, ['a', 'b', 'c'])
  appends[1]!.fail(fault('disk_full', { file: 'x' }))
  pass(INTAKE_LIMITS.retryMs)
  assert.equal(appends[2]!.texts, ['a', 'c'])
  appends[2]!.finish()
  assert.equal(
    outcomes.filter(text => !text.startsWith('b')),
    ['a ok', 'c ok'],
  )
  assert.equal(
    notices.map(({ kind }) => kind),
    ['full', 'dropped', 'room', 'sealed'],
  )
  assert.is(intake.isFull(), false)
})

test('a stream that stays full gives publishers back their message after the hold, and says that it is full', () => {
  const { appends, outcomes, take, pass, intake } = held()
  take('a', 1)
  for (let i = 0; i * INTAKE_LIMITS.retryMs <= INTAKE_LIMITS.holdMsMax; i++) {
    appends.at(-1)!.fail(fault('stream_full', { stream: 'data' }))
    pass(INTAKE_LIMITS.retryMs)
  }
  assert.equal(outcomes, ['a stream_full'])
  assert.is(intake.isFull(), true)
})

test('QoS 0 beyond the buffer is dropped and counted', () => {
  const { notices, take } = held()
  take('a', 1)
  const large = 'x'.repeat(1024 * 1024)
  for (let i = 0; i < 10; i++) take(large, 0)
  const dropped = notices.filter(notice => notice.kind === 'dropped').length
  assert.ok(dropped >= 2 && dropped <= 3, `${dropped}`)
})

test('a fatal fault of the log ends the intake with it', () => {
  const { appends, take, intake } = held()
  void intake
  let thrown: unknown
  const broken = openIntake(
    { name: DATA, append: () => throwError(() => fault('log_gap')) } as unknown as StreamLog,
    clock,
  )
  broken.notices$.subscribe({
    error: error => {
      thrown = error
    },
  })
  broken.take({ record: record('a'), done: () => undefined })
  assert.is((thrown as { code: string }).code, 'log_gap')
  void appends
  void take
})

test('what was taken is in the log, in order, once', async () => {
  await withStreams(memoryStore(), async streams => {
    const log = streams.stream(DATA)
    const intake = openIntake(log, clock)
    const running = intake.notices$.subscribe()
    let acknowledged = 0
    for (let i = 0; i < 5_000; i++)
      intake.take({
        record: record(`r${i}`, 't', 1),
        done: () => {
          acknowledged += 1
        },
      })
    await firstValueFrom(log.head$.pipe(filter(head => head === 5_000)))
    assert.is(acknowledged, 5_000)
    running.unsubscribe()
  })
})

test('a held QoS 2 id outlives a restart, and is gone when released', async () => {
  const disk = new Map<string, Row[]>()
  await withStreams(memoryStore(disk), async streams => {
    const ids = openHeldIds(streams)
    await firstValueFrom(streams.stream(DATA).append([record('a')], { alongside: [ids.write('client', 7)] }))
  })
  await withStreams(memoryStore(disk), async streams => {
    const ids = openHeldIds(streams)
    assert.equal([ids.has('client', 7), ids.has('client', 8), ids.has('other', 7)], [true, false, false])
    await new Promise<void>(resolve => ids.release('client', 7).subscribe({ complete: resolve }))
    assert.is(ids.has('client', 7), false)
  })
  await withStreams(memoryStore(disk), async streams =>
    assert.is(openHeldIds(streams).has('client', 7), false),
  )
})

test('routes: the first that matches, else data; reserved topics never', () => {
  const route = openRoutes([
    { filter: 'slow/#', stream: streamName('slow') },
    { filter: 'noise/+', stream: 'none' },
  ])
  assert.equal(
    [
      'slow/a/b',
      'noise/x',
      'noise/x/y',
      'a',
      'commands/x',
      'heartbeat/a/b',
      'headgate/g/up/hello',
      '$SYS/x',
      'commandsx',
    ].map(route),
    ['slow', undefined, 'data', 'data', undefined, undefined, undefined, undefined, 'data'],
  )
})

test.run()
