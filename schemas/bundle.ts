// What one export message carries: whole frames end to end, or one part of a frame too large for the link.
//
//   whole:  u8 1, then frames (each knows its own length)
//   part:   u8 2, u48 first offset of the frame, u32 its length, u32 position of this part, then bytes

import { FRAME_BYTES_MAX, FrameError } from './frame.ts'

export const PART_HEADER_BYTES = 15
export const BUNDLE_HEADER_BYTES = 1

export type Bundle =
  | { readonly kind: 'whole'; readonly frames: readonly Buffer[] }
  | { readonly kind: 'part'; readonly part: Part }

export interface Part {
  readonly first: number
  readonly total: number
  readonly position: number
  readonly bytes: Buffer
}

export const packWhole = (frames: readonly Buffer[]): Buffer => Buffer.concat([Buffer.of(1), ...frames])

export const packPart = ({ first, total, position, bytes }: Part): Buffer => {
  const head = Buffer.allocUnsafe(PART_HEADER_BYTES)
  head[0] = 2
  head.writeUIntBE(first, 1, 6)
  head.writeUInt32BE(total, 7)
  head.writeUInt32BE(position, 11)
  return Buffer.concat([head, bytes])
}

/** Cuts a message into frames; checks lengths only. Throws FrameError. */
export const unpack = (message: Buffer): Bundle => {
  switch (message[0]) {
    case 1: {
      const frames: Buffer[] = []
      for (let at = BUNDLE_HEADER_BYTES; at < message.length; ) {
        if (at + 12 > message.length) throw new FrameError('a bundle ends inside a header')
        const length = message.readUInt32BE(at + 8)
        if (length < 12 || at + length > message.length) throw new FrameError('a bundle ends inside a frame')
        frames.push(message.subarray(at, at + length))
        at += length
      }
      if (frames.length === 0) throw new FrameError('an empty bundle')
      return { kind: 'whole', frames }
    }
    case 2: {
      if (message.length <= PART_HEADER_BYTES) throw new FrameError('a part without bytes')
      const part = {
        first: message.readUIntBE(1, 6),
        total: message.readUInt32BE(7),
        position: message.readUInt32BE(11),
        bytes: message.subarray(PART_HEADER_BYTES),
      }
      if (part.total > FRAME_BYTES_MAX || part.position + part.bytes.length > part.total)
        throw new FrameError('a part beyond its frame')
      return { kind: 'part', part }
    }
    default:
      throw new FrameError(`bundle form ${message[0]}`)
  }
}
