// Group commit: what is submitted while a commit runs forms the next one.
//
//   serial    one commit at a time, jobs in the order of submission
//   together  a job's writes are in one transaction with those of its group
//   honest    `done` is called after the commit is durable, `failed` after it is known to have left nothing
//
// On a full disk only `reserved` jobs (events, trims, marks) are tried again, with the ballast released.

import { Observable, Subscription, timer } from 'rxjs'
import type { Clock } from '../run/clock.ts'
import { fault, isFault } from '../run/fault.ts'
import type { Store, Write } from './store.ts'

export interface Job {
  /**
   * Called when its group forms; may see the effect of jobs before it. `later`: it has to wait for the next group. A
   * throw fails this job alone.
   */
  prepare(): readonly Write[] | 'later'
  done(): void
  failed(thrown: unknown): void
  /** Tried with the ballast when the disk is full. */
  readonly reserved: boolean
}

/** Disk space set aside so that deletes and events still work on a full disk. */
export interface Ballast {
  release(): void
  /** Takes the space again, if it was released and `freeBytes` leave room for it. */
  restore(freeBytes: number): void
}

export interface Committer {
  /** `now`: as soon as no commit runs. `wait`: with the next one, at the latest after the seal wait. */
  submit(job: Job, patience: 'now' | 'wait'): void
}

export interface CommitterOptions {
  readonly store: Store
  readonly clock: Clock
  readonly ballast: Ballast
  /** Space that only reserved jobs may use. */
  readonly reserveBytes: number
  readonly waitMsMax: number
  /** After each group: what it changed in memory stands, or is taken back. */
  readonly settle: (durable: boolean) => void
}

/** A full disk is asked again at most this often: each try costs a rejected transaction. */
const FULL_RETRY_MS = 250
/** statfs costs 2 µs; a second of writes at 100 MB/s stays within the reserve with this. */
const FREE_CHECK_MS = 100

/** Lives while subscribed; at unsubscription, what has not been committed fails with log_closed. */
export const groupCommit = ({
  store,
  clock,
  ballast,
  reserveBytes,
  waitMsMax,
  settle,
}: CommitterOptions): Observable<Committer> =>
  new Observable(subscriber => {
    let waiting: Job[] = []
    let running = false
    let closed = false
    let later: Subscription | undefined
    const held = new Subscription()
    let full = false
    let checkedAtMs = Number.NEGATIVE_INFINITY

    const submit = (job: Job, patience: 'now' | 'wait'): void => {
      if (closed) return job.failed(fault('log_closed'))
      waiting.push(job)
      if (running) return
      if (patience === 'now') start()
      else later ??= timer(waitMsMax, clock.scheduler).subscribe(start)
    }

    const start = (): void => {
      later?.unsubscribe()
      later = undefined
      if (running || waiting.length === 0) return
      running = true
      const group = waiting
      waiting = []
      if (!hasRoom()) {
        refuse(group.filter(job => !job.reserved))
        return commit(
          group.filter(job => job.reserved),
          'reserved',
        )
      }
      commit(group, 'any')
    }

    const commit = (group: readonly Job[], kind: 'any' | 'reserved'): void => {
      const taken: Job[] = []
      const writes: Write[] = []
      for (const job of group) {
        try {
          const prepared = job.prepare()
          if (prepared === 'later') {
            waiting.push(job)
            continue
          }
          for (const write of prepared) writes.push(write)
          taken.push(job)
        } catch (thrown) {
          job.failed(thrown)
        }
      }
      if (taken.length === 0) return finish()
      store.commit(writes).subscribe({
        next: () => {
          settle(true)
          for (const job of taken) job.done()
          finish()
        },
        error: (thrown: unknown) => {
          settle(false)
          const noSpace = isFault(thrown) && thrown.code === 'disk_full'
          if (noSpace) noteFull()
          const again = noSpace && kind === 'any' ? taken.filter(job => job.reserved) : []
          for (const job of taken) if (!again.includes(job)) job.failed(thrown)
          if (again.length === 0) return finish()
          ballast.release()
          commit(again, 'reserved')
        },
      })
    }

    const finish = (): void => {
      running = false
      if (waiting.length > 0 && !closed) start()
    }

    const hasRoom = (): boolean => {
      const nowMs = clock.monoMs()
      if (nowMs - checkedAtMs < (full ? FULL_RETRY_MS : FREE_CHECK_MS)) return !full
      checkedAtMs = nowMs
      try {
        const freeBytes = store.freeBytes()
        full = freeBytes < reserveBytes
        if (!full) ballast.restore(freeBytes - reserveBytes)
      } catch {
        // The disk cannot even be asked: it is gone, or no longer ours. It is asked again.
        full = true
      }
      return !full
    }

    const noteFull = (): void => {
      full = true
      checkedAtMs = clock.monoMs()
    }

    const refuse = (jobs: readonly Job[]): void => {
      for (const job of jobs) job.failed(fault('disk_full', { file: store.file }))
    }

    held.add(() => {
      closed = true
      later?.unsubscribe()
      for (const job of waiting.splice(0)) job.failed(fault('log_closed'))
    })
    subscriber.next({ submit })
    return held
  })
