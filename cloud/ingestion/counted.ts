// Events that something repeats are told once a second, with how often: a peer that sends nonsense or the same thing
// ten thousand times fills no log.

import type { Clock } from '../../streams/run/clock.ts'

const TELL_MS_MIN = 1_000
/** Beyond this the oldest news are forgotten, not the memory filled. */
const REMEMBERED_MAX = 10_000

export interface Counted<K> {
  /** How many to tell of now; 0: they are counted for later. */
  tell(key: K, count: number): number
  /** What was counted and never told of since. */
  rest(): { readonly key: K; readonly count: number }[]
}

export const counted = <K>(clock: Clock): Counted<K> => {
  const told = new Map<K, { readonly atMs: number; readonly unsaid: number }>()
  return {
    tell: (key, count) => {
      const nowMs = clock.monoMs()
      const { atMs, unsaid } = told.get(key) ?? { atMs: Number.NEGATIVE_INFINITY, unsaid: 0 }
      if (nowMs - atMs < TELL_MS_MIN) {
        told.set(key, { atMs, unsaid: unsaid + count })
        return 0
      }
      if (told.size >= REMEMBERED_MAX) told.clear()
      told.set(key, { atMs: nowMs, unsaid: 0 })
      return unsaid + count
    },
    rest: () => {
      const nowMs = clock.monoMs()
      const due = [...told].filter(([, { atMs }]) => nowMs - atMs >= TELL_MS_MIN)
      for (const [key] of due) told.delete(key)
      return due.flatMap(([key, { unsaid }]) => (unsaid > 0 ? [{ key, count: unsaid }] : []))
    },
  }
}
