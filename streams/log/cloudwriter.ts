// The one writer of the cloud's log: frames, events and marks of a group in one transaction for each class.
//
// A segment begins, in one commit, with a copy of all marks and its first entries: the newest begun segment
// alone says what has been marked, so that any older one can be deleted.

import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { concat, defer, Observable, Subscription } from 'rxjs'
import { readHeader } from '../../schemas/frame.ts'
import type { Clock } from '../run/clock.ts'
import { fault, isFault } from '../run/fault.ts'
import { type CloudBody, type CloudWriter, LOG_CLASSES, type LogClass, type StoredMark } from './cloudlog.ts'
import { openCloudReader } from './cloudreader.ts'
import { type Ballast, type Committer, groupCommit } from './commit.ts'
import { openLmdb } from './lmdb.ts'
import {
  BEGUN,
  BEGUN_KEY,
  dayOf,
  ENTRIES,
  encodeEntry,
  INDEX,
  indexKey,
  listSegments,
  markWrite,
  readMarks,
  SEGMENT_TABLES,
  type SegmentName,
  segmentFile,
} from './segments.ts'
import { keyNumber, numberKey, type Store, type Write } from './store.ts'

export interface WriterOptions {
  readonly folder: string
  readonly clock: Clock
  readonly ballast: Ballast
  readonly reserveBytes: number
  /** A store for a segment file; LMDB unless a test brings its own. */
  readonly openSegment?: (file: string) => Store
}

const openFile = (file: string): Store => openLmdb({ file, tables: SEGMENT_TABLES })

interface Segment extends SegmentName {
  readonly store: Store
  begun: boolean
}

interface ClassWriter {
  append(
    bodies: readonly CloudBody[],
    marks: readonly StoredMark[],
  ): Observable<{ first: number; last: number }>
  readonly marks: ReadonlyMap<string, StoredMark>
  readonly stores: ReadonlyMap<string, Store>
}

/** Open while subscribed. Errors: folder_unwritable, log_version, log_unreadable. */
export const openCloudWriter = (options: WriterOptions): Observable<CloudWriter> =>
  new Observable(subscriber => {
    const held = new Subscription()
    const advanced: { announce?: (logClass: LogClass, head: number) => void } = {}
    const writers = new Map<LogClass, ClassWriter>()
    for (const logClass of LOG_CLASSES) {
      held.add(
        openClass(options, logClass, head => advanced.announce?.(logClass, head)).subscribe({
          next: writer => writers.set(logClass, writer),
          error: thrown => subscriber.error(thrown),
        }),
      )
    }
    if (subscriber.closed) return held
    const writerOf = (logClass: LogClass): ClassWriter => {
      const writer = writers.get(logClass)
      if (writer === undefined) throw fault('log_closed')
      return writer
    }
    const storeOf = (segment: SegmentName): Store => {
      for (const writer of writers.values()) {
        const known = writer.stores.get(segment.file)
        if (known !== undefined) return known
      }
      return openLmdb({ file: segment.file, tables: [], access: 'read' })
    }
    const reader = openCloudReader({ folder: options.folder, storeOf })
    advanced.announce = reader.announce
    held.add(() =>
      concat(
        ...[...writers.values()].flatMap(w => [...w.stores.values()]).map(store => store.close()),
      ).subscribe(),
    )
    subscriber.next({
      ...reader,
      append: (logClass, bodies, marks) => writerOf(logClass).append(bodies, marks),
      marks: () => [...writers.values()].flatMap(writer => [...writer.marks.values()]),
    })
    return held
  })

const openClass = (
  options: WriterOptions,
  logClass: LogClass,
  onHead: (head: number) => void,
): Observable<ClassWriter> =>
  new Observable(subscriber => {
    const { folder, clock, openSegment = openFile } = options
    mkdirSync(join(folder, logClass), { recursive: true, mode: 0o700 })
    const stores = new Map<string, Store>()
    const open = (name: SegmentName): Segment => {
      const store = openSegment(name.file)
      stores.set(name.file, store)
      return { ...name, store, begun: store.read(BEGUN, BEGUN_KEY) !== undefined }
    }
    const create = (first: number): Segment => {
      const day = dayOf(clock.nowMs())
      return open({ file: segmentFile(folder, logClass, first, day), first, day })
    }

    let segment = openNewest(listSegments(folder, logClass), open) ?? create(1)
    const marks = new Map(readMarks(segment.store).map(mark => [markKey(mark), mark]))
    let durable = headOf(segment)
    let working = durable
    let pendingMarks: StoredMark[] = []

    const settle = (ok: boolean): void => {
      if (ok) {
        segment.begun = true
        for (const mark of pendingMarks) marks.set(markKey(mark), mark)
        durable = working
      }
      pendingMarks = []
      working = durable
    }

    /** Only at the beginning of a group: all writes of a group go to one file. */
    const rollOnNewDay = (): void => {
      if (working !== durable || pendingMarks.length > 0 || dayOf(clock.nowMs()) <= segment.day) return
      try {
        const next = create(working + 1)
        // One that never began has the same first seq as the new one, and nothing in it.
        if (!segment.begun && next.file !== segment.file) discard(segment)
        segment = next
      } catch (thrown) {
        // No room for a new file: the old one goes on until there is.
        if (!isFault(thrown) || thrown.code !== 'disk_full') throw thrown
      }
    }

    const prepare = (bodies: readonly CloudBody[], moved: readonly StoredMark[]): readonly Write[] => {
      rollOnNewDay()
      const writes: Write[] = []
      if (!segment.begun && working === durable) {
        writes.push({ table: BEGUN, key: BEGUN_KEY, value: Buffer.of(1) })
        for (const mark of marks.values()) writes.push(markWrite(mark))
      }
      const receivedAtMs = clock.nowMs()
      for (const body of bodies) {
        working += 1
        writes.push({ table: ENTRIES, key: numberKey(working), value: encodeEntry(body, receivedAtMs) })
        if (body.kind === 'frame') {
          const { stream, epoch, first } = readHeader(body.frame)
          writes.push({
            table: INDEX,
            key: indexKey({ gateway: body.gateway, stream, epoch, offset: first }),
            value: numberKey(working),
          })
        }
      }
      for (const mark of moved) {
        writes.push(markWrite(mark))
        pendingMarks.push(mark)
      }
      return writes
    }

    // The committer sees one store, whatever segment is behind it.
    const store: Store = {
      ...segment.store,
      commit: writes => defer(() => segment.store.commit(writes)),
      freeBytes: () => segment.store.freeBytes(),
    }
    const append =
      (committer: Committer): ClassWriter['append'] =>
      (bodies, moved) =>
        new Observable(waiting => {
          let first = 0
          let last = 0
          committer.submit(
            {
              reserved: logClass !== 'data',
              prepare: () => {
                first = working + 1
                const writes = prepare(bodies, moved)
                last = working
                return writes
              },
              done: () => {
                onHead(durable)
                waiting.next({ first, last })
                waiting.complete()
              },
              failed: thrown => waiting.error(thrown),
            },
            'now',
          )
        })

    return groupCommit({
      store,
      clock,
      ballast: options.ballast,
      reserveBytes: options.reserveBytes,
      waitMsMax: 0,
      settle,
    }).subscribe({
      next: committer => subscriber.next({ append: append(committer), marks, stores }),
      error: thrown => subscriber.error(thrown),
    })
  })

/** A segment whose first commit never came holds nothing: it is removed. */
const openNewest = (
  names: readonly SegmentName[],
  open: (name: SegmentName) => Segment,
): Segment | undefined => {
  for (const name of names.toReversed()) {
    const segment = open(name)
    if (segment.begun || name === names[0]) return segment
    discard(segment)
  }
  return undefined
}

const discard = ({ store, file }: Segment): void => {
  store.close().subscribe()
  rmSync(file, { force: true })
  rmSync(`${file}-lock`, { force: true })
}

const headOf = (segment: Segment): number => {
  const [row] = segment.store.scan(ENTRIES, { limit: 1, reverse: true })
  return row === undefined ? segment.first - 1 : keyNumber(row[0])
}

const markKey = ({ gateway, stream, epoch }: StoredMark): string => `${gateway}\0${stream}\0${epoch}`
