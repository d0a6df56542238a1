// The little of the NATS text protocol that a device and a consumer need, on a raw socket. Headers are only skipped.
// Source: docs.nats.io, "Client Protocol"; JetStream's API is requests on `$JS.API.>` with JSON in both directions.

import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'

export interface NatsMessage {
  readonly subject: string
  readonly subscription: string
  readonly reply: string | undefined
  /** The payload stands in `bytes` from `at` to `end`; valid until the callback returns. */
  readonly bytes: Buffer
  readonly at: number
  readonly end: number
}

export interface NatsSocket {
  write(bytes: string | Buffer): void
  /** Answers of all requests come through here as JSON. Throws on an error of the API, or after 5 s. */
  request(subject: string, body: object): Promise<Readonly<Record<string, unknown>>>
  close(): void
}

const CRLF = '\r\n'
const ANSWER_WITHIN_MS = 5_000

export const publishLine = (subject: string, reply: string, payload: Buffer): Buffer =>
  Buffer.concat([Buffer.from(`PUB ${subject} ${reply}${payload.length}${CRLF}`), payload, Buffer.from(CRLF)])

/** `onMessage` gets what was not asked by `request`; `onEnd` whatever ended the socket before `close`. */
export const connectNats = async (
  port: number,
  onMessage: (message: NatsMessage) => void,
  onEnd: (cause: Error) => void,
): Promise<NatsSocket> => {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  await once(socket, 'connect')
  // A hub and its leaves share all subjects: an inbox by a fixed name would get the answers of others.
  const answers = `_INBOX.${randomUUID()}`
  const waiting = new Map<string, (text: string) => void>()
  let asked = 0
  let closed = false
  let rest: Buffer = Buffer.alloc(0)
  const end = (cause: Error): void => {
    if (!closed) onEnd(cause)
    closed = true
    socket.destroy()
  }
  const take = (message: NatsMessage): void => {
    const answered = waiting.get(message.subject)
    if (answered === undefined) onMessage(message)
    else answered(message.bytes.toString('utf8', message.at, message.end))
  }
  socket.on('error', end)
  socket.on('close', () => end(new Error('the NATS server closed the connection')))
  socket.on('data', (chunk: Buffer) => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    for (;;) {
      const lineEnd = bytes.indexOf(CRLF, at)
      if (lineEnd < 0) break
      // Where there is no reply the server writes two blanks.
      const words = bytes.toString('latin1', at, lineEnd).split(/ +/)
      const verb = words[0]
      let next = lineEnd + 2
      if (verb === 'MSG' || verb === 'HMSG') {
        const payloadEnd = next + Number(words.at(-1))
        if (payloadEnd + 2 > bytes.length) break
        const headers = verb === 'HMSG' ? Number(words.at(-2)) : 0
        const [, subject = '', subscription = '', reply] = words
        const hasReply = words.length === (verb === 'HMSG' ? 6 : 5)
        take({
          subject,
          subscription,
          reply: hasReply ? reply : undefined,
          bytes,
          at: next + headers,
          end: payloadEnd,
        })
        next = payloadEnd + 2
      } else if (verb === 'PING') socket.write(`PONG${CRLF}`)
      else if (verb === '-ERR') return end(new Error(bytes.toString('latin1', at, lineEnd)))
      at = next
    }
    rest = bytes.subarray(at)
  })
  socket.write(`CONNECT {"verbose":false,"pedantic":false,"headers":true,"lang":"raw","version":"0"}${CRLF}`)
  socket.write(`SUB ${answers}.* answers${CRLF}`)
  return {
    write: bytes => void socket.write(bytes),
    request: (subject, body) =>
      new Promise((resolve, reject) => {
        const inbox = `${answers}.${asked++}`
        const late = setTimeout(
          () => settle(`{"error":"no answer in ${ANSWER_WITHIN_MS} ms"}`),
          ANSWER_WITHIN_MS,
        )
        const settle = (text: string): void => {
          clearTimeout(late)
          waiting.delete(inbox)
          const answer =
            text === '' ? { error: 'nobody answers' } : (JSON.parse(text) as Record<string, unknown>)
          if (answer['error'] === undefined) resolve(answer)
          else reject(new Error(`${subject}: ${JSON.stringify(answer['error'])}`))
        }
        waiting.set(inbox, settle)
        socket.write(publishLine(subject, `${inbox} `, Buffer.from(JSON.stringify(body))))
      }),
    close: () => {
      closed = true
      socket.destroy()
    },
  }
}
