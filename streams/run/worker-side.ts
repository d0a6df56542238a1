// What runs inside a worker thread that worker.ts started: says when it is ready, answers questions, stops when told.
//
// A question that throws is refused with its reason; the thread goes on. A fault of the main stream ends it.

import { parentPort } from 'node:worker_threads'
import { defer, isObservable, Observable, of, Subject, take } from 'rxjs'
import type { Facts, FaultCode } from '../../schemas/faults.ts'
import { isFault, reasonOf } from './fault.ts'

export type ToWorker =
  | { readonly kind: 'ask'; readonly id: number; readonly name: string; readonly args: unknown }
  | { readonly kind: 'tell'; readonly message: unknown }
  | { readonly kind: 'stop' }

export type FromWorker =
  | { readonly kind: 'ready' }
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'refused'; readonly id: number; readonly name: string; readonly because: string }
  | { readonly kind: 'told'; readonly message: unknown }
  /** `code`: undefined for a defect. `facts` as JSON carries them. */
  | {
      readonly kind: 'failed'
      readonly code: FaultCode | undefined
      readonly facts: Facts
      readonly because: string
    }

/** What the main stream of a worker emits. */
export type WorkerSays =
  /**
   * From now on questions are answered by this: a value, or an observable's first one. It is copied
   * (a Uint8Array of its own buffer: moved).
   */
  | { readonly kind: 'ready'; readonly answer: (name: string, args: unknown) => unknown }
  | { readonly kind: 'tell'; readonly message: unknown }

/** For an answer that cannot be given: the text reaches the asker. Throw anything else for a defect: same outcome. */
export class Refusal extends Error {}

/** Runs `main` until it ends or the host stops it. Never emits; completes when the thread may exit. */
export const serveHost = (main: (told$: Observable<unknown>) => Observable<WorkerSays>): Observable<never> =>
  new Observable(subscriber => {
    const port = parentPort
    if (port === null) throw new Error('not in a worker thread')
    const told$ = new Subject<unknown>()
    let answer: (name: string, args: unknown) => unknown = () => {
      throw new Refusal('still starting')
    }
    const post = (message: FromWorker, moved: ArrayBuffer[] = []) => port.postMessage(message, moved)
    const reply = (id: number, name: string, args: unknown) => {
      const answer$ = defer(() => {
        const answered = answer(name, args)
        return isObservable(answered) ? answered.pipe(take(1)) : of(answered)
      })
      subscriber.add(
        answer$.subscribe({
          next: value => post({ kind: 'answer', id, value }, ownBuffer(value)),
          error: thrown => post({ kind: 'refused', id, name, because: reasonOf(thrown) }),
        }),
      )
    }
    const finish = () => {
      port.close()
      subscriber.complete()
    }
    port.on('message', (message: ToWorker) => {
      switch (message.kind) {
        case 'ask':
          return reply(message.id, message.name, message.args)
        case 'tell':
          return told$.next(message.message)
        case 'stop':
          running.unsubscribe()
          return finish()
      }
    })
    const running = main(told$).subscribe({
      next: says => {
        if (says.kind === 'tell')
          return post({ kind: 'told', message: says.message }, ownBuffer(says.message))
        answer = says.answer
        post({ kind: 'ready' })
      },
      error: thrown => {
        const { code, facts } = isFault(thrown) ? thrown : { code: undefined, facts: {} }
        post({ kind: 'failed', code, facts: JSON.parse(JSON.stringify(facts)), because: reasonOf(thrown) })
        finish()
      },
      complete: finish,
    })
  })

/** Bytes that are alone in their buffer are moved; a view of a shared pool must be copied. */
const ownBuffer = (value: unknown): ArrayBuffer[] =>
  value instanceof Uint8Array &&
  value.buffer instanceof ArrayBuffer &&
  value.byteLength === value.buffer.byteLength
    ? [value.buffer]
    : []
