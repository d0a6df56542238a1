// The conversation that frames ride on: the edge's hello and the cloud's mark.

import { z } from 'zod'
import { CLOCK_QUALITIES } from './frame.ts'
import { bootIdSchema, chainSchema, epochSchema, offsetSchema, streamNameSchema } from './ids.ts'

export const PROTOCOL_VERSION = 1
/** A hello or mark above this is refused unread: 256 streams of generous names need 60 KB. */
export const HELLO_BYTES_MAX = 128 * 1024
export const STREAMS_MAX = 256

const at = z.strictObject({ offset: offsetSchema, chain: chainSchema })

export const helloStreamSchema = z.strictObject({
  name: streamNameSchema,
  epoch: epochSchema,
  /** Where this epoch begins: 0, or, after a fork, the last offset proven delivered under `parent`. */
  origin: at,
  parent: epochSchema.optional(),
  /** First offset kept; head + 1 when nothing is. */
  tail: offsetSchema,
  head: offsetSchema,
  /** The last mark that the edge has on disk. */
  mark: at,
  /** Bytes waiting behind the mark, for the cloud's share of credit. */
  waitingBytes: z.int().min(0),
})

export const helloSchema = z.strictObject({
  protocol: z.int().min(1),
  version: z.string().max(64),
  /** Random for each connection: an answer names it. */
  connection: z.string().regex(/^[0-9a-f]{16}$/),
  bootId: bootIdSchema,
  clock: z.strictObject({ wallMs: z.int().min(0), quality: z.enum(CLOCK_QUALITIES) }),
  streams: z.array(helloStreamSchema).min(1).max(STREAMS_MAX),
})

export const markStreamSchema = z.strictObject({
  name: streamNameSchema,
  epoch: epochSchema,
  offset: offsetSchema,
  chain: chainSchema,
})

export const markSchema = z.strictObject({
  /** Set in the answer to a hello, absent in the marks that follow. */
  answers: z.string().optional(),
  streams: z.array(markStreamSchema).max(STREAMS_MAX),
  /** Bytes of frames that may be sent and not yet marked. Zero: wait for the next mark. */
  creditBytes: z.int().min(0),
  /** Longest retry wait that the cloud suggests while it is under load, as a factor on the edge's cap. */
  retryFactor: z.number().min(1).max(60).optional(),
})

export type HelloStream = z.output<typeof helloStreamSchema>
export type Hello = z.output<typeof helloSchema>
export type MarkStream = z.output<typeof markStreamSchema>
export type Mark = z.output<typeof markSchema>

/** What is wrong, in words, or the parsed value. */
export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly because: string }

const parseJson =
  <T>(schema: z.ZodType<T>) =>
  (bytes: Uint8Array): Parsed<T> => {
    if (bytes.length > HELLO_BYTES_MAX)
      return { ok: false, because: `${bytes.length} bytes, at most ${HELLO_BYTES_MAX}` }
    let value: unknown
    try {
      value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'))
    } catch {
      return { ok: false, because: 'not JSON' }
    }
    const parsed = schema.safeParse(value)
    return parsed.success
      ? { ok: true, value: parsed.data }
      : { ok: false, because: z.prettifyError(parsed.error) }
  }

export const parseHello = parseJson(helloSchema)
export const parseMark = parseJson(markSchema)
export const encodeHello = (hello: Hello): Buffer => Buffer.from(JSON.stringify(hello))
export const encodeMark = (mark: Mark): Buffer => Buffer.from(JSON.stringify(mark))
