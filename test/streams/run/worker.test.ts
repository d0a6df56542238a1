import { firstValueFrom, forkJoin, lastValueFrom, mergeMap, type Observable, take, tap } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../../../streams/run/clock.ts'
import { isFatal } from '../../../streams/run/fault.ts'
import { type RunningWorker, runWorker, type WorkerOptions, workerUrl } from '../../../streams/run/worker.ts'

const options: WorkerOptions = {
  name: 'fixture',
  url: workerUrl(import.meta.url, './worker-fixture'),
  data: 'good',
  clock: systemClock(),
}

/** Runs a worker for as long as the work lasts. */
const withWorker = <T>(
  work: (worker: RunningWorker) => Observable<T>,
  more: Partial<WorkerOptions> = {},
): Promise<T> => firstValueFrom(runWorker({ ...options, ...more }).pipe(mergeMap(work)))
const codeOf = (ended: Promise<unknown>): Promise<string | undefined> =>
  ended.then(
    () => 'none',
    thrown => thrown.code,
  )

test('a question gets its answer, also one that takes a while, also bytes', async () => {
  const answers = await withWorker(worker =>
    forkJoin([worker.ask('echo', { a: [1, undefined] }), worker.ask('later', 2), worker.ask('bytes', 0)]),
  )
  assert.equal(answers, [{ a: [1, undefined] }, [2], new Uint8Array([1, 2, 3])])
})

test('what is told is heard, both ways', async () => {
  assert.equal(
    await withWorker(worker => worker.told$.pipe(take(1), tap({ subscribe: () => worker.tell('hello') }))),
    { heard: 'hello' },
  )
})

test('a question that is refused says why, and the thread goes on', async () => {
  const after = await withWorker(worker =>
    worker.ask('nonsense', 0).pipe(
      tap({ error: thrown => assert.match(thrown.message, 'nothing is named nonsense') }),
      source =>
        new (source.constructor as typeof Observable)<unknown>(subscriber => {
          source.subscribe({ error: () => worker.ask('echo', 'still here').subscribe(subscriber) })
        }),
    ),
  )
  assert.is(after, 'still here')
})

test('questions that wait are bounded in number and time', async () => {
  assert.is(await codeOf(withWorker(worker => worker.ask('never', 0), { askWaitMsMax: 50 })), 'worker_lost')
  const full = withWorker(
    worker => forkJoin([worker.ask('never', 0), worker.ask('never', 0), worker.ask('echo', 0)]),
    { asksMax: 2 },
  )
  assert.is(await codeOf(full), 'query_refused')
})

test('a thread that exits or throws ends its stream and every question with worker_lost', async () => {
  for (const way of ['exit', 'throw']) {
    let asked: unknown
    const ended = lastValueFrom(
      runWorker(options).pipe(
        tap(worker => {
          worker.ask('never', 0).subscribe({ error: thrown => (asked = thrown.code) })
          worker.ask(way, 0).subscribe({ error: () => undefined })
        }),
      ),
    )
    assert.is(await codeOf(ended), 'worker_lost', way)
    assert.is(asked, 'worker_lost', way)
  }
})

test('a fault keeps its code across the thread, a defect stays a defect', async () => {
  const disk = await lastValueFrom(runWorker({ ...options, data: 'disk_full' })).catch(thrown => thrown)
  assert.equal([disk.code, disk.facts, isFatal(disk)], ['disk_full', { file: 'x.mdb' }, false])
  const defect = await lastValueFrom(runWorker({ ...options, data: 'defect' })).catch(thrown => thrown)
  assert.ok(isFatal(defect))
  assert.match(defect.message, 'undefined is not a function')
})

test.run()
