// The limit that `connect` is measured against: a tls.Server with the cloud's own certificate and ticket keys that
// answers CONNECT and SUBSCRIBE and does nothing else. No admission, no registry, no broker.
//
// A program: the folder of keys is its argument; it prints its port.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createServer } from 'node:tls'

const CONNECT = 0x10
const SUBSCRIBE = 0x82
const FILTERS = 3

const folder = process.argv[2] ?? ''
const read = (name: string): Buffer => readFileSync(join(folder, name))

const server = createServer({
  cert: read('server.crt'),
  key: read('server.key'),
  ca: read('ca.crt'),
  requestCert: true,
  rejectUnauthorized: true,
  minVersion: 'TLSv1.3',
  ticketKeys: read('tickets.key'),
  sessionIdContext: 'headgate-gateways',
  sessionTimeout: 86_400,
})
server.on('secureConnection', socket => {
  socket.setNoDelay(true)
  socket.on('error', () => undefined)
  socket.on('data', (packet: Buffer) => {
    // A client waits for each answer, so a chunk is one packet.
    if (packet[0] === CONNECT) socket.write(Buffer.of(0x20, 2, 0, 0))
    if (packet[0] === SUBSCRIBE) socket.write(Buffer.of(0x90, 2 + FILTERS, 0, 1, ...Array(FILTERS).fill(1)))
  })
})
server.on('tlsClientError', () => undefined)
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  const bound = server.address()
  process.stdout.write(`port ${typeof bound === 'object' ? bound?.port : ''}\n`)
})
