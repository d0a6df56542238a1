// Turns a bounded page reader into a demand-driven stream of frames and skips.

import { Observable } from 'rxjs'
import { shortenSkip } from '../../schemas/frame.ts'
import type { Offset } from '../../schemas/ids.ts'
import { fault } from '../run/fault.ts'
import { storedHeader } from './lmdbfile.ts'
import type { Entry, Replay } from './log.ts'
import { keyNumber, numberKey, type Row, type Scan } from './store.ts'

/** Each page is a short read transaction of its own: a long one would keep LMDB from reusing pages. */
const PAGE_ENTRIES_MAX = 32
const PAGE_BYTES_MAX = 1024 * 1024

export interface PageSource {
  readonly scan: (scan: Scan) => Row[]
  readonly head$: Observable<Offset>
  readonly file: string
}

/** Errors: log_gap when `after` lies before what is kept, or an offset is missing. */
export const replayPages = (
  { scan, head$, file }: PageSource,
  { after, demand$, atHead }: Replay,
): Observable<Entry> =>
  new Observable(subscriber => {
    let cursor = after
    let head: Offset = after
    let credit = 0
    let pumping = false

    const pump = (): void => {
      if (pumping) return // A consumer granted credit from inside next().
      pumping = true
      while (credit > 0 && !subscriber.closed && cursor < head) {
        for (const entry of readPage(Math.min(credit, PAGE_ENTRIES_MAX))) {
          if (subscriber.closed) return
          if (entry.header.first !== cursor + 1) throw gap(entry.header.first)
          cursor = entry.header.last
          credit -= 1
          subscriber.next(entry)
        }
      }
      pumping = false
      if (cursor >= head && atHead === 'complete') subscriber.complete()
    }

    const readPage = (limit: number): readonly Entry[] => {
      const rows = scan({ from: numberKey(cursor + 1), limit, bytesMax: PAGE_BYTES_MAX })
      const [first] = rows
      if (first !== undefined && keyNumber(first[0]) === cursor + 1)
        return rows.map(([, bytes]) => ({ header: storedHeader(file, bytes), bytes }))
      // The next offset is inside an entry that starts earlier: a skip grew over the place where we were.
      const [before] = scan({ from: numberKey(cursor + 1), limit: 1, reverse: true })
      if (before === undefined) throw gap(first === undefined ? 'nothing' : keyNumber(first[0]))
      const header = storedHeader(file, before[1])
      if (header.kind !== 'skip' || header.last <= cursor) throw gap(header.first)
      const bytes = shortenSkip(before[1], (cursor + 1) as Offset)
      return [{ header: storedHeader(file, bytes), bytes }]
    }

    const gap = (found: number | string): Error => fault('log_gap', { file, expected: cursor + 1, found })

    const attempt = (step: () => void): void => {
      try {
        step()
      } catch (thrown) {
        subscriber.error(thrown)
      }
    }

    subscriber.add(
      head$.subscribe({
        next: moved => {
          head = moved
          attempt(pump)
        },
        error: thrown => subscriber.error(thrown),
      }),
    )
    subscriber.add(
      demand$.subscribe({
        next: granted => {
          credit += granted
          attempt(pump)
        },
        error: thrown => subscriber.error(thrown),
        complete: () => subscriber.complete(),
      }),
    )
  })
