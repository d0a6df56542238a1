// A worker thread as a stream: subscribing starts it, unsubscribing stops it. The other end: worker-side.ts.
//
//   typed    a question has a name and arguments and gets one answer or one refusal
//   bounded  at most `asksMax` questions wait; each waits at most `askWaitMsMax`
//   honest   whatever ends the thread ends the stream with a fault, and every question with it

import { Worker } from 'node:worker_threads'
import { Observable, Subject, type Subscriber, type Subscription } from 'rxjs'
import type { Clock } from './clock.ts'
import { fault } from './fault.ts'
import type { FromWorker, ToWorker } from './worker-side.ts'

export interface WorkerOptions {
  /** For faults. */
  readonly name: string
  /** Of the module to run: `workerUrl(import.meta.url, './worker')`. */
  readonly url: URL
  /** Handed over by structured clone. */
  readonly data: unknown
  readonly clock: Clock
  /** Questions that wait for an answer; more are refused. 256: a fold's turn answers thousands a second. */
  readonly asksMax?: number
  /** 10 s: the longest a page that is read from disk has taken, with a generous margin. */
  readonly askWaitMsMax?: number
  /** How long a stopping thread may take to close its files before it is ended. 2 s. */
  readonly stopWaitMsMax?: number
}

export interface RunningWorker {
  /** Cold. One answer. Errors: query_refused, worker_lost. */
  ask(name: string, args: unknown): Observable<unknown>
  tell(message: unknown): void
  readonly told$: Observable<unknown>
}

/** `./worker` beside the caller: `.ts` where the caller runs as TypeScript, `.js` in a build. */
export const workerUrl = (importMetaUrl: string, path: string): URL =>
  new URL(`${path}.${importMetaUrl.endsWith('.ts') ? 'ts' : 'js'}`, importMetaUrl)

/**
 * Emits once, when the thread says that it is ready; goes on until unsubscribed.
 * Errors: what the thread's main stream ended with, a defect included; worker_lost when it ended in another way.
 */
export const runWorker = (options: WorkerOptions): Observable<RunningWorker> =>
  new Observable(subscriber => {
    const { name, data, clock, asksMax = 256, askWaitMsMax = 10_000, stopWaitMsMax = 2_000 } = options
    const worker = new Worker(entryOf(options.url), { workerData: data, execArgv: [], name })
    const told$ = new Subject<unknown>()
    const waiting = new Map<number, Subscriber<unknown>>()
    let lastAsk = 0
    let stopping: Subscription | undefined
    let gone = false
    let ready = false

    const lost = (because: string) => fault('worker_lost', { name, because })
    const post = (message: ToWorker) => worker.postMessage(message)
    const end = (thrown: unknown) => {
      for (const asker of [...waiting.values()]) asker.error(lost('it ended before it answered'))
      subscriber.error(thrown)
    }

    const running: RunningWorker = {
      told$,
      tell: message => post({ kind: 'tell', message }),
      ask: (question, args) =>
        new Observable(asker => {
          if (gone) return asker.error(lost('it is not running'))
          if (waiting.size >= asksMax) {
            return asker.error(
              fault('query_refused', { name: question, because: `${asksMax} others wait already` }),
            )
          }
          lastAsk += 1
          const id = lastAsk
          waiting.set(id, asker)
          post({ kind: 'ask', id, name: question, args })
          const late = clock.scheduler.schedule(
            () => asker.error(lost(`no answer within ${askWaitMsMax} ms`)),
            askWaitMsMax,
          )
          return () => {
            waiting.delete(id)
            late.unsubscribe()
          }
        }),
    }

    worker.on('message', (message: FromWorker) => {
      switch (message.kind) {
        case 'ready':
          if (!ready) subscriber.next(running)
          ready = true
          return
        case 'told':
          return told$.next(message.message)
        case 'answer': {
          const asker = waiting.get(message.id)
          asker?.next(message.value)
          return asker?.complete()
        }
        case 'refused':
          return waiting
            .get(message.id)
            ?.error(fault('query_refused', { name: message.name, because: message.because }))
        case 'failed':
          if (message.code !== undefined) return end(fault(message.code, message.facts))
          return end(new Error(`worker "${name}": ${message.because}`))
      }
    })
    worker.on('error', thrown => end(lost(thrown.message)))
    worker.on('exit', code => {
      gone = true
      stopping?.unsubscribe()
      end(lost(`exit ${code}`))
    })

    return () => {
      if (gone) return
      post({ kind: 'stop' })
      stopping = clock.scheduler.schedule(() => void worker.terminate(), stopWaitMsMax)
    }
  })

/** A build runs as it is. tsx, on Node 20, has to be registered inside each thread: `--import tsx` does not reach it. */
const entryOf = (url: URL): URL => {
  if (!url.pathname.endsWith('.ts')) return url
  const register = JSON.stringify(import.meta.resolve('tsx/esm/api'))
  const source = `import { register } from ${register}; register(); await import(${JSON.stringify(url.href)})`
  return new URL(`data:text/javascript,${encodeURIComponent(source)}`)
}
