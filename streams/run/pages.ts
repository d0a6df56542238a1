// A few read-only pages over HTTP: metrics on loopback, status on a socket file that only its owner may open.

import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { Observable, type Observable as Rx } from 'rxjs'
import { fault, reasonOf } from './fault.ts'

export interface Page {
  readonly type: string
  readonly body: () => Promise<string>
}

export type PagesListen =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number; readonly configKey: string }
  | { readonly kind: 'socket'; readonly file: string }

/** Listens while subscribed; emits the port once. Errors: port_in_use, listen_failed. */
export const servePages = (listen: PagesListen, pages: Readonly<Record<string, Page>>): Rx<number> =>
  new Observable(subscriber => {
    const server = createServer((request, response) => {
      const page = request.method === 'GET' ? pages[request.url ?? ''] : undefined
      if (page === undefined) {
        response
          .writeHead(404, { 'content-type': 'text/plain' })
          .end(`there is ${Object.keys(pages).join(', ')}\n`)
        return
      }
      page.body().then(
        body => response.writeHead(200, { 'content-type': page.type }).end(body),
        (thrown: unknown) =>
          response.writeHead(500, { 'content-type': 'text/plain' }).end(`${reasonOf(thrown)}\n`),
      )
    })
    server.on('error', thrown => subscriber.error(listenFault(listen, thrown)))
    server.on('listening', () => {
      const bound = server.address()
      if (listen.kind === 'socket') chmodSync(listen.file, 0o600)
      subscriber.next(bound === null || typeof bound === 'string' ? 0 : bound.port)
    })
    start(server, listen)
    return () => {
      server.close()
      server.closeAllConnections()
    }
  })

const start = (server: Server, listen: PagesListen): void => {
  if (listen.kind === 'tcp') {
    server.listen(listen.port, listen.host)
    return
  }
  // Left behind by a kill; the folder's lock says that nobody listens on it.
  rmSync(listen.file, { force: true })
  server.listen(listen.file)
}

const listenFault = (listen: PagesListen, thrown: Error): Error => {
  const address = listen.kind === 'tcp' ? `${listen.host}:${listen.port}` : listen.file
  const key = listen.kind === 'tcp' ? listen.configKey : 'data'
  const inUse = 'code' in thrown && thrown.code === 'EADDRINUSE'
  return fault(inUse ? 'port_in_use' : 'listen_failed', { address, key, because: thrown.message }, thrown)
}
