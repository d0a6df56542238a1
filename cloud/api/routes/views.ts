// What arrived of a gateway: its latest values, and the account of its streams.

import { firstValueFrom } from 'rxjs'
import { z } from 'zod'
import { SKIP_CAUSES } from '../../../schemas/frame.ts'
import {
  type DeliveryRow,
  type LatestChange,
  type LatestValue,
  VIEW_ROWS_MAX,
} from '../../../schemas/views.ts'
import { rfc3339 } from '../lines.ts'
import { errorSchema, limitSchema, type RouteContext, type Scope, timeSchema } from '../scope.ts'
import { idParams, known, timeOf } from './gateways.ts'

const valueSchema = z.object({
  stream: z.string(),
  name: z.string(),
  value: z.union([z.number(), z.string(), z.boolean()]).optional(),
  unit: z.string().optional(),
  sum: z.number().optional(),
  form: z.enum(['value', 'data']).describe('data: base64url of bytes'),
  cut: z.boolean(),
  at: timeSchema.describe("by the record's own time"),
  receivedAt: timeSchema,
  topic: z.string(),
  offset: z.number(),
  updates: z.number(),
})
const topicSchema = z.object({
  stream: z.string(),
  topic: z.string(),
  bytes: z.number(),
  preview: z.string(),
  encoding: z.enum(['utf8', 'base64']),
  receivedAt: timeSchema,
  offset: z.number(),
  updates: z.number(),
})
const rangeSchema = z.object({ first: z.number(), last: z.number() })
const rangesOf = <T extends z.ZodType>(range: T) =>
  z.object({ count: z.number(), ranges: z.number(), list: z.array(range) })
const streamSchema = z.object({
  stream: z.string(),
  epoch: z.string(),
  first: z.number(),
  last: z.number(),
  records: z.number(),
  frames: z.number(),
  bytes: z.number(),
  skips: rangesOf(rangeSchema.extend({ cause: z.enum(SKIP_CAUSES) })),
  gaps: rangesOf(rangeSchema).describe('offsets that are neither data nor a declared skip; must be none'),
  repeated: z.number().describe('offsets that the log holds twice; must be 0'),
  duplicatesDropped: z.number(),
  forks: z.array(z.object({ parent: z.string(), at: z.number(), held: z.number(), seenAt: timeSchema })),
  lastReceivedAt: timeSchema.optional(),
  origin: z.number().optional(),
  parent: z.string().optional(),
  announced: z
    .object({ tail: z.number(), head: z.number(), waitingBytes: z.number(), at: timeSchema })
    .optional(),
  lag: z.number().optional(),
  summary: z.string(),
})

export const valueBody = ({ atMs, receivedAtMs, ...value }: LatestValue | LatestChange) => ({
  ...value,
  at: rfc3339(atMs),
  receivedAt: rfc3339(receivedAtMs),
})

const streamBody = (row: DeliveryRow): z.output<typeof streamSchema> => {
  const { lastReceivedMs, announced, forks, skips, gaps, first, last, ...same } = row
  return {
    ...same,
    first,
    last,
    skips: { ...skips, list: [...skips.list] },
    gaps: { ...gaps, list: [...gaps.list] },
    forks: forks.map(({ atMs, ...fork }) => ({ ...fork, seenAt: rfc3339(atMs) })),
    lastReceivedAt: timeOf(lastReceivedMs),
    announced: announced === undefined ? undefined : { ...withoutMs(announced), at: rfc3339(announced.atMs) },
    summary:
      last === 0
        ? 'nothing received yet'
        : `received ${first}…${last}, ${gaps.count} gaps${skips.count === 0 ? '' : `, ${skips.count} skipped`}`,
  }
}
const withoutMs = ({ tail, head, waitingBytes }: NonNullable<DeliveryRow['announced']>) => ({
  tail,
  head,
  waitingBytes,
})

export const viewRoutes = (scope: Scope, context: RouteContext): void => {
  const { views } = context
  scope.get(
    '/gateways/:id/latest',
    {
      schema: {
        summary: 'The latest value of every name, and the latest payload of every other topic',
        params: idParams,
        querystring: z.object({
          prefix: z.string().max(1_024).optional(),
          limit: limitSchema(1_000, VIEW_ROWS_MAX),
        }),
        response: {
          200: z.object({
            values: z.array(valueSchema),
            topics: z.array(topicSchema),
            names: z.number(),
            namesMax: z.number(),
            refused: z.number().describe('records whose name found no room'),
            records: z.number(),
          }),
          404: errorSchema,
        },
      },
    },
    async ({ params: { id }, query: { prefix, limit } }) => {
      known(context, id)
      const { values, topics, ...counts } = await firstValueFrom(
        views.query('latest', { gateway: id, prefix, limit }),
      )
      return {
        ...counts,
        values: values.map(valueBody),
        topics: topics.map(({ receivedAtMs, ...topic }) => ({ ...topic, receivedAt: rfc3339(receivedAtMs) })),
      }
    },
  )

  scope.get(
    '/gateways/:id/delivery',
    {
      schema: {
        summary: 'What arrived of every stream: received 1…N, gaps, skips with their cause',
        params: idParams,
        response: {
          200: z.object({
            streams: z.array(streamSchema),
            refused: z.array(
              z.object({
                stream: z.string(),
                count: z.number(),
                code: z.string(),
                because: z.string(),
                at: timeSchema,
              }),
            ),
          }),
          404: errorSchema,
        },
      },
    },
    async ({ params: { id } }) => {
      known(context, id)
      const { streams, refused } = await firstValueFrom(views.query('delivery', { gateway: id }))
      return {
        streams: streams.map(streamBody),
        refused: refused.map(({ atMs, ...frame }) => ({ ...frame, at: rfc3339(atMs) })),
      }
    },
  )

  scope.get(
    '/dead-letters',
    {
      schema: {
        summary: 'Frames that arrived and cannot be decoded, newest first',
        querystring: z.object({ limit: limitSchema(100, 1_000) }),
        response: {
          200: z.object({
            total: z.number(),
            letters: z.array(
              z.object({
                class: z.string(),
                seq: z.number(),
                gateway: z.string(),
                stream: z.string().optional(),
                first: z.number().optional(),
                count: z.number().optional(),
                bytes: z.number(),
                because: z.string(),
                receivedAt: timeSchema,
              }),
            ),
          }),
        },
      },
    },
    async ({ query: { limit } }) => {
      const { total, letters } = await firstValueFrom(views.query('deadLetters', { limit }))
      return {
        total,
        letters: letters.map(({ receivedAtMs, ...letter }) => ({
          ...letter,
          receivedAt: rfc3339(receivedAtMs),
        })),
      }
    },
  )
}
