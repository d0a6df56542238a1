// Named cursors: a program tells how far it has safely taken the log, and asks for it after its own restart.

import { firstValueFrom } from 'rxjs'
import { z } from 'zod'
import { fault } from '../../../streams/run/fault.ts'
import { parseAnyCursor } from '../cursor.ts'
import { rfc3339 } from '../lines.ts'
import { cursorNameSchema, type NamedCursor } from '../named-cursors.ts'
import { errorSchema, type RouteContext, type Scope, timeSchema } from '../scope.ts'

const params = z.object({ name: cursorNameSchema })
const cursorSchema = z.object({ name: z.string(), cursor: z.string(), acknowledgedAt: timeSchema })
const bodyOf = ({ name, cursor, acknowledgedAtMs }: NamedCursor) => ({
  name,
  cursor,
  acknowledgedAt: rfc3339(acknowledgedAtMs),
})

export const cursorRoutes = (scope: Scope, { named, reader, clock }: RouteContext): void => {
  scope.get(
    '/cursors',
    {
      schema: {
        summary: 'All named cursors',
        response: { 200: z.object({ cursors: z.array(cursorSchema) }) },
      },
    },
    async () => ({ cursors: named.list().map(bodyOf) }),
  )

  scope.get(
    '/cursors/:name',
    { schema: { summary: 'One named cursor', params, response: { 200: cursorSchema, 404: errorSchema } } },
    async ({ params: { name } }) => {
      const found = named.get(name)
      if (found === undefined) throw fault('cursor_unknown', { cursor: name })
      return bodyOf(found)
    },
  )

  scope.put(
    '/cursors/:name',
    {
      schema: {
        summary: 'Acknowledges everything through a line; durable when answered',
        params,
        body: z.strictObject({ cursor: z.string() }),
        response: { 200: cursorSchema, 400: errorSchema, 503: errorSchema },
      },
    },
    async ({ params: { name }, body: { cursor } }) => {
      const parsed = parseAnyCursor(cursor)
      if (!parsed.ok) throw fault('cursor_invalid', { because: parsed.because })
      if (parsed.value.seq > reader.head(parsed.value.class))
        throw fault('cursor_invalid', { because: 'it lies beyond the log' })
      return bodyOf(await firstValueFrom(named.put({ name, cursor, acknowledgedAtMs: clock.nowMs() })))
    },
  )

  scope.delete(
    '/cursors/:name',
    { schema: { summary: 'Forgets a named cursor', params, response: { 204: z.undefined() } } },
    async ({ params: { name } }, reply) => {
      await firstValueFrom(named.remove(name))
      return reply.code(204).send(undefined)
    },
  )
}
