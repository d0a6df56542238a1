// Frames that arrived whole, are in the log, and cannot be decoded: the last thousand, all of them counted.

import type { DeadLetter, DeadLetterPage } from '../../schemas/views.ts'
import type { Projection, View } from '../../streams/fold/projection.ts'
import { headerOf, recordsOf } from './decode.ts'

export const DEAD_LETTERS_MAX = 1_000

export type DeadLetterValue =
  | (DeadLetter & { readonly kind: 'letter' })
  | { readonly kind: 'total'; total: number }

const TOTAL = 'total'
/** A letter's place in a ring: a new one takes the place of the oldest. */
const keyOf = (number: number): string => `l/${number % DEAD_LETTERS_MAX}`

export const deadLetters: Projection<DeadLetterValue> = {
  name: 'dead-letters',
  version: 1,
  classes: ['data', 'events'],
  apply: (view, page, logClass) => {
    for (const entry of page) {
      if (entry.kind !== 'frame') continue
      const records = recordsOf(entry)
      if (records.ok) continue
      const header = headerOf(entry)
      const { stream, first, count } = header.ok
        ? header.value
        : { stream: undefined, first: undefined, count: undefined }
      const { seq, gateway, receivedAtMs, frame } = entry
      const total = totalOf(view) + 1
      view.set(TOTAL, { kind: 'total', total })
      view.set(keyOf(total), {
        kind: 'letter',
        class: logClass,
        seq,
        gateway,
        stream,
        first,
        count,
        bytes: frame.length,
        because: records.because,
        receivedAtMs,
      })
    }
  },
}

const totalOf = (view: View<DeadLetterValue>): number => {
  const known = view.get(TOTAL)
  return known?.kind === 'total' ? known.total : 0
}

export const deadLetterPage = (view: View<DeadLetterValue>, limit: number): DeadLetterPage => {
  const total = totalOf(view)
  const letters: DeadLetter[] = []
  for (
    let number = total;
    number > Math.max(0, total - DEAD_LETTERS_MAX) && letters.length < limit;
    number--
  ) {
    const value = view.get(keyOf(number))
    if (value?.kind !== 'letter') break
    const { kind: _, ...letter } = value
    letters.push(letter)
  }
  return { total, letters }
}
