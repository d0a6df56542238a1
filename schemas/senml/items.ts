// The part of CBOR (RFC 8949) that SenML needs: one cursor over the bytes, read item by item.
//
// Nothing is allocated by a length that the input only claims, and nothing is nested deeper than DEPTH_MAX.
// What is wrong with the input is thrown as SenmlError, and caught by the parser of the pack.

import { isUtf8 } from 'node:buffer'

/** A pack needs 2 levels; an unknown field may hold a few more. */
export const DEPTH_MAX = 16

/** An own type, so that only what is wrong with the input is caught. */
export class SenmlError extends Error {}

export interface Cursor {
  readonly bytes: Buffer
  at: number
}

export interface Head {
  readonly major: number
  readonly info: number
  /** Length, count or unsigned value; -1 for an indefinite length. Above 2^53 the nearest double. */
  readonly argument: number
}

const INDEFINITE = -1
const BREAK = 0xff
const DECIMAL_FRACTION = 4

/** Reads the head of an item, passing over any tags. */
export const readHead = (cursor: Cursor): Head => {
  let head = readOneHead(cursor)
  for (let tags = 0; head.major === 6 && head.argument !== DECIMAL_FRACTION; tags++) {
    if (tags === DEPTH_MAX) throw new SenmlError(`more than ${DEPTH_MAX} tags on one item`)
    head = readOneHead(cursor)
  }
  return head
}

const readOneHead = (cursor: Cursor): Head => {
  const first = take(cursor, 1)
  const initial = cursor.bytes.readUInt8(first)
  const major = initial >>> 5
  const info = initial & 31
  if (info < 24) return { major, info, argument: info }
  switch (info) {
    case 24:
      return { major, info, argument: cursor.bytes.readUInt8(take(cursor, 1)) }
    case 25:
      return { major, info, argument: cursor.bytes.readUInt16BE(take(cursor, 2)) }
    case 26:
      return { major, info, argument: cursor.bytes.readUInt32BE(take(cursor, 4)) }
    case 27: {
      const at = take(cursor, 8)
      return {
        major,
        info,
        argument: cursor.bytes.readUInt32BE(at) * 2 ** 32 + cursor.bytes.readUInt32BE(at + 4),
      }
    }
    case 31:
      if (major >= 2 && major <= 5) return { major, info, argument: INDEFINITE }
      throw new SenmlError(
        major === 7 ? 'a break outside of anything' : 'an indefinite length where none can be',
      )
    default:
      throw new SenmlError(`reserved CBOR length ${info}`)
  }
}

/** Position of the next `count` bytes, which the cursor passes over. */
const take = (cursor: Cursor, count: number): number => {
  const at = cursor.at
  if (count > cursor.bytes.length - at) throw new SenmlError('cut short')
  cursor.at = at + count
  return at
}

/** Runs `each` for every element of an array or pair of a map whose head was read. */
export const readElements = (cursor: Cursor, { argument }: Head, each: (index: number) => void): void => {
  if (argument !== INDEFINITE) {
    if (argument > cursor.bytes.length - cursor.at) throw new SenmlError('cut short')
    for (let i = 0; i < argument; i++) each(i)
    return
  }
  for (let i = 0; ; i++) {
    if (cursor.bytes[cursor.at] === BREAK) {
      cursor.at += 1
      return
    }
    each(i)
  }
}

/** An integer, a float of any width, or a decimal fraction, as a finite double. */
export const readNumber = (cursor: Cursor): number => {
  const value = numberOf(cursor, readHead(cursor))
  if (!Number.isFinite(value)) throw new SenmlError('not a finite number')
  return value
}

const numberOf = (cursor: Cursor, head: Head): number => {
  switch (head.major) {
    case 0:
      return head.argument
    case 1:
      return -1 - head.argument
    case 6:
      return readDecimalFraction(cursor)
    case 7:
      return floatOf(cursor, head)
    default:
      throw new SenmlError('not a number')
  }
}

/** The argument of a float was read as an integer: look at its bytes again. */
const floatOf = ({ bytes, at }: Cursor, { info, argument }: Head): number => {
  switch (info) {
    case 25:
      return halfOf(argument)
    case 26:
      return bytes.readFloatBE(at - 4)
    case 27:
      return bytes.readDoubleBE(at - 8)
    default:
      throw new SenmlError('not a number')
  }
}

const halfOf = (bits: number): number => {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >>> 10) & 31
  const fraction = bits & 1023
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

/** RFC 8949 section 3.4.4: [exponent, mantissa]. Through decimal text, so that it rounds as JSON would. */
const readDecimalFraction = (cursor: Cursor): number => {
  const head = readOneHead(cursor)
  if (head.major !== 4 || head.argument !== 2) throw new SenmlError('a decimal fraction that is no pair')
  const exponent = readInteger(cursor)
  const mantissa = readInteger(cursor)
  return Number(`${mantissa}e${exponent}`)
}

const readInteger = (cursor: Cursor): number => {
  const { major, argument } = readOneHead(cursor)
  if (major > 1) throw new SenmlError('not an integer')
  return major === 0 ? argument : -1 - argument
}

/** A byte string (major 2) or text (major 3) whose head was read, as a view or, from chunks, a copy. */
const readString = (cursor: Cursor, { major, argument }: Head): Buffer => {
  if (argument !== INDEFINITE) {
    const from = take(cursor, argument)
    return cursor.bytes.subarray(from, cursor.at)
  }
  const chunks: Buffer[] = []
  while (cursor.bytes[cursor.at] !== BREAK) {
    const head = readOneHead(cursor)
    if (head.major !== major || head.argument === INDEFINITE) throw new SenmlError('a chunk of another type')
    chunks.push(readString(cursor, head))
  }
  cursor.at += 1
  return Buffer.concat(chunks)
}

export const readTextBody = (cursor: Cursor, head: Head): string => {
  if (head.major !== 3) throw new SenmlError('not text')
  const bytes = readString(cursor, head)
  const text = bytes.toString('utf8')
  if (text.includes('\ufffd') && !isUtf8(bytes)) throw new SenmlError('text that is not UTF-8')
  return text
}

export const readText = (cursor: Cursor): string => readTextBody(cursor, readHead(cursor))

/** A copy: what was read may be part of a larger frame that must not be kept for it. */
export const readBytes = (cursor: Cursor): Buffer => {
  const head = readHead(cursor)
  if (head.major !== 2) throw new SenmlError('not bytes')
  return Buffer.from(readString(cursor, head))
}

export const readBoolean = (cursor: Cursor): boolean => {
  const { major, info } = readHead(cursor)
  if (major !== 7 || (info !== 20 && info !== 21)) throw new SenmlError('not a boolean')
  return info === 21
}

/** Passes over one item of any type. */
export const skipItem = (cursor: Cursor, depth = 0): void => {
  if (depth === DEPTH_MAX) throw new SenmlError(`nested deeper than ${DEPTH_MAX}`)
  const head = readHead(cursor)
  switch (head.major) {
    case 2:
    case 3:
      readString(cursor, head)
      return
    case 4:
      readElements(cursor, head, () => skipItem(cursor, depth + 1))
      return
    case 5:
      readElements(cursor, head, () => {
        skipItem(cursor, depth + 1)
        skipItem(cursor, depth + 1)
      })
      return
    case 6:
      skipItem(cursor, depth + 1)
      return
    default:
      return
  }
}
