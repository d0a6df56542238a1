// The HTTP API: listens while subscribed, ends open streams when unsubscribed.
//
// For now on loopback only, without a login; anything else is refused before a socket is opened.

import helmet from '@fastify/helmet'
import swagger from '@fastify/swagger'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import {
  jsonSchemaTransform,
  serializerCompiler,
  validatorCompiler,
  type ZodTypeProvider,
} from 'fastify-type-provider-zod'
import { Observable, Subject } from 'rxjs'
import { isLoopback } from '../../schemas/address.ts'
import { fault, reasonOf } from '../../streams/run/fault.ts'
import type { Notice } from '../../streams/run/supervise.ts'
import { errorHandler, notFound } from './errors.ts'
import { guard } from './guard.ts'
import { namedCursors } from './named-cursors.ts'
import { recordPages } from './pages.ts'
import type { ApiOptions } from './ports.ts'
import { cursorRoutes } from './routes/cursors.ts'
import { eventRoutes } from './routes/events.ts'
import { gatewayRoutes } from './routes/gateways.ts'
import { healthRoutes } from './routes/health.ts'
import { liveRoutes } from './routes/live.ts'
import { recordRoutes } from './routes/records.ts'
import { viewRoutes } from './routes/views.ts'
import type { RouteContext } from './scope.ts'

const ROUTES = [gatewayRoutes, viewRoutes, recordRoutes, cursorRoutes, eventRoutes, liveRoutes, healthRoutes]
/** Bodies are small objects. */
const BODY_BYTES_MAX = 64 * 1024

/** Emits `listening` with its address. Errors: port_in_use, listen_failed. */
export const serveApi = (options: ApiOptions): Observable<Notice> =>
  new Observable(subscriber => {
    const { host, port } = options
    if (!isLoopback(host)) {
      const because = 'without TLS and a login only loopback addresses are served'
      return subscriber.error(
        fault('listen_failed', { address: `${host}:${port}`, because, key: 'api.host' }),
      )
    }
    const stop$ = new Subject<void>()
    const notices$ = new Subject<Notice>()
    const context: RouteContext = {
      ...options,
      stop$,
      named: namedCursors(options.cursors),
      readPage: recordPages({ logFolder: options.logFolder, clock: options.clock, stop$ }),
    }
    const app = Fastify({ bodyLimit: BODY_BYTES_MAX, forceCloseConnections: true })
    app.setErrorHandler(errorHandler(notices$))
    app.setNotFoundHandler(notFound)
    subscriber.add(notices$.subscribe(notice => subscriber.next(notice)))

    void listen(app, context).then(
      address => subscriber.next({ kind: 'state', what: 'listening', facts: { address } }),
      thrown => subscriber.error(listenFault(options, thrown)),
    )
    return () => {
      stop$.next()
      stop$.complete()
      // Whatever it meets while closing, nobody is left to be told.
      app.close().catch(() => undefined)
    }
  })

const listen = async (app: FastifyInstance, context: RouteContext): Promise<string> => {
  await app.register(helmet, {
    // The console loads nothing from elsewhere and runs no inline script.
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'self'"],
        baseUri: ["'none'"],
        connectSrc: ["'self'"],
        fontSrc: ["'self'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
        imgSrc: ["'self'", 'data:'],
        objectSrc: ["'none'"],
        scriptSrc: ["'self'"],
        styleSrc: ["'self'"],
      },
    },
    // Plain on loopback: a browser that remembered HTTPS for it would find nothing there.
    strictTransportSecurity: false,
  })
  app.addHook('onRequest', guard)
  await app.register(websocket, { options: { maxPayload: BODY_BYTES_MAX } })
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Headgate',
        version: context.version,
        description: 'Times are RFC 3339; errors are {error, message}.',
      },
    },
    transform: jsonSchemaTransform,
  })
  await app.register(
    (scope, _, done) => {
      scope.setValidatorCompiler(validatorCompiler)
      scope.setSerializerCompiler(serializerCompiler)
      const typed = scope.withTypeProvider<ZodTypeProvider>()
      for (const routes of ROUTES) routes(typed, context)
      scope.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger())
      done()
    },
    { prefix: '/api' },
  )
  app.get('/metrics', async (_, reply) =>
    reply.type(context.metrics.contentType).send(await context.metrics.metrics()),
  )
  return await app.listen({ host: context.host, port: context.port })
}

const listenFault = ({ host, port }: ApiOptions, thrown: unknown): unknown => {
  const address = `${host}:${port}`
  const code = thrown instanceof Error && 'code' in thrown ? thrown.code : undefined
  if (code === 'EADDRINUSE') return fault('port_in_use', { address, key: 'api.port' }, thrown)
  if (typeof code === 'string' && /^E[A-Z]+$/.test(code))
    return fault('listen_failed', { address, because: reasonOf(thrown), key: 'api.host' }, thrown)
  return thrown
}
