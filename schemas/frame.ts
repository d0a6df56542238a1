// A frame: up to 500 records sealed once, then moved and stored byte for byte; or a skip in the place of frames
// that are gone. All integers big-endian.
//
//    0  2  "HG"                    24  6  first offset         43  1  skip cause
//    2  1  version                 30  6  count                44  8  boot id
//    3  1  kind, codec             36  6  sealed, wall ms      52  6  sealed, monotonic ms
//    4  4  CRC-32 of all others    42  1  clock quality        58 16  chain
//    8  4  length of the frame                                 74  1  n, then n bytes: stream name
//   12  4  length of the body, uncompressed                           then the body
//   16  8  epoch
//
// Chain: SHA-256(previous chain ‖ [0, 4) ‖ [8, 58) ‖ [74, length)), cut to 16 bytes. A skip carries the chain of the
// last frame that it stands for, so that what follows still verifies.

import { createHash } from 'node:crypto'
import * as zlib from 'node:zlib'
import type { BootId, Chain, Epoch, EpochMs, Offset, StreamName } from './ids.ts'
import { isStreamName, OFFSET_MAX } from './ids.ts'
import { readBody, type SealedRecord, type TakenRecord, writeBody } from './records.ts'

/** A frame is sealed at whichever comes first; one record may exceed the bytes on its own. */
export const FRAME_RECORDS_MAX = 500
export const FRAME_BODY_BYTES_MAX = 64 * 1024
/** Largest record taken: bounds every buffer between a device and the cloud's log. */
export const RECORD_BYTES_MAX = 1024 * 1024
/** No frame is longer than this, whatever a peer says. */
export const FRAME_BYTES_MAX = RECORD_BYTES_MAX + FRAME_BODY_BYTES_MAX + 4 * 1024
/** Below this, compression costs more than it saves. */
const COMPRESS_BYTES_MIN = 256

const FIXED = 75
const VERSION = 1

export const CLOCK_QUALITIES = ['unknown', 'floor', 'synchronised'] as const
/** unknown: never set since boot; floor: at least the last time seen before the boot. */
export type ClockQuality = (typeof CLOCK_QUALITIES)[number]

export const SKIP_CAUSES = ['quota', 'age', 'repair', 'trimmed_after_mark'] as const
export type SkipCause = (typeof SKIP_CAUSES)[number]

export const CODECS = ['plain', 'deflate', 'zstd'] as const
export type Codec = (typeof CODECS)[number]

export interface FrameHeader {
  readonly kind: 'data' | 'skip'
  readonly cause: SkipCause | undefined
  readonly codec: Codec
  readonly crc: number
  readonly length: number
  readonly bodyLength: number
  readonly epoch: Epoch
  readonly first: Offset
  /** Offset of the last record: first + count − 1. */
  readonly last: Offset
  readonly count: number
  readonly sealedAtMs: EpochMs
  readonly clock: ClockQuality
  readonly bootId: BootId
  readonly sealedMonoMs: number
  readonly chain: Chain
  readonly stream: StreamName
}

/** Time as a frame records it. */
export interface Stamp {
  readonly wallMs: EpochMs
  readonly monoMs: number
  readonly bootId: BootId
  readonly quality: ClockQuality
}

export interface Position {
  readonly stream: StreamName
  readonly epoch: Epoch
  readonly first: Offset
}

export class FrameError extends Error {
  override readonly name = 'FrameError'
}
const malformed = (because: string): never => {
  throw new FrameError(because)
}

/** Seals records (at least one, in order) into one frame that continues `previous`. */
export const sealFrame = (
  records: readonly TakenRecord[],
  at: Position & { readonly previous: Chain },
  stamp: Stamp,
  codec: Codec = 'deflate',
): Buffer => {
  const plain = writeBody(records, stamp.monoMs)
  const packed = plain.length < COMPRESS_BYTES_MIN ? plain : compress(plain, codec)
  const pays = packed.length < plain.length
  const frame = layOut(at, stamp, {
    kind: 0,
    codec: pays ? CODECS.indexOf(codec) : 0,
    cause: 0,
    count: records.length,
    plainLength: plain.length,
    body: pays ? packed : plain,
  })
  return finish(frame, chainBytes(at.previous, frame))
}

/** A skip over `count` offsets from `first`; `chain` is that of the last frame it replaces. */
export const sealSkip = (
  at: Position & { readonly count: number; readonly cause: SkipCause; readonly chain: Chain },
  stamp: Stamp,
): Buffer => {
  const frame = layOut(at, stamp, {
    kind: 1,
    codec: 0,
    cause: SKIP_CAUSES.indexOf(at.cause),
    count: at.count,
    plainLength: 0,
    body: Buffer.alloc(0),
  })
  return finish(frame, Buffer.from(at.chain, 'hex'))
}

/** The rest of a skip from `first` on. */
export const shortenSkip = (bytes: Uint8Array, first: Offset): Buffer => {
  const skip = Buffer.from(bytes)
  const { last, kind, chain } = readHeader(skip)
  if (kind !== 'skip' || first > last) return malformed(`no skip reaches ${first}`)
  skip.writeUIntBE(first, 24, 6)
  skip.writeUIntBE(last - first + 1, 30, 6)
  return finish(skip, Buffer.from(chain, 'hex'))
}

/** The same records under another epoch and chain: what a fork does to frames not proven delivered. */
export const restampFrame = (bytes: Uint8Array, epoch: Epoch, previous: Chain): Buffer => {
  const frame = Buffer.from(bytes)
  const header = readHeader(frame)
  frame.write(epoch, 16, 'hex')
  return finish(frame, header.kind === 'skip' ? Buffer.from(previous, 'hex') : chainBytes(previous, frame))
}

interface Parts {
  readonly kind: 0 | 1
  readonly codec: number
  readonly cause: number
  readonly count: number
  readonly plainLength: number
  readonly body: Buffer
}

const layOut = ({ stream, epoch, first }: Position, stamp: Stamp, parts: Parts): Buffer => {
  const frame = Buffer.allocUnsafe(FIXED + stream.length + parts.body.length)
  frame.write('HG', 0, 'latin1')
  frame[2] = VERSION
  frame[3] = (parts.kind << 4) | parts.codec
  frame.writeUInt32BE(frame.length, 8)
  frame.writeUInt32BE(parts.plainLength, 12)
  frame.write(epoch, 16, 'hex')
  frame.writeUIntBE(first, 24, 6)
  frame.writeUIntBE(parts.count, 30, 6)
  frame.writeUIntBE(Math.max(0, Math.min(OFFSET_MAX, Math.round(stamp.wallMs))), 36, 6)
  frame[42] = CLOCK_QUALITIES.indexOf(stamp.quality)
  frame[43] = parts.cause
  frame.write(stamp.bootId, 44, 'hex')
  frame.writeUIntBE(Math.max(0, Math.round(stamp.monoMs)), 52, 6)
  frame[74] = stream.length
  frame.write(stream, FIXED, 'latin1')
  frame.set(parts.body, FIXED + stream.length)
  return frame
}

const finish = (frame: Buffer, chain: Buffer): Buffer => {
  frame.set(chain, 58)
  frame.writeUInt32BE(crcOf(frame), 4)
  return frame
}

const chainBytes = (previous: Chain, frame: Buffer): Buffer =>
  createHash('sha256')
    .update(previous, 'hex')
    .update(frame.subarray(0, 4))
    .update(frame.subarray(8, 58))
    .update(frame.subarray(74))
    .digest()
    .subarray(0, 16)

/** What a frame's chain must be if it follows `previous`. */
export const chainAfter = (previous: Chain, frame: Buffer): Chain =>
  chainBytes(previous, frame).toString('hex') as Chain

/** Reads and checks the header alone. Throws FrameError. */
export const readHeader = (frame: Buffer): FrameHeader => {
  if (frame.length < FIXED) return malformed(`${frame.length} bytes are too few for a header`)
  if (frame[0] !== 0x48 || frame[1] !== 0x47) return malformed('it does not start with "HG"')
  if (frame[2] !== VERSION) return malformed(`version ${frame[2]}, known is ${VERSION}`)
  const kindCodec = frame[3] ?? 0
  const codec = CODECS[kindCodec & 15] ?? malformed(`codec ${kindCodec & 15}`)
  const kind =
    kindCodec >> 4 === 0 ? 'data' : kindCodec >> 4 === 1 ? 'skip' : malformed(`kind ${kindCodec >> 4}`)
  const length = frame.readUInt32BE(8)
  if (length > FRAME_BYTES_MAX) return malformed(`${length} bytes, at most ${FRAME_BYTES_MAX}`)
  const nameLength = frame[74] ?? 0
  if (length < FIXED + nameLength || frame.length < FIXED + nameLength)
    return malformed('shorter than its stream name')
  const bodyLength = frame.readUInt32BE(12)
  if (bodyLength > FRAME_BYTES_MAX) return malformed(`a body of ${bodyLength} bytes`)
  const first = frame.readUIntBE(24, 6)
  const count = frame.readUIntBE(30, 6)
  if (first < 1 || count < 1 || first + count - 1 > OFFSET_MAX)
    return malformed(`offsets from ${first}, ${count} of them`)
  if (kind === 'data' && count > 0xffff) return malformed(`${count} records`)
  const stream = frame.toString('latin1', FIXED, FIXED + nameLength)
  if (!isStreamName(stream)) return malformed('no stream name')
  return {
    kind,
    cause:
      kind === 'skip' ? (SKIP_CAUSES[frame[43] ?? 0] ?? malformed(`skip cause ${frame[43]}`)) : undefined,
    codec,
    crc: frame.readUInt32BE(4),
    length,
    bodyLength,
    epoch: frame.toString('hex', 16, 24) as Epoch,
    first: first as Offset,
    last: (first + count - 1) as Offset,
    count,
    sealedAtMs: frame.readUIntBE(36, 6),
    clock: CLOCK_QUALITIES[frame[42] ?? 0] ?? malformed(`clock quality ${frame[42]}`),
    bootId: frame.toString('hex', 44, 52) as BootId,
    sealedMonoMs: frame.readUIntBE(52, 6),
    chain: frame.toString('hex', 58, 74) as Chain,
    stream,
  }
}

/** CRC-32 as the bytes give it; compare with the header's. */
export const crcOf = (frame: Buffer): number =>
  zlib.crc32(frame.subarray(8, frame.readUInt32BE(8)), zlib.crc32(frame.subarray(0, 4)))

/** The records of a data frame; none of a skip. Throws FrameError. */
export const readRecords = (frame: Buffer, header: FrameHeader = readHeader(frame)): SealedRecord[] => {
  if (header.kind === 'skip') return []
  try {
    const packed = frame.subarray(FIXED + header.stream.length, header.length)
    const body = decompress(packed, header)
    if (body.length !== header.bodyLength)
      return malformed(`a body of ${body.length} bytes, announced ${header.bodyLength}`)
    return readBody(body, header)
  } catch (thrown) {
    if (thrown instanceof FrameError) throw thrown
    return malformed(thrown instanceof Error ? thrown.message : String(thrown))
  }
}

const compress = (plain: Buffer, codec: Codec): Buffer => {
  switch (codec) {
    case 'plain':
      return plain
    case 'deflate':
      return zlib.deflateRawSync(plain, { level: 1 })
    case 'zstd':
      return zstd().compress(plain)
  }
}

const decompress = (packed: Buffer, { codec, bodyLength }: FrameHeader): Buffer => {
  // The announced length bounds the output: a bomb ends as an error.
  const maxOutputLength = Math.max(1, bodyLength)
  switch (codec) {
    case 'plain':
      return packed
    case 'deflate':
      return zlib.inflateRawSync(packed, { maxOutputLength })
    case 'zstd':
      return zstd().decompress(packed, maxOutputLength)
  }
}

/** Node has zstd from 22.15 on; before that frames are never sealed with it. */
const zstd = () => {
  const { zstdCompressSync, zstdDecompressSync } = zlib as ZstdApi
  if (zstdCompressSync === undefined || zstdDecompressSync === undefined)
    return malformed('this runtime has no zstd')
  return {
    compress: (plain: Buffer) => zstdCompressSync(plain),
    decompress: (packed: Buffer, maxOutputLength: number) => zstdDecompressSync(packed, { maxOutputLength }),
  }
}
interface ZstdApi {
  readonly zstdCompressSync?: (input: Buffer) => Buffer
  readonly zstdDecompressSync?: (input: Buffer, options: { maxOutputLength: number }) => Buffer
}
