// The cloud's own events, page by page: what happened, when, and the cursor behind it.

import { firstValueFrom, Observable, Subject } from 'rxjs'
import { z } from 'zod'
import { type CloudEvent, cloudEventSchema } from '../../../schemas/events.ts'
import type { CloudEntry, CloudReader } from '../../../streams/log/cloudlog.ts'
import { fault } from '../../../streams/run/fault.ts'
import { encodeCursor, parseCursor } from '../cursor.ts'
import { rfc3339 } from '../lines.ts'
import { errorSchema, limitSchema, type RouteContext, type Scope, timeSchema } from '../scope.ts'

const CLASS = 'events'
/** Gateways' own events lie between the cloud's; a page passes over so many entries before it returns. */
const ENTRIES_A_PAGE_MAX = 2_000

/** Not `cloudEventSchema`: what brands ids on the way in cannot be run backwards, and what we wrote was checked then. */
const sentEventSchema = z.looseObject({
  kind: z.enum(cloudEventSchema.options.map(({ shape }) => shape.kind.value)),
})
const eventSchema = z.object({ cursor: z.string(), receivedAt: timeSchema, event: sentEventSchema })
type EventBody = { readonly cursor: string; readonly receivedAt: string; readonly event: CloudEvent }

export const eventCursor = (seq: number): string => encodeCursor({ class: CLASS, seq, index: 0xffff })

export const eventBody = (entry: CloudEntry & { readonly kind: 'event' }): EventBody => ({
  cursor: eventCursor(entry.seq),
  receivedAt: rfc3339(entry.receivedAtMs),
  event: entry.event,
})

/** The seq that a cursor stands behind. Throws cursor_invalid. */
export const eventsAfter = (reader: Pick<CloudReader, 'head'>, text: string): number => {
  const parsed = parseCursor(text, CLASS)
  if (!parsed.ok) throw fault('cursor_invalid', { because: parsed.because })
  if (parsed.value.seq > reader.head(CLASS))
    throw fault('cursor_invalid', { because: 'it lies beyond the log' })
  return parsed.value.seq
}

const readEvents = (
  reader: CloudReader,
  after: number,
  limit: number,
): Observable<{ events: EventBody[]; seq: number; atHead: boolean }> =>
  new Observable(subscriber => {
    const credit$ = new Subject<number>()
    const events: EventBody[] = []
    let seq = after
    const finish = (atHead: boolean) => {
      subscriber.next({ events, seq, atHead })
      subscriber.complete()
    }
    subscriber.add(
      reader.replay({ class: CLASS, after, demand$: credit$, atHead: 'complete' }).subscribe({
        next: entry => {
          if (subscriber.closed) return
          seq = entry.seq
          if (entry.kind === 'event') events.push(eventBody(entry))
          if (events.length === limit || seq - after >= ENTRIES_A_PAGE_MAX) finish(seq >= reader.head(CLASS))
        },
        error: thrown => subscriber.error(thrown),
        complete: () => {
          if (!subscriber.closed) finish(true)
        },
      }),
    )
    if (!subscriber.closed) credit$.next(ENTRIES_A_PAGE_MAX)
  })

export const eventRoutes = (scope: Scope, { reader }: RouteContext): void => {
  scope.get(
    '/events',
    {
      schema: {
        summary: 'Events of the cloud, oldest first',
        querystring: z.object({ after: z.string().optional(), limit: limitSchema(100, 1_000) }),
        response: {
          200: z.object({ events: z.array(eventSchema), cursor: z.string(), atHead: z.boolean() }),
          400: errorSchema,
        },
      },
    },
    async ({ query: { after, limit } }) => {
      const from = after === undefined ? 0 : eventsAfter(reader, after)
      const { events, seq, atHead } = await firstValueFrom(readEvents(reader, from, limit))
      return { events: events.map(event => ({ ...event })), cursor: eventCursor(seq), atHead }
    },
  )
}
