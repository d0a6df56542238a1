// Every error of the API as JSON {error, message}: what happened, to what, and what to do.

import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod'
import type { Subject } from 'rxjs'
import type { FaultCode } from '../../schemas/faults.ts'
import { isFault } from '../../streams/run/fault.ts'
import type { Notice } from '../../streams/run/supervise.ts'

export interface ErrorBody {
  readonly error: string
  readonly message: string
}

const STATUS: Partial<Record<FaultCode, number>> = {
  gateway_unknown: 404,
  cursor_unknown: 404,
  cursor_invalid: 400,
  query_refused: 400,
  request_refused: 403,
  worker_lost: 503,
  disk_full: 503,
  commit_failed: 503,
  limit_reached: 503,
}

/** Answers, and tells of what is nobody's fault but ours. */
export const errorHandler =
  (notices$: Subject<Notice>) =>
  (thrown: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    if (isFault(thrown)) {
      const status = STATUS[thrown.code] ?? (thrown.severity === 'refused' ? 400 : 503)
      if (status === 503) void reply.header('retry-after', '1')
      return reply.code(status).send({ error: thrown.code, message: thrown.message } satisfies ErrorBody)
    }
    if (hasZodFastifySchemaValidationErrors(thrown)) {
      const wrong = thrown.validation.map(
        ({ instancePath, message }) => `${instancePath.slice(1) || thrown.validationContext}: ${message}`,
      )
      return reply.code(400).send({
        error: 'request_invalid',
        message: `${wrong.join('; ')}. See /api/openapi.json`,
      } satisfies ErrorBody)
    }
    const status = thrown.statusCode ?? 500
    if (status < 500)
      return reply
        .code(status)
        .send({ error: 'request_invalid', message: thrown.message } satisfies ErrorBody)
    notices$.next({ kind: 'rejected', what: `${request.method} ${request.url}`, reason: thrown.message })
    return reply
      .code(500)
      .send({ error: 'internal', message: 'a defect of the cloud: its log says more' } satisfies ErrorBody)
  }

export const notFound = (request: FastifyRequest, reply: FastifyReply): FastifyReply =>
  reply.code(404).send({
    error: 'not_found',
    message: `nothing answers ${request.method} ${request.url}: /api/openapi.json lists what does`,
  } satisfies ErrorBody)
