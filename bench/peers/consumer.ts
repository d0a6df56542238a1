// The consumer behind a cloud's MQTT broker: a raw socket with QoS 1 that counts, and acknowledges a chunk at a time.

import { connectRaw } from '../harness/generator.ts'
import type { Tally } from './tally.ts'

export interface Consumer {
  close(): void
}

const PUBLISH = 3
const PUBACK = 0x40
const SUBACK = 9
/** Within the keep-alive of 60 s that `connectRaw` asks for. */
const PING_EVERY_MS = 20_000
const SUBACK_WITHIN_MS = 5_000

export const openConsumer = async (port: number, filter: string, tally: Tally): Promise<Consumer> => {
  const socket = await connectRaw(port, 'bench-consumer')
  const ping = setInterval(() => socket.write(Buffer.of(0xc0, 0)), PING_EVERY_MS)
  let closed = false
  await new Promise<void>((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('the consumer got no SUBACK')), SUBACK_WITHIN_MS)
    let rest: Buffer = Buffer.alloc(0)
    socket.on('error', reject)
    socket.on('close', () => {
      clearInterval(ping)
      if (!closed) tally.fail(new Error('the broker closed the connection of the consumer'))
    })
    socket.on('data', (chunk: Buffer) => {
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
      const acknowledged: number[] = []
      let at = 0
      for (;;) {
        const next = packetAt(bytes, at)
        if (next === undefined) break
        const { kind, body, end } = next
        if (kind === SUBACK) {
          clearTimeout(late)
          resolve()
        } else if (kind === PUBLISH) {
          const idAt = body + 2 + bytes.readUInt16BE(body)
          tally.take(bytes, idAt + 2)
          acknowledged.push(PUBACK, 2, bytes[idAt] ?? 0, bytes[idAt + 1] ?? 0)
        }
        at = end
      }
      rest = bytes.subarray(at)
      if (acknowledged.length > 0) socket.write(Buffer.from(acknowledged))
    })
    socket.write(subscribePacket(filter))
  })
  return {
    close: () => {
      closed = true
      socket.destroy()
    },
  }
}

/** Where the packet at `at` has its body and ends; undefined while it is not whole. */
const packetAt = (bytes: Buffer, at: number) => {
  let length = 0
  let body = at + 1
  for (let shift = 0; ; shift += 7, body++) {
    const byte = bytes[body]
    if (byte === undefined) return undefined
    length |= (byte & 127) << shift
    if (byte < 128) break
  }
  body += 1
  const end = body + length
  return end > bytes.length ? undefined : { kind: (bytes[at] ?? 0) >> 4, body, end }
}

const subscribePacket = (filter: string): Buffer =>
  Buffer.concat([
    Buffer.of(0x82, filter.length + 5, 0, 1, 0, filter.length),
    Buffer.from(filter),
    Buffer.of(1),
  ])
