// What happened in the cloud, as events of its own log. Facts about gateways, in the past tense.

import { z } from 'zod'
import { chainSchema, epochSchema, gatewayIdSchema, offsetSchema, streamNameSchema } from './ids.ts'

const gateway = gatewayIdSchema
const stream = { gateway, stream: streamNameSchema, epoch: epochSchema }

export const cloudEventSchema = z.discriminatedUnion('kind', [
  /** Presence of every gateway is unknown until it says hello again. */
  z.strictObject({ kind: z.literal('cloud_started'), run: z.string(), version: z.string() }),
  z.strictObject({ kind: z.literal('cloud_stopped'), run: z.string() }),
  z.strictObject({ kind: z.literal('connected'), gateway, connection: z.string(), address: z.string() }),
  /** Counts only if `connection` is the gateway's current one. */
  z.strictObject({ kind: z.literal('disconnected'), gateway, connection: z.string(), because: z.string() }),
  z.strictObject({
    kind: z.literal('hello'),
    gateway,
    connection: z.string(),
    version: z.string(),
    streams: z.array(
      z.strictObject({
        name: streamNameSchema,
        epoch: epochSchema,
        tail: offsetSchema,
        head: offsetSchema,
        waitingBytes: z.int(),
      }),
    ),
  }),
  z.strictObject({
    kind: z.literal('epoch_began'),
    ...stream,
    origin: offsetSchema,
    parent: epochSchema.optional(),
  }),
  /** `at`: last offset common to both; `held`: where the cloud's copy of the parent ends. */
  z.strictObject({
    kind: z.literal('forked'),
    ...stream,
    parent: epochSchema,
    at: offsetSchema,
    held: offsetSchema,
  }),
  z.strictObject({ kind: z.literal('duplicates_dropped'), ...stream, count: z.int().min(1) }),
  z.strictObject({
    kind: z.literal('frame_refused'),
    gateway,
    stream: streamNameSchema,
    code: z.string(),
    because: z.string(),
    count: z.int().min(1),
  }),
  z.strictObject({
    kind: z.literal('mark_behind_tail'),
    ...stream,
    mark: offsetSchema,
    tail: offsetSchema,
    chain: chainSchema,
  }),
  z.strictObject({
    kind: z.literal('second_connection_refused'),
    gateway,
    connection: z.string(),
    address: z.string(),
  }),
  z.strictObject({
    kind: z.literal('segment_deleted'),
    class: z.string(),
    day: z.string(),
    reason: z.string(),
  }),
])

export type CloudEvent = z.output<typeof cloudEventSchema>
