// Where the cloud stands with one stream of one gateway, and what a frame does to that. Header, checksum, chain and
// sequence only: nothing here looks into a record.

import type { FaultCode } from '../../schemas/faults.ts'
import {
  chainAfter,
  crcOf,
  FrameError,
  type FrameHeader,
  readHeader,
  shortenSkip,
} from '../../schemas/frame.ts'
import type { Epoch, Offset, StreamName } from '../../schemas/ids.ts'
import type { Position } from '../../streams/log/log.ts'

/** What has been received, durable or on its way to disk. */
export interface Receiving {
  readonly stream: StreamName
  readonly epoch: Epoch
  received: Position
}

export type Outcome =
  | { readonly kind: 'taken'; readonly frame: Buffer; readonly position: Position }
  | { readonly kind: 'duplicate' }
  /** Something before it is missing: the sender has to go back. */
  | { readonly kind: 'early' }
  | { readonly kind: 'refused'; readonly code: FaultCode; readonly facts: Readonly<Record<string, unknown>> }

export const receiveFrame = (bytes: Buffer, at: Receiving): Outcome => {
  const { stream } = at
  let header: FrameHeader
  try {
    header = readHeader(bytes)
  } catch (thrown) {
    if (thrown instanceof FrameError)
      return { kind: 'refused', code: 'frame_malformed', facts: { stream, because: thrown.message } }
    throw thrown
  }
  const { first, last, epoch } = header
  if (header.length !== bytes.length)
    return {
      kind: 'refused',
      code: 'frame_malformed',
      facts: { stream, because: `${bytes.length} bytes, announced ${header.length}` },
    }
  const crc = crcOf(bytes)
  if (crc !== header.crc)
    return { kind: 'refused', code: 'frame_crc', facts: { stream, first, found: header.crc, expected: crc } }
  if (header.stream !== stream)
    return {
      kind: 'refused',
      code: 'frame_malformed',
      facts: { stream, because: `it belongs to stream ${header.stream}` },
    }
  if (epoch !== at.epoch)
    return { kind: 'refused', code: 'frame_epoch', facts: { stream, found: epoch, expected: at.epoch } }
  const next = at.received.offset + 1
  if (last < next) return { kind: 'duplicate' }
  if (first > next) return { kind: 'early' }
  const position: Position = { offset: last, chain: header.chain }
  if (header.kind === 'skip') {
    return { kind: 'taken', frame: first === next ? bytes : shortenSkip(bytes, next as Offset), position }
  }
  if (first < next)
    return { kind: 'refused', code: 'frame_sequence', facts: { stream, found: first, expected: next } }
  if (chainAfter(at.received.chain, bytes) !== header.chain) {
    return { kind: 'refused', code: 'frame_chain', facts: { stream, first, after: at.received.offset } }
  }
  return { kind: 'taken', frame: bytes, position }
}
