// The enrolment listener: HTTPS with the cloud's own certificate, one route, and nothing else behind it.
// It listens while it is subscribed to. What a stranger sends is answered, reported and never ends it.

import type { Server } from 'node:https'
import rateLimit from '@fastify/rate-limit'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { concatMap, firstValueFrom, map, Observable } from 'rxjs'
import { z } from 'zod'
import { formatAddress } from '../../schemas/address.ts'
import {
  ENROL_BODY_BYTES_MAX,
  ENROL_PATH,
  type EnrolRefusal,
  type EnrolReply,
  enrolRequestSchema,
  type FirstConfig,
} from '../../schemas/enrolment.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { fault, isFault, reasonOf } from '../../streams/run/fault.ts'
import { bucketOf, ENROLMENT_LIMITS_DEFAULT, type EnrolmentLimits } from './limits.ts'
import type { Authority, EnrolmentNotice, Tokens } from './needs.ts'

export const ENROLMENT_LISTEN_DEFAULT = { host: '127.0.0.1', port: 8444 }
const RATE_WINDOW_MS = 60_000
/** Addresses that are counted apart; beyond, the longest silent is forgotten. */
const ADDRESSES_MAX = 10_000

export interface ServeEnrolment {
  /** Port 0 takes any that is free. */
  readonly listen: { readonly host: string; readonly port: number }
  readonly pki: Authority
  readonly registry: Tokens
  readonly clock: Clock
  /** host:port where gateways connect, as they see it. */
  readonly gatewayAddress: string
  /** Sent along to every gateway. */
  readonly config?: FirstConfig
  readonly limits?: Partial<EnrolmentLimits>
}

/** Errors: port_in_use, listen_failed; anything without a code is a defect. */
export const serveEnrolment = (options: ServeEnrolment): Observable<EnrolmentNotice> =>
  new Observable(subscriber => {
    const { listen } = options
    const app = build(
      options,
      notice => subscriber.next(notice),
      defect => subscriber.error(defect),
    )
    app.listen({ host: listen.host, port: listen.port }).then(
      () => {
        const bound = app.server.address()
        const port = bound === null || typeof bound === 'string' ? listen.port : bound.port
        subscriber.next({ kind: 'listening', host: listen.host, port })
      },
      (thrown: unknown) => subscriber.error(listenFault(listen, thrown)),
    )
    return () => {
      // Ends open connections too; that it fails when nothing listens is no news.
      app.close().catch(() => undefined)
    }
  })

const listenFault = (listen: ServeEnrolment['listen'], thrown: unknown) => {
  const facts = { address: formatAddress(listen), key: 'enrolment.port', because: reasonOf(thrown) }
  if (!(thrown instanceof Error && 'code' in thrown)) return thrown
  return fault(thrown.code === 'EADDRINUSE' ? 'port_in_use' : 'listen_failed', facts, thrown)
}

type Tell = (notice: EnrolmentNotice) => void

const build = (
  options: ServeEnrolment,
  tell: Tell,
  fail: (defect: unknown) => void,
): FastifyInstance<Server> => {
  const limits = { ...ENROLMENT_LIMITS_DEFAULT, ...options.limits }
  const app = fastify({
    https: {
      cert: options.pki.server.chain,
      key: options.pki.server.key,
      minVersion: 'TLSv1.3',
      handshakeTimeout: limits.handshakeWaitMsMax,
    },
    bodyLimit: ENROL_BODY_BYTES_MAX,
    requestTimeout: limits.requestWaitMsMax,
    connectionTimeout: limits.requestWaitMsMax,
    keepAliveTimeout: limits.requestWaitMsMax,
    forceCloseConnections: true,
    logger: false,
  })
  app.server.maxConnections = limits.connectionsMax
  app.server.on('drop', dropped =>
    tell({ kind: 'limited', from: dropped?.remoteAddress ?? 'unknown', limit: 'connections' }),
  )
  app.setErrorHandler((thrown, request, reply) => answerError(thrown, request, reply, tell, fail))
  const withinAll = bucketOf(limits.requestsPerMinuteMax, options.clock)
  const rates = {
    max: limits.requestsPerMinuteMaxOfAddress,
    timeWindow: RATE_WINDOW_MS,
    cache: ADDRESSES_MAX,
    onExceeded: (request: FastifyRequest) => tell({ kind: 'limited', from: request.ip, limit: 'address' }),
  }
  // The route is declared only once the plugin is loaded: it would not see it otherwise.
  app.register(rateLimit, rates).after(() => {
    // Behind the limit of each address, so that one alone cannot use up what is there for all.
    app.addHook('preParsing', (request, reply, _, done) => {
      if (withinAll()) return done()
      tell({ kind: 'limited', from: request.ip, limit: 'all' })
      reply
        .code(429)
        .header('retry-after', '60')
        .send(refusal('limited', 'too many enrolments at once: try again in a minute'))
    })
    app.post(ENROL_PATH, request => enrolOnce(request, options, tell))
  })
  app.setNotFoundHandler((_, reply) =>
    reply.code(404).send(refusal('not_found', `only POST ${ENROL_PATH} is here`)),
  )
  return app
}

const enrolOnce = async (
  request: FastifyRequest,
  options: ServeEnrolment,
  tell: Tell,
): Promise<EnrolReply> => {
  const { pki, registry, gatewayAddress, config = {} } = options
  const parsed = enrolRequestSchema.safeParse(request.body)
  if (!parsed.success) throw new MalformedError(z.prettifyError(parsed.error))
  const { secret, csr } = parsed.data
  return await firstValueFrom(
    pki.keyOf(csr).pipe(
      concatMap(publicKeyFingerprint =>
        registry.enrol({
          secret,
          publicKeyFingerprint,
          issue: gateway => pki.issueGateway({ csr, gateway }),
        }),
      ),
      map(({ gateway, certificate, repeated }) => {
        tell({ kind: 'enrolled', gateway: gateway.id, serial: gateway.serial, from: request.ip, repeated })
        return {
          gateway: gateway.id,
          certificate,
          ca: pki.ca.certificate,
          channels: { control: gateway.controlChannel, data: gateway.dataChannel },
          cloud: { address: gatewayAddress },
          config,
        }
      }),
    ),
  )
}

class MalformedError extends Error {
  override readonly name = 'MalformedError'
}

const refusal = (code: string, because: string): EnrolRefusal => ({ code, because })

const answerError = (
  thrown: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  tell: Tell,
  fail: (defect: unknown) => void,
): FastifyReply => {
  const from = request.ip
  if (isFault(thrown)) {
    const { code, severity, message } = thrown
    tell({ kind: 'refused', from, code, because: message })
    // What is not the asker's doing is not the asker's to read either.
    if (severity !== 'refused')
      return reply.code(503).send(refusal(code, 'the cloud cannot enrol at the moment: try again later'))
    return reply.code(code === 'csr_invalid' ? 400 : 403).send(refusal(code, message))
  }
  const status = thrown instanceof MalformedError ? 400 : statusOf(thrown)
  if (status !== undefined && status < 500) {
    const because = reasonOf(thrown)
    if (status !== 429) tell({ kind: 'refused', from, code: 'request_malformed', because })
    return reply.code(status).send(refusal(status === 429 ? 'limited' : 'request_malformed', because))
  }
  reply.code(500).send(refusal('internal', 'the cloud failed'))
  fail(thrown)
  return reply
}

/** fastify's own errors bear the status to answer with. */
const statusOf = (thrown: unknown): number | undefined =>
  thrown instanceof Error && 'statusCode' in thrown && typeof thrown.statusCode === 'number'
    ? thrown.statusCode
    : undefined
