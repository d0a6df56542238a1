// A worker for worker.test.ts: echoes, refuses, waits, ends in each way that a worker can.

import { workerData } from 'node:worker_threads'
import { lastValueFrom, map, merge, NEVER, type Observable, of, throwError } from 'rxjs'
import { fault } from '../../../streams/run/fault.ts'
import { Refusal, serveHost, type WorkerSays } from '../../../streams/run/worker-side.ts'

const answer = (name: string, args: unknown): unknown => {
  switch (name) {
    case 'echo':
      return args
    case 'later':
      return of(args).pipe(map(value => [value]))
    case 'bytes':
      return new Uint8Array([1, 2, 3])
    case 'never':
      return NEVER
    case 'exit':
      return process.exit(3)
    case 'throw': {
      queueMicrotask(() => {
        throw new Error('a defect in a callback')
      })
      return NEVER
    }
    default:
      throw new Refusal(`nothing is named ${name}`)
  }
}

const main = (told$: Observable<unknown>): Observable<WorkerSays> => {
  if (workerData === 'disk_full') return throwError(() => fault('disk_full', { file: 'x.mdb' }))
  if (workerData === 'defect') return throwError(() => new TypeError('undefined is not a function'))
  return merge(
    of<WorkerSays>({ kind: 'ready', answer }),
    told$.pipe(map((message): WorkerSays => ({ kind: 'tell', message: { heard: message } }))),
  )
}

await lastValueFrom(serveHost(main), { defaultValue: undefined })
