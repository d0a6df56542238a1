import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { filter, firstValueFrom, lastValueFrom, repeat, take, takeWhile, timeout } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { projectionsHost } from '../../../cloud/projections/host.ts'
import { gatewayId } from '../../../schemas/ids.ts'
import { noBallast } from '../../../streams/log/ballast.ts'
import type { CloudWriter } from '../../../streams/log/cloudlog.ts'
import { openCloudWriter } from '../../../streams/log/cloudwriter.ts'
import { systemClock } from '../../../streams/run/clock.ts'
import type { Notice } from '../../../streams/run/supervise.ts'
import { gatewayFrames } from '../../support/gateway-frames.ts'

const clock = systemClock()

const withLog = async (body: (writer: CloudWriter, folder: string) => Promise<void>) => {
  const folder = mkdtempSync(join(tmpdir(), 'views-'))
  let writer: CloudWriter | undefined
  const open = openCloudWriter({
    folder: join(folder, 'log'),
    clock,
    ballast: noBallast,
    reserveBytes: 0,
  }).subscribe(opened => {
    writer = opened
  })
  try {
    await body(writer!, folder)
  } finally {
    open.unsubscribe()
    await new Promise(resolve => setTimeout(resolve, 200))
    rmSync(folder, { recursive: true, force: true })
  }
}

const started = async (writer: CloudWriter, folder: string) => {
  const host = projectionsHost()
  const notices: Notice[] = []
  const failures: unknown[] = []
  const running = host
    .run({ reader: writer, logFolder: join(folder, 'log'), viewsFolder: join(folder, 'views'), clock })
    .subscribe({
      next: notice => notices.push(notice),
      error: thrown => failures.push(thrown),
    })
  await firstValueFrom(host.views.ready$.pipe(filter(Boolean), timeout(20_000)))
  return { ...host, notices, failures, stop: () => running.unsubscribe() }
}

/** Asks until the answer fits. */
const eventually = <T>(ask$: import('rxjs').Observable<T>, fits: (answer: T) => boolean): Promise<T> =>
  lastValueFrom(
    ask$.pipe(
      repeat({ delay: 20 }),
      takeWhile(answer => !fits(answer), true),
      timeout(10_000),
    ),
  )

test('the worker folds what the writer appends, answers, and goes on after a restart', () =>
  withLog(async (writer, folder) => {
    const frames = gatewayFrames('g1')
    const value = (v: number) => frames.seal([{ topic: 'a', payload: JSON.stringify([{ n: 'x', v }]) }])
    const append = (v: number) => firstValueFrom(writer.append('data', [value(v)], []))
    await append(1)
    const first = await started(writer, folder)
    const latest = (views: typeof first.views) => views.query('latest', { gateway: 'g1', limit: 10 })
    await eventually(latest(first.views), ({ values }) => values[0]?.value === 1)

    const changes = firstValueFrom(first.views.latest$.pipe(take(1), timeout(10_000)))
    await new Promise(resolve => setTimeout(resolve, 50))
    await append(2)
    assert.equal(
      (await changes).map(({ gateway, name, value }) => [gateway, name, value]),
      [['g1', 'x', 2]],
    )

    await firstValueFrom(
      writer.append(
        'events',
        [
          {
            kind: 'event',
            event: { kind: 'connected', gateway: gatewayId('g1'), connection: 'c', address: 'a' },
          },
        ],
        [],
      ),
    )
    await eventually(first.views.query('gateway', { gateway: 'g1' }), row => row?.presence === 'online')
    assert.is((await firstValueFrom(first.views.query('delivery', { gateway: 'g1' }))).streams[0]!.last, 2)
    await eventually(first.views.query('status', {}), ({ behind }) => behind === 0)
    first.stop()
    const refused = await firstValueFrom(latest(first.views)).catch(thrown => thrown.code)
    assert.is(refused, 'worker_lost')

    await append(3)
    const second = await started(writer, folder)
    const { values, records } = await eventually(latest(second.views), page => page.values[0]?.value === 3)
    assert.equal([values[0]!.updates, records], [3, 3])
    assert.equal(second.failures, [])
    second.stop()
  }))

test('a question that nobody knows is refused, and the worker goes on', () =>
  withLog(async (writer, folder) => {
    const host = await started(writer, folder)
    // @ts-expect-error no such view
    const code = await firstValueFrom(host.views.query('nothing', {})).catch(thrown => thrown.code)
    assert.is(code, 'query_refused')
    assert.equal(await firstValueFrom(host.views.query('fleet', { limit: 5 })), [])
    host.stop()
  }))

test.run()
