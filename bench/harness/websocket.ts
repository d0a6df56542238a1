// The least of a WebSocket client (RFC 6455): text messages from a server, and the pongs that keep it listening.

import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import type { Duplex } from 'node:stream'

const OPCODE = { continuation: 0, text: 1, close: 8, ping: 9, pong: 10 } as const
const FINAL = 0x80
const MASKED = 0x80
const LENGTH_16 = 126
const LENGTH_64 = 127

export interface Listening {
  close(): void
}

/** `path` on 127.0.0.1. Rejects unless the server upgrades. `closed`: the server ended it. */
export const listenWebSocket = (
  port: number,
  path: string,
  onText: (text: string) => void,
  closed: () => void,
): Promise<Listening> =>
  new Promise((resolve, reject) => {
    const asked = request({
      host: '127.0.0.1',
      port,
      path,
      headers: {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': randomBytes(16).toString('base64'),
      },
    })
    asked.once('error', reject)
    asked.once('response', response => reject(new Error(`${path}: ${response.statusCode}, no WebSocket`)))
    asked.once('upgrade', (_, socket, head) => {
      const take = reader(socket, onText)
      socket.on('data', take)
      socket.on('error', () => undefined)
      socket.once('close', closed)
      take(head)
      resolve({
        close: () => {
          socket.off('close', closed)
          socket.destroy()
        },
      })
    })
    asked.end()
  })

const reader = (socket: Duplex, onText: (text: string) => void): ((chunk: Buffer) => void) => {
  let rest: Buffer = Buffer.alloc(0)
  let parts: Buffer[] = []
  return chunk => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    for (let frame = frameOf(rest); frame !== undefined; frame = frameOf(rest)) {
      const { opcode, isFinal, payload, end } = frame
      rest = rest.subarray(end)
      if (opcode === OPCODE.ping) socket.write(pongOf(payload))
      if (opcode === OPCODE.close) socket.destroy()
      if (opcode !== OPCODE.text && opcode !== OPCODE.continuation) continue
      parts.push(payload)
      if (!isFinal) continue
      const text = Buffer.concat(parts).toString('utf8')
      parts = []
      onText(text)
    }
  }
}

/** A server's frames are not masked. */
const frameOf = (bytes: Buffer) => {
  const [first, second] = bytes
  if (first === undefined || second === undefined) return undefined
  const extended = second === LENGTH_64 ? 8 : second === LENGTH_16 ? 2 : 0
  const begin = 2 + extended
  if (bytes.length < begin) return undefined
  const length =
    extended === 0 ? second : extended === 2 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2))
  const end = begin + length
  if (bytes.length < end) return undefined
  return { opcode: first & 0x0f, isFinal: (first & FINAL) !== 0, payload: bytes.subarray(begin, end), end }
}

/** A client masks what it sends; a control frame holds at most 125 bytes. */
const pongOf = (payload: Buffer): Buffer => {
  const mask = randomBytes(4)
  const masked = Buffer.from(payload.map((byte, index) => byte ^ (mask[index % 4] ?? 0)))
  return Buffer.concat([Buffer.of(FINAL | OPCODE.pong, MASKED | payload.length), mask, masked])
}
