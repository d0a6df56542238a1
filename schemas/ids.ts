// Names and numbers that cross a wire or a disk, branded so that one cannot stand in for another.
// The constructors here are the only places where a plain value becomes a branded one.

import { z } from 'zod'

declare const brand: unique symbol
type Branded<T, Name extends string> = T & { readonly [brand]: Name }

/** Common name of a gateway's certificate and a level in its topics. */
export type GatewayId = Branded<string, 'GatewayId'>
export type ChannelId = Branded<string, 'ChannelId'>
export type StreamName = Branded<string, 'StreamName'>
/** 16 hex digits, drawn when a log is created or forks. */
export type Epoch = Branded<string, 'Epoch'>
/** 16 hex digits, drawn at each start of the machine or, where that is unknown, of the program. */
export type BootId = Branded<string, 'BootId'>
/** 32 hex digits: SHA-256 over the previous chain and a frame, cut to 16 bytes. */
export type Chain = Branded<string, 'Chain'>
/** Position of a record in a stream, counted from 1. */
export type Offset = Branded<number, 'Offset'>
/** Milliseconds since 1970-01-01 UTC, as the writer's clock saw it. */
export type EpochMs = number

/** The position before the first record: replay after it to read everything. */
export const ORIGIN = 0 as Offset
/** Offsets travel as 48 bits: 8,900 years at a thousand records a second. */
export const OFFSET_MAX = 2 ** 48 - 1
export const CHAIN_ZERO = '0'.repeat(32) as Chain

export const offset = (value: number): Offset => {
  if (!Number.isInteger(value) || value < 0 || value > OFFSET_MAX)
    throw new RangeError(`not an offset: ${value}`)
  return value as Offset
}

const named = <T>(pattern: RegExp, what: string) =>
  z
    .string()
    .regex(pattern, `must be ${what}`)
    .transform(text => text as T)

export const gatewayIdSchema = named<GatewayId>(
  /^[a-z0-9][a-z0-9-]{0,62}$/,
  'lower-case letters, digits and dashes, at most 63',
)
export const channelIdSchema = named<ChannelId>(
  /^[A-Za-z0-9][A-Za-z0-9-]{0,62}$/,
  'letters, digits and dashes, at most 63',
)
const STREAM_NAME = /^[a-z][a-z0-9-]{0,31}$/
/** As the schema, for places that ask once a frame. */
export const isStreamName = (text: string): text is StreamName => STREAM_NAME.test(text)
export const streamNameSchema = named<StreamName>(
  STREAM_NAME,
  'lower-case letters, digits and dashes, at most 32, starting with a letter',
)
export const epochSchema = named<Epoch>(/^[0-9a-f]{16}$/, '16 hex digits')
export const bootIdSchema = named<BootId>(/^[0-9a-f]{16}$/, '16 hex digits')
export const chainSchema = named<Chain>(/^[0-9a-f]{32}$/, '32 hex digits')
export const offsetSchema = z
  .int()
  .min(0)
  .max(OFFSET_MAX)
  .transform(value => value as Offset)

export const gatewayId = (text: string): GatewayId => gatewayIdSchema.parse(text)
export const streamName = (text: string): StreamName => streamNameSchema.parse(text)
export const channelId = (text: string): ChannelId => channelIdSchema.parse(text)
export const epochOf = (random8: Uint8Array): Epoch => Buffer.from(random8).toString('hex') as Epoch
export const bootIdOf = (random8: Uint8Array): BootId => Buffer.from(random8).toString('hex') as BootId

export const STREAM_EVENTS = streamName('events')
export const STREAM_GATEWAY = streamName('gateway')
export const STREAM_DATA = streamName('data')
