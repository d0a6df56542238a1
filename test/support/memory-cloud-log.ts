// The cloud's log held in memory: a CloudWriter for tests, with a tail that can be moved.

import { BehaviorSubject, defer, Observable, of } from 'rxjs'
import { readHeader } from '../../schemas/frame.ts'
import type {
  CloudEntry,
  CloudReplay,
  CloudWriter,
  LogClass,
  StoredMark,
} from '../../streams/log/cloudlog.ts'

export interface MemoryCloudLog extends CloudWriter {
  kept(logClass: LogClass): readonly CloudEntry[]
  /** Forgets entries before `seq`, as retention does. */
  forget(logClass: LogClass, seq: number): void
}

interface Kept {
  entries: CloudEntry[]
  first: number
  readonly head$: BehaviorSubject<number>
}

export const memoryCloudLog = (nowMs: () => number = () => 1_750_000_000_000): MemoryCloudLog => {
  const kept: Record<LogClass, Kept> = { data: emptyClass(), events: emptyClass(), audit: emptyClass() }
  const marks = new Map<string, StoredMark>()
  return {
    head: logClass => kept[logClass].head$.value,
    head$: logClass => kept[logClass].head$,
    tail: logClass => kept[logClass].first,
    announce: () => undefined,
    marks: () => [...marks.values()],
    find: ({ gateway, stream, epoch, offset }) =>
      [...kept.data.entries, ...kept.events.entries].find(entry => {
        if (entry.kind !== 'frame' || entry.gateway !== gateway) return false
        const header = readHeader(entry.frame)
        return (
          header.stream === stream &&
          header.epoch === epoch &&
          header.first <= offset &&
          offset <= header.last
        )
      })?.seq,
    append: (logClass, bodies, stored) =>
      defer(() => {
        const own = kept[logClass]
        const first = own.head$.value + 1
        const added = bodies.map(
          (body, i): CloudEntry => ({ ...body, seq: first + i, receivedAtMs: nowMs() }),
        )
        own.entries.push(...added)
        for (const mark of stored) marks.set(`${mark.gateway} ${mark.stream} ${mark.epoch}`, mark)
        own.head$.next(first + added.length - 1)
        return of({ first, last: first + added.length - 1 })
      }),
    replay: options => replayKept(kept[options.class], options),
    kept: logClass => kept[logClass].entries,
    forget: (logClass, seq) => {
      const own = kept[logClass]
      own.entries = own.entries.filter(entry => entry.seq >= seq)
      own.first = Math.max(own.first, seq)
    },
  }
}

const emptyClass = (): Kept => ({ entries: [], first: 1, head$: new BehaviorSubject(0) })

const replayKept = (own: Kept, { after, demand$, atHead }: CloudReplay): Observable<CloudEntry> =>
  new Observable(subscriber => {
    let next = Math.max(after + 1, own.first)
    let credit = 0
    let pumping = false
    const pump = () => {
      if (pumping) return
      pumping = true
      while (credit > 0 && !subscriber.closed) {
        const entry = own.entries[next - own.first]
        if (entry === undefined) break
        next += 1
        credit -= 1
        subscriber.next(entry)
      }
      pumping = false
      if (atHead === 'complete' && next > own.head$.value) subscriber.complete()
    }
    subscriber.add(own.head$.subscribe(pump))
    subscriber.add(
      demand$.subscribe(count => {
        credit += count
        pump()
      }),
    )
  })
