// The durable north side: records of the log in order, at least once, from any cursor, as NDJSON.
//
// A reader that is slow slows itself: the next page is asked for when the socket took the one before.

import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { defaultIfEmpty, filter, firstValueFrom, fromEvent, merge, take } from 'rxjs'
import { z } from 'zod'
import { gatewayIdSchema, streamNameSchema } from '../../../schemas/ids.ts'
import type { LogClass } from '../../../streams/log/cloudlog.ts'
import { fault } from '../../../streams/run/fault.ts'
import { type Cursor, parseCursor, startOf } from '../cursor.ts'
import { cursorNameSchema } from '../named-cursors.ts'
import type { RouteContext, Scope } from '../scope.ts'

/** Each holds a page of 256 KB at most. */
export const FOLLOWERS_MAX = 64
const LINES_A_PAGE_MAX = 2_000

const querySchema = z.object({
  gateway: gatewayIdSchema.optional(),
  stream: streamNameSchema.optional().describe('"events" has a log of its own; without a stream: all others'),
  after: z.string().optional().describe('a cursor: reading goes on behind its line'),
  cursor: cursorNameSchema.optional().describe('reading goes on behind this named cursor'),
  limit: z.coerce
    .number()
    .int()
    .min(1)
    .max(1_000_000)
    .default(1_000)
    .describe('lines; ask again behind the last cursor for more'),
  follow: z.enum(['0', '1']).default('0').describe('1: goes on as records arrive; `limit` is ignored'),
})

export const recordRoutes = (scope: Scope, context: RouteContext): void => {
  const { reader, readPage, named, registry, stop$ } = context
  let open = 0

  /** Throws cursor_invalid, cursor_unknown. */
  const startAt = ({ after, cursor, stream }: z.output<typeof querySchema>): Cursor => {
    const logClass: LogClass = stream === 'events' ? 'events' : 'data'
    if (cursor !== undefined && after !== undefined)
      throw fault('cursor_invalid', { because: 'give "after" or "cursor", not both' })
    const stored = cursor === undefined ? undefined : named.get(cursor)
    if (cursor !== undefined && stored === undefined) throw fault('cursor_unknown', { cursor })
    const text = after ?? stored?.cursor
    if (text === undefined || text === '') return startOf(logClass)
    const parsed = parseCursor(text, logClass)
    if (!parsed.ok) throw fault('cursor_invalid', { because: parsed.because })
    if (parsed.value.seq > reader.head(logClass)) {
      throw fault('cursor_invalid', {
        because:
          'it lies beyond the log, which was put back from an earlier copy: read from an earlier cursor',
      })
    }
    return parsed.value
  }

  scope.get(
    '/records',
    {
      schema: {
        summary:
          'Records as NDJSON: {gateway, epoch, stream, offset, topic, receivedAt, qos, retain, payload, cursor}',
        description:
          'SenML payloads as JSON, other text as a string, the rest as base64 with "encoding". Skips as ' +
          '{skip: {first, count, cause}}, frames that cannot be decoded as {undecodable}, what retention took before it was read as {expired}.',
        querystring: querySchema,
      },
    },
    async (request, reply) => {
      const { query } = request
      if (query.gateway !== undefined && registry.get(query.gateway) === undefined)
        throw fault('gateway_unknown', { gateway: query.gateway })
      const follow = query.follow === '1'
      let cursor = startAt(query)
      if (open >= FOLLOWERS_MAX) {
        throw fault('limit_reached', {
          limit: 'followersMax',
          max: FOLLOWERS_MAX,
          mend: 'close one, or read with limit and after',
        })
      }
      open += 1
      reply.hijack()
      const { raw } = reply
      const closed$ = merge(fromEvent(raw, 'close'), fromEvent(raw, 'error'), stop$).pipe(take(1))
      let ended = false
      const watching = firstValueFrom(closed$.pipe(defaultIfEmpty(undefined))).then(() => {
        ended = true
      })
      try {
        for (const [name, value] of Object.entries(reply.getHeaders()))
          if (value !== undefined) raw.setHeader(name, value)
        raw.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' })
        raw.flushHeaders()
        for (let left = follow ? Number.POSITIVE_INFINITY : query.limit; left > 0 && !ended; ) {
          const head = reader.head(cursor.class)
          const asked = {
            after: cursor,
            gateway: query.gateway,
            stream: query.stream,
            linesMax: Math.min(left, LINES_A_PAGE_MAX),
            head,
          }
          const page = await firstValueFrom(readPage(asked).pipe(defaultIfEmpty(undefined)))
          if (page === undefined) break
          left -= page.lines
          cursor = page.cursor
          if (page.lines > 0) await written(raw, page.bytes, watching)
          if (!page.atHead) continue
          if (!follow) break
          const more$ = reader.head$(cursor.class).pipe(filter(now => now > head))
          await firstValueFrom(merge(more$, closed$).pipe(take(1), defaultIfEmpty(undefined)))
        }
        raw.end()
      } catch {
        // The status line is gone: a cut connection is the one thing that still says "not complete".
        raw.destroy()
      } finally {
        open -= 1
      }
    },
  )
}

/** Resolves when the socket asks for more, or is gone. */
const written = async (raw: ServerResponse, bytes: Uint8Array, closed: Promise<unknown>): Promise<void> => {
  if (raw.write(bytes) || raw.destroyed) return
  await Promise.race([once(raw, 'drain'), closed])
}
