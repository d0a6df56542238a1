// Whether the cloud lives, and whether it is ready for work; if not, why.

import { catchError, firstValueFrom, map, of } from 'rxjs'
import { z } from 'zod'
import { reasonOf } from '../../../streams/run/fault.ts'
import type { RouteContext, Scope } from '../scope.ts'

/** Entries that the views may lag without being called stale: a second or two of full load. */
export const VIEWS_BEHIND_MAX = 5_000

const healthSchema = z.object({
  live: z.literal(true),
  ready: z.boolean(),
  reasons: z.array(z.string()),
  version: z.string(),
})

export const healthRoutes = (scope: Scope, { views, notReady, version }: RouteContext): void => {
  const reasons = async (): Promise<string[]> => {
    const folding = await firstValueFrom(
      views.query('status', {}).pipe(
        map(({ behind }) =>
          behind > VIEWS_BEHIND_MAX ? [`the views are ${behind} entries behind the log and catching up`] : [],
        ),
        catchError(thrown => of([`the views do not answer: ${reasonOf(thrown)}`])),
      ),
    )
    return [...(notReady?.() ?? []), ...folding]
  }
  scope.get(
    '/health',
    {
      schema: {
        summary: 'Live and ready, with reasons; 503 while not ready',
        response: { 200: healthSchema, 503: healthSchema },
      },
    },
    async (_, reply) => {
      const because = await reasons()
      const ready = because.length === 0
      return reply.code(ready ? 200 : 503).send({ live: true, ready, reasons: because, version })
    },
  )
  scope.get(
    '/health/live',
    { schema: { summary: 'The process answers', response: { 200: z.object({ live: z.literal(true) }) } } },
    async () => ({
      live: true as const,
    }),
  )
}
