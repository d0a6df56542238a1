// Takes messages for one stream and seals them: acknowledged messages at once, the others with the next seal.
//
//   acknowledged only when durable   `done` is called after the commit that holds the message
//   spared                           commits for QoS 0 alone keep a distance: each costs 25 KB of flash, whatever it holds
//   in order                         one append at a time; what arrives meanwhile forms the next
//   bounded                          by acknowledgements that are held, and for QoS 0 by bytes, beyond which it is
//                                    dropped and counted
//
// When the stream or the disk is full, QoS 0 is dropped, QoS 1 and 2 are tried again until `holdMsMax`.

import { Observable, Subscription, timer } from 'rxjs'
import { FRAME_BODY_BYTES_MAX } from '../../schemas/frame.ts'
import type { TakenRecord } from '../../schemas/records.ts'
import type { StreamLog } from '../../streams/log/log.ts'
import type { Write } from '../../streams/log/store.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { fault, isFatal, isFault } from '../../streams/run/fault.ts'

export interface Taken {
  readonly record: TakenRecord
  /** Rows that belong in the same transaction. */
  readonly alongside?: readonly Write[] | undefined
  /** Once durable, or with the reason why it cannot be. */
  readonly done: (error?: Error) => void
}

export interface IntakeLimits {
  /** QoS 0 after a pause: how long it waits for company. */
  readonly sealWaitMsMax: number
  /** From one commit to the next that holds nothing but QoS 0, unless `sealBytes` wait. */
  readonly sealSpacingMs: number
  readonly sealBytes: number
  /** QoS 0 that waits: memory it may take while the disk stalls. */
  readonly waitingBytesMax: number
  /** How long a full stream holds a publisher before it is disconnected: below a keep-alive of 30 s. */
  readonly holdMsMax: number
  readonly retryMs: number
  /** Records in one append: bounds a commit to a few MB. */
  readonly batchRecordsMax: number
  /** Bytes in one append, but for a single record: a stream overshoots its quota by no more. */
  readonly batchBytesMax: number
}

export const INTAKE_LIMITS: IntakeLimits = {
  sealWaitMsMax: 250,
  sealSpacingMs: 3_000,
  sealBytes: FRAME_BODY_BYTES_MAX,
  waitingBytesMax: 8 * 1024 * 1024,
  holdMsMax: 20_000,
  retryMs: 500,
  batchRecordsMax: 20_000,
  batchBytesMax: 1024 * 1024,
}

export type IntakeNotice =
  | { readonly kind: 'sealed'; readonly records: number }
  | { readonly kind: 'dropped'; readonly records: number; readonly because: 'buffer' | 'full' }
  | { readonly kind: 'full'; readonly because: string }
  | { readonly kind: 'room' }

export interface Intake {
  readonly notices$: Observable<IntakeNotice>
  take(taken: Taken): void
  /** What waits for company is sealed at once. */
  flush(): void
  /** Nothing waits and nothing is being committed. */
  isIdle(): boolean
  /** Full, and has been for longer than publishers are held. */
  isFull(): boolean
}

/** Works while `notices$` is subscribed to. Errors: what is fatal in the log. */
export const openIntake = (log: StreamLog, clock: Clock, limits: IntakeLimits = INTAKE_LIMITS): Intake => {
  let waiting: Taken[] = []
  let waitingBytes = 0
  let take = (taken: Taken): void => taken.done(fault('log_closed'))
  let flush = (): void => undefined
  let running = false
  let fullSinceMs: number | undefined
  let lastFailedMs = Number.NEGATIVE_INFINITY
  let lastSealedMs = Number.NEGATIVE_INFINITY
  const isHeldLong = (): boolean =>
    fullSinceMs !== undefined && clock.monoMs() - fullSinceMs >= limits.holdMsMax
  // When the last publisher was sent away nobody asks whether there is room: after as long again one may try.
  const isFull = (): boolean => isHeldLong() && clock.monoMs() - lastFailedMs < limits.holdMsMax

  const notices$ = new Observable<IntakeNotice>(subscriber => {
    const held = new Subscription()
    let later: Subscription | undefined

    const start = (): void => {
      later?.unsubscribe()
      later = undefined
      if (running || waiting.length === 0) return
      running = true
      const count = batchCount(waiting, limits)
      const batch = count < waiting.length ? waiting.splice(0, count) : waiting
      if (batch === waiting) waiting = []
      waitingBytes =
        waiting.length === 0 ? 0 : waitingBytes - batch.reduce((sum, each) => sum + bytesOf(each), 0)
      const [first, ...rest] = batch.map(({ record }) => record)
      if (first === undefined) return
      const alongside = batch.flatMap(each => each.alongside ?? [])
      held.add(
        log.append([first, ...rest], { alongside }).subscribe({
          complete: () => settled(batch),
          error: thrown => failed(batch, thrown),
        }),
      )
    }

    const startLater = (): void => {
      const dueMs = lastSealedMs + limits.sealSpacingMs - clock.monoMs()
      later ??= timer(Math.max(limits.sealWaitMsMax, dueMs), clock.scheduler).subscribe(start)
    }

    const settled = (batch: readonly Taken[]): void => {
      running = false
      lastSealedMs = clock.monoMs()
      if (fullSinceMs !== undefined) subscriber.next({ kind: 'room' })
      fullSinceMs = undefined
      subscriber.next({ kind: 'sealed', records: batch.length })
      for (const { record, done } of batch) if (record.qos > 0) done()
      if (waitingBytes >= limits.sealBytes || waiting.some(({ record }) => record.qos > 0)) start()
      else if (waiting.length > 0) startLater()
    }

    const failed = (batch: readonly Taken[], thrown: unknown): void => {
      running = false
      lastFailedMs = clock.monoMs()
      if (isFatal(thrown) || !isFault(thrown)) return subscriber.error(thrown)
      if (fullSinceMs === undefined) {
        fullSinceMs = clock.monoMs()
        subscriber.next({ kind: 'full', because: thrown.message })
      }
      const owed = batch.filter(({ record }) => record.qos > 0)
      if (owed.length < batch.length)
        subscriber.next({ kind: 'dropped', records: batch.length - owed.length, because: 'full' })
      if (isHeldLong()) {
        // All of them: what came later must not be stored before what has to come again.
        const sentAway = owed.concat(waiting.splice(0))
        waitingBytes = 0
        for (const { record, done } of sentAway) if (record.qos > 0) done(thrown)
      } else {
        waiting = owed.concat(waiting)
        waitingBytes = waiting.reduce((sum, each) => sum + bytesOf(each), 0)
      }
      later ??= timer(limits.retryMs, clock.scheduler).subscribe(start)
    }

    take = taken => {
      const { qos } = taken.record
      if (qos === 0 && waitingBytes + bytesOf(taken) > limits.waitingBytesMax) {
        subscriber.next({ kind: 'dropped', records: 1, because: 'buffer' })
        return taken.done()
      }
      waiting.push(taken)
      waitingBytes += bytesOf(taken)
      if (fullSinceMs !== undefined) later ??= timer(limits.retryMs, clock.scheduler).subscribe(start)
      else if (qos > 0 || waitingBytes >= limits.sealBytes) start()
      else if (!running) startLater()
      // Its own acknowledgement waits for nothing: there is none.
      if (qos === 0) taken.done()
    }

    flush = start
    held.add(() => {
      running = false
      flush = () => undefined
      later?.unsubscribe()
      take = taken => taken.done(fault('log_closed'))
      for (const { record, done } of waiting.splice(0)) if (record.qos > 0) done(fault('log_closed'))
      waitingBytes = 0
    })
    return held
  })

  return {
    notices$,
    take: taken => take(taken),
    flush: () => flush(),
    isFull,
    isIdle: () => !running && waiting.length === 0,
  }
}

const bytesOf = ({ record }: Taken): number => record.payload.length + record.topic.length

/** How many of those that wait make the next append. */
const batchCount = (waiting: readonly Taken[], { batchRecordsMax, batchBytesMax }: IntakeLimits): number => {
  let bytes = 0
  let count = 0
  for (const taken of waiting) {
    bytes += bytesOf(taken)
    if (count === batchRecordsMax || (count > 0 && bytes > batchBytesMax)) break
    count += 1
  }
  return count
}
