// The loop under `fold`: reads lanes by credit, applies in short turns, commits state with checkpoints.

import { Observable, Subject, type Subscription } from 'rxjs'
import type { CloudEntry } from '../log/cloudlog.ts'
import { fault } from '../run/fault.ts'
import { checkpointWrite, type Through } from './checkpoint.ts'
import type { FoldOptions, FoldState, Lane } from './fold.ts'

interface Reading {
  readonly lane: Lane
  readonly credit$: Subject<number>
  held: CloudEntry[]
  complete: boolean
}

export const runLanes = (
  options: FoldOptions,
  lanes: readonly Lane[],
  missed: number,
): Observable<FoldState> =>
  new Observable(subscriber => {
    const { reader, members, store, clock, atHead = 'follow' } = options
    const {
      checkpointMs = 1_000,
      checkpointEntriesMax = 20_000,
      laneEntriesMax = 32,
      turnMsMax = 20,
    } = options
    let uncommitted = 0
    let committing = false
    let turn: Subscription | undefined
    let due: Subscription | undefined

    const attempt = (step: () => void) => {
      try {
        step()
      } catch (thrown) {
        subscriber.error(thrown)
      }
    }
    const stateNow = (kind: FoldState['kind'], through: FoldState['through']): FoldState => ({
      kind,
      through,
      keys: members.reduce((sum, { size }) => sum + size, 0),
      missed,
    })

    const readings = lanes.map(lane => ({
      lane,
      credit$: new Subject<number>(),
      held: [] as CloudEntry[],
      complete: false,
    }))

    const applyHeld = (reading: Reading) => {
      const page = reading.held
      reading.held = []
      const { lane } = reading
      for (const member of lane.members) member.apply(page, lane.class)
      lane.through += page.length
      uncommitted += page.length
      reading.credit$.next(page.length)
    }

    const takeTurn = () => {
      turn = undefined
      const endsAtMs = clock.monoMs() + turnMsMax
      let worked = true
      while (worked && clock.monoMs() < endsAtMs && !subscriber.closed) {
        worked = false
        for (const reading of readings) {
          if (reading.held.length === 0) continue
          applyHeld(reading)
          worked = true
        }
        if (uncommitted >= checkpointEntriesMax) commit()
      }
      // A commit that is on its way when more arrives is followed by another.
      if (uncommitted > 0 && due === undefined)
        due = clock.scheduler.schedule(() => attempt(onDue), checkpointMs)
      if (readings.some(({ held }) => held.length > 0)) scheduleTurn()
      else if (readings.every(({ complete }) => complete)) finish()
    }
    const scheduleTurn = () => {
      // From a timer, not at once: entries come from inside a grant of ours.
      turn ??= clock.scheduler.schedule(() => attempt(takeTurn), 0)
    }

    const onDue = () => {
      due = undefined
      commit()
    }
    const commit = () => {
      if (committing || uncommitted === 0) return
      committing = true
      uncommitted = 0
      due?.unsubscribe()
      due = undefined
      const through = throughOf(lanes)
      const writes = members.flatMap(member => [
        ...member.takeWrites(),
        checkpointWrite(member, through[member.name] ?? {}),
      ])
      subscriber.add(
        store.commit(writes).subscribe({
          error: thrown => subscriber.error(thrown),
          complete: () => {
            committing = false
            subscriber.next(stateNow('committed', through))
            attempt(afterCommit)
          },
        }),
      )
    }
    const afterCommit = () => {
      if (readings.every(({ complete, held }) => complete && held.length === 0)) finish()
      else if (uncommitted > 0) due ??= clock.scheduler.schedule(() => attempt(onDue), checkpointMs)
    }
    const finish = () => {
      if (uncommitted > 0) commit()
      else if (!committing) subscriber.complete()
    }

    subscriber.next(stateNow('loaded', throughOf(lanes)))
    for (const reading of readings) {
      const { lane } = reading
      let last = lane.through
      subscriber.add(
        reader
          .replay({ class: lane.class, after: lane.through, demand$: reading.credit$, atHead })
          .subscribe({
            next: entry => {
              if (entry.seq !== last + 1) {
                subscriber.error(
                  fault('log_gap', { file: `class ${lane.class}`, expected: last + 1, found: entry.seq }),
                )
                return
              }
              last = entry.seq
              reading.held.push(entry)
              scheduleTurn()
            },
            error: thrown => subscriber.error(thrown),
            complete: () => {
              reading.complete = true
              scheduleTurn()
            },
          }),
      )
      reading.credit$.next(laneEntriesMax)
    }
    return () => {
      turn?.unsubscribe()
      due?.unsubscribe()
    }
  })

const throughOf = (lanes: readonly Lane[]): Record<string, Through> => {
  const all: Record<string, Partial<Record<Lane['class'], number>>> = {}
  for (const lane of lanes) {
    for (const { name } of lane.members) {
      const own = all[name] ?? {}
      own[lane.class] = lane.through
      all[name] = own
    }
  }
  return all
}
