// Records into frames: at most 500 records or 64 KB each, in order.

import { FRAME_BODY_BYTES_MAX, FRAME_RECORDS_MAX } from '../../schemas/frame.ts'
import type { TakenRecord } from '../../schemas/records.ts'

/** Columns of the body; see schemas/records.ts. */
const RECORD_OVERHEAD_BYTES = 16

export function* cut(batch: readonly TakenRecord[]): Generator<readonly TakenRecord[]> {
  let from = 0
  let bodyBytes = 0
  for (const [i, { topic, payload }] of batch.entries()) {
    // The topic counts each time: it may be new to the frame, and finding out costs more than it saves.
    const recordBytes = payload.length + topic.length + RECORD_OVERHEAD_BYTES
    if (i > from && (i - from >= FRAME_RECORDS_MAX || bodyBytes + recordBytes > FRAME_BODY_BYTES_MAX)) {
      yield batch.slice(from, i)
      from = i
      bodyBytes = 0
    }
    bodyBytes += recordBytes
  }
  yield from === 0 ? batch : batch.slice(from)
}
