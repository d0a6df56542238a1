// Reads the cloud's log across its segments: beside the writer, in a worker thread or in another process.

import { BehaviorSubject, concat, defer, Observable, of } from 'rxjs'
import { fault } from '../run/fault.ts'
import {
  type CloudEntry,
  type CloudReader,
  type CloudReplay,
  LOG_CLASSES,
  type LogClass,
} from './cloudlog.ts'
import { openLmdb } from './lmdb.ts'
import { decodeEntry, ENTRIES, findInSegment, listSegments, type SegmentName } from './segments.ts'
import { keyNumber, numberKey, type Store } from './store.ts'

/** Each page is a short read transaction of its own. */
const PAGE_ENTRIES_MAX = 64
const PAGE_BYTES_MAX = 4 * 1024 * 1024

export interface OpenReader extends CloudReader {
  close(): Observable<void>
}

interface ClassState {
  readonly head$: BehaviorSubject<number>
  segments: SegmentName[]
}

export interface ReaderOptions {
  readonly folder: string
  /** The writer's own handles: LMDB allows one handle a file and process. */
  readonly storeOf?: (segment: SegmentName) => Store
}

export const openCloudReader = ({ folder, storeOf = openForReading() }: ReaderOptions): OpenReader => {
  const opened = new Map<string, Store>()
  const store = (segment: SegmentName): Store => {
    const known = opened.get(segment.file)
    if (known !== undefined) return known
    const made = storeOf(segment)
    opened.set(segment.file, made)
    return made
  }

  const headOf = (segments: readonly SegmentName[]): number => {
    const last = segments.at(-1)
    if (last === undefined) return 0
    const [row] = store(last).scan(ENTRIES, { limit: 1, reverse: true })
    return row === undefined ? last.first - 1 : keyNumber(row[0])
  }
  const openClass = (logClass: LogClass): ClassState => {
    const segments = listSegments(folder, logClass)
    return { segments, head$: new BehaviorSubject(headOf(segments)) }
  }
  const classes: Record<LogClass, ClassState> = {
    data: openClass('data'),
    events: openClass('events'),
    audit: openClass('audit'),
  }

  /** The segment that holds `seq`; looks at the folder again when it is beyond what is known. */
  const segmentFor = (logClass: LogClass, seq: number): SegmentName | undefined => {
    const state = classes[logClass]
    const find = (): SegmentName | undefined => state.segments.findLast(segment => segment.first <= seq)
    const found = find()
    if (found !== undefined && found !== state.segments.at(-1)) return found
    if (found !== undefined && store(found).read(ENTRIES, numberKey(seq)) !== undefined) return found
    state.segments = listSegments(folder, logClass)
    return find()
  }

  const page = (logClass: LogClass, after: number, limit: number): CloudEntry[] => {
    const segment = segmentFor(logClass, after + 1)
    if (segment === undefined) return []
    return store(segment)
      .scan(ENTRIES, { from: numberKey(after + 1), limit, bytesMax: PAGE_BYTES_MAX })
      .map(([key, bytes]) => decodeEntry(segment.file, keyNumber(key), bytes))
  }

  const tail = (logClass: LogClass): number =>
    classes[logClass].segments[0]?.first ?? classes[logClass].head$.value + 1

  const replay = ({ class: logClass, after, demand$, atHead }: CloudReplay): Observable<CloudEntry> =>
    new Observable(subscriber => {
      // What retention took is behind us; an entry missing further on is a fault.
      let cursor = Math.max(after, tail(logClass) - 1)
      let credit = 0
      let pumping = false
      const pump = (): void => {
        if (pumping) return
        pumping = true
        try {
          while (credit > 0 && !subscriber.closed && cursor < classes[logClass].head$.value) {
            const entries = page(logClass, cursor, Math.min(credit, PAGE_ENTRIES_MAX))
            if (entries.length === 0)
              throw fault('log_gap', {
                file: `${folder}/${logClass}`,
                expected: cursor + 1,
                found: 'nothing',
              })
            for (const entry of entries) {
              if (subscriber.closed) return
              if (entry.seq !== cursor + 1)
                throw fault('log_gap', {
                  file: `${folder}/${logClass}`,
                  expected: cursor + 1,
                  found: entry.seq,
                })
              cursor = entry.seq
              credit -= 1
              subscriber.next(entry)
            }
          }
          if (cursor >= classes[logClass].head$.value && atHead === 'complete') subscriber.complete()
        } catch (thrown) {
          subscriber.error(thrown)
        } finally {
          pumping = false
        }
      }
      subscriber.add(classes[logClass].head$.subscribe(pump))
      subscriber.add(
        demand$.subscribe({
          next: granted => {
            credit += granted
            pump()
          },
          error: thrown => subscriber.error(thrown),
          complete: () => subscriber.complete(),
        }),
      )
    })

  return {
    head: logClass => classes[logClass].head$.value,
    head$: logClass => classes[logClass].head$.asObservable(),
    tail,
    replay,
    find: place => {
      for (const logClass of LOG_CLASSES) {
        for (const segment of classes[logClass].segments.toReversed()) {
          const seq = findInSegment(store(segment), place)
          if (seq !== undefined) return seq
        }
      }
      return undefined
    },
    announce: (logClass, head) => {
      if (head > classes[logClass].head$.value) classes[logClass].head$.next(head)
    },
    close: () =>
      defer(() => {
        for (const { head$ } of Object.values(classes)) head$.complete()
        return concat(...[...opened.values()].map(each => each.close()), of(undefined))
      }),
  }
}

const openForReading =
  () =>
  (segment: SegmentName): Store =>
    openLmdb({ file: segment.file, tables: [], access: 'read' })
