// What every file of routes is handed: a fastify scope that parses with zod, and the API's options.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import type { Observable } from 'rxjs'
import { z } from 'zod'
import type { NamedCursors } from './named-cursors.ts'
import type { ReadPage } from './pages.ts'
import type { ApiOptions } from './ports.ts'

export type Scope = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse<IncomingMessage>,
  FastifyBaseLogger,
  ZodTypeProvider
>

export interface RouteContext extends ApiOptions {
  readonly named: NamedCursors
  readonly readPage: ReadPage
  /** Fires when the API stops: open streams end. */
  readonly stop$: Observable<unknown>
}

/** Rows of one answer, by default and at most. */
export const limitSchema = (byDefault: number, max: number) =>
  z.coerce.number().int().min(1).max(max).default(byDefault)
export const errorSchema = z.object({ error: z.string(), message: z.string() })
export const timeSchema = z.iso.datetime()
