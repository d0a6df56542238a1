// A process of its own with nothing but a TLS 1.3 server: it asks for a certificate, says one byte to whoever has a good
// one, and ends the connection. Started by handshakes.ts, and gone with it.

import { createServer, type TlsOptions } from 'node:tls'

const serve = (identity: TlsOptions): void => {
  const server = createServer(
    { ...identity, minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: true },
    // With TLS 1.3 a client is done before the server has looked at its certificate: the byte says that it has.
    socket => socket.on('error', () => undefined).end('!'),
  )
  server.on('tlsClientError', () => undefined)
  server.listen({ host: '127.0.0.1', port: 0, backlog: 4_096 }, () => process.send?.(server.address()))
}

process.once('message', serve)
process.once('disconnect', () => process.exit(0))
