// Ranges of offsets that something happened to: all of them counted, the last hundred kept.

import type { OffsetRange } from '../../schemas/views.ts'

/** Enough to see a pattern; a stream that skips for a year must not grow without end. */
export const RANGES_KEPT_MAX = 100

export interface RangesKept<T extends OffsetRange> {
  count: number
  ranges: number
  list: T[]
}

export const noRanges = <T extends OffsetRange>(): RangesKept<T> => ({ count: 0, ranges: 0, list: [] })

export const addRange = <T extends OffsetRange>(kept: RangesKept<T>, range: T): void => {
  kept.count += range.last - range.first + 1
  kept.ranges += 1
  kept.list.push(range)
  if (kept.list.length > RANGES_KEPT_MAX) kept.list.shift()
}
