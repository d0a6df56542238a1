// Frames as the projections see them: header and records of an entry, read once however many projections ask.
// Nothing here throws for what a log may hold.

import { type FrameHeader, readHeader, readRecords } from '../../schemas/frame.ts'
import type { Parsed } from '../../schemas/hello.ts'
import type { SealedRecord } from '../../schemas/records.ts'
import type { CloudEntry } from '../../streams/log/cloudlog.ts'
import { reasonOf } from '../../streams/run/fault.ts'

export type FrameEntry = CloudEntry & { readonly kind: 'frame' }

// An entry lives as long as its page; what was read of it goes with it.
const headers = new WeakMap<FrameEntry, Parsed<FrameHeader>>()
const bodies = new WeakMap<FrameEntry, Parsed<readonly SealedRecord[]>>()

export const headerOf = (entry: FrameEntry): Parsed<FrameHeader> => {
  const known = headers.get(entry)
  if (known !== undefined) return known
  const read = attempt(() => readHeader(entry.frame))
  headers.set(entry, read)
  return read
}

/** None of a skip. */
export const recordsOf = (entry: FrameEntry): Parsed<readonly SealedRecord[]> => {
  const known = bodies.get(entry)
  if (known !== undefined) return known
  const header = headerOf(entry)
  const read = header.ok ? attempt(() => readRecords(entry.frame, header.value)) : header
  bodies.set(entry, read)
  return read
}

const attempt = <T>(read: () => T): Parsed<T> => {
  try {
    return { ok: true, value: read() }
  } catch (thrown) {
    return { ok: false, because: reasonOf(thrown) }
  }
}
