// One page of records behind a cursor, as NDJSON bytes. Runs in the worker thread, so that the main thread moves
// bytes and decodes nothing.

import { Observable, Subject } from 'rxjs'
import type { CloudReader } from '../../streams/log/cloudlog.ts'
import { type Cursor, encodeCursor } from './cursor.ts'
import { linesOf } from './lines.ts'

export interface PageQuery {
  readonly after: Cursor
  readonly gateway: string | undefined
  readonly stream: string | undefined
  readonly linesMax: number
  /** Of the class that is read, as the asker knows it. */
  readonly head: number
}

export interface Page {
  readonly bytes: Uint8Array
  readonly lines: number
  /** Behind everything that was looked at, also where nothing matched. */
  readonly cursor: Cursor
  readonly atHead: boolean
}

/** A page ends behind the entry with which it exceeds this: some milliseconds of work, a few socket buffers. */
const PAGE_BYTES_MAX = 256 * 1024
/** Entries of other gateways that one page passes over before it returns to its asker. */
const PAGE_ENTRIES_MAX = 4_096
const CREDIT = 16

/** Cold; emits one page. Errors: those of the reader. */
export const readPage = (
  reader: CloudReader,
  { after, gateway, stream, linesMax, head }: PageQuery,
): Observable<Page> =>
  new Observable(subscriber => {
    const parts: string[] = []
    const encoder = new TextEncoder()
    let cursor = after
    let lines = 0
    let chars = 0
    let entries = 0
    let atHead = true

    const add = (line: string) => {
      const text = `${line},"cursor":"${encodeCursor(cursor)}"}\n`
      parts.push(text)
      chars += text.length
      lines += 1
    }
    const finish = () => {
      subscriber.next({ bytes: encoder.encode(parts.join('')), lines, cursor, atHead })
      subscriber.complete()
    }
    reader.announce(after.class, head)
    const credit$ = new Subject<number>()
    // The entry that the cursor is in is read again: part of it may be left.
    const from = Math.max(0, after.seq - 1)
    let last = from
    const replay$ = reader.replay({ class: after.class, after: from, demand$: credit$, atHead: 'complete' })
    const reading = replay$.subscribe({
      next: entry => {
        if (subscriber.closed) return
        if (entry.seq > last + 1 && after.seq > 0) {
          // Retention took what was not read yet: never silently. How much of the cursor's own entry had been read
          // cannot be told any more, so that it counts.
          cursor = { class: after.class, seq: entry.seq - 1, index: 0 }
          add(`{"expired":{"entries":${entry.seq - after.seq}}`)
        }
        last = entry.seq
        entries += 1
        const taken = entry.seq === after.seq ? after.index : 0
        const mine = entry.kind === 'frame' && (gateway === undefined || entry.gateway === gateway)
        const all = mine ? linesOf(entry, stream) : []
        for (let i = taken; i < all.length && lines < linesMax; i++) {
          cursor = { class: after.class, seq: entry.seq, index: i + 1 }
          add(all[i] ?? '')
        }
        const whole = all.length === 0 || cursor.seq !== entry.seq || cursor.index >= all.length
        if (all.length === 0 && entry.seq > cursor.seq)
          cursor = { class: after.class, seq: entry.seq, index: 0 }
        if (!whole || lines >= linesMax || chars >= PAGE_BYTES_MAX || entries >= PAGE_ENTRIES_MAX) {
          atHead = whole && entry.seq >= head
          return finish()
        }
        if (entries % CREDIT === 0) credit$.next(CREDIT)
      },
      error: thrown => subscriber.error(thrown),
      complete: () => {
        if (!subscriber.closed) finish()
      },
    })
    subscriber.add(reading)
    if (!subscriber.closed) credit$.next(CREDIT)
  })
