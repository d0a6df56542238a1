// Where a reader of the cloud's log stands: opaque to it, and good for as long as the log keeps what follows.
//
//   u8 class, u48 seq, u16 index: the last line taken was the index-th of entry seq. As base64url: 12 characters.

import type { Parsed } from '../../schemas/hello.ts'
import { LOG_CLASSES, type LogClass } from '../../streams/log/cloudlog.ts'

export interface Cursor {
  readonly class: LogClass
  readonly seq: number
  /** Lines of the entry that were taken; 0: none of it. */
  readonly index: number
}

const BYTES = 9
const TEXT = /^[A-Za-z0-9_-]{12}$/

export const startOf = (logClass: LogClass): Cursor => ({ class: logClass, seq: 0, index: 0 })

export const encodeCursor = ({ class: logClass, seq, index }: Cursor): string => {
  const bytes = Buffer.allocUnsafe(BYTES)
  bytes[0] = LOG_CLASSES.indexOf(logClass)
  bytes.writeUIntBE(seq, 1, 6)
  bytes.writeUInt16BE(index, 7)
  return bytes.toString('base64url')
}

/** `logClass`: of the log that is about to be read. */
export const parseCursor = (text: string, logClass: LogClass): Parsed<Cursor> => {
  if (!TEXT.test(text))
    return { ok: false, because: 'it is not one that this API gave: use the "cursor" of a line as it is' }
  const bytes = Buffer.from(text, 'base64url')
  const found = LOG_CLASSES[bytes[0] ?? 0]
  if (found === undefined) return { ok: false, because: 'it names no class of the log' }
  if (found !== logClass)
    return { ok: false, because: `it is of the ${found} log, this request reads the ${logClass} log` }
  return { ok: true, value: { class: found, seq: bytes.readUIntBE(1, 6), index: bytes.readUInt16BE(7) } }
}

/** Class of a cursor whose use is not known yet. */
export const parseAnyCursor = (text: string): Parsed<Cursor> => {
  const logClass = LOG_CLASSES[Buffer.from(text.slice(0, 2), 'base64url')[0] ?? 0] ?? 'data'
  return parseCursor(text, logClass)
}
