// Devices as raw sockets: prepared PUBLISH packets with QoS 1, a window of unacknowledged ones, PUBACKs counted by id.
// mqtt.js as a generator would be what is measured: it caps at 70–85,000 messages a second.

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

export interface Load {
  readonly port: number
  readonly connections: number
  readonly records: number
  /** Unacknowledged messages of one connection. */
  readonly window?: number
  readonly clientPrefix?: string
  /** Payload of the n-th message of a connection. */
  readonly payload?: (producer: number, sequence: number) => Buffer
  readonly topic?: (producer: number) => string
  /** Called with each 10,000 that were acknowledged. */
  readonly onProgress?: (acknowledged: number) => void
}

export interface Produced {
  /** How many of each producer were acknowledged, in order from 0. */
  readonly acknowledged: readonly number[]
  readonly elapsedMs: number
  /** Milliseconds from sending to PUBACK, of one message in a hundred. */
  readonly latenciesMs: readonly number[]
}

/** 112 bytes of SenML: a base name, a name, a unit, a value that wanders, and the message's number as its time. */
export const senmlPayload = (producer: number, sequence: number): Buffer => {
  const value = (
    20 +
    5 * Math.sin(sequence / 500) +
    (Math.imul(sequence + 1, 2_654_435_761) >>> 16) / 65_536
  ).toFixed(3)
  const text = `[{"bn":"urn:dev:mac:0024befffe80${String(producer).padStart(4, '0')}:","n":"temperature","u":"Cel","t":${SEQUENCE_BASE_S + sequence},"v":${value}}]`
  return Buffer.from(text.length < 112 ? `${text.slice(0, -2)}${' '.repeat(112 - text.length)}}]` : text)
}

const SEQUENCE_BASE_S = 1_700_000_000
/** The number that `senmlPayload` put in. */
export const sequenceOf = (payload: unknown): number => (payload as [{ t: number }])[0].t - SEQUENCE_BASE_S

const remainingLength = (length: number): Buffer => {
  const bytes: number[] = []
  for (let left = length; ; ) {
    const byte = left % 128
    left = Math.floor(left / 128)
    bytes.push(left > 0 ? byte | 128 : byte)
    if (left === 0) return Buffer.from(bytes)
  }
}
const field = (text: string | Buffer): Buffer => {
  const bytes = Buffer.from(text as string)
  const length = Buffer.alloc(2)
  length.writeUInt16BE(bytes.length)
  return Buffer.concat([length, bytes])
}
const packet = (first: number, body: Buffer): Buffer =>
  Buffer.concat([Buffer.of(first), remainingLength(body.length), body])

export const connectPacket = (clientId: string): Buffer =>
  packet(0x10, Buffer.concat([field('MQTT'), Buffer.of(4, 2), Buffer.of(0, 60), field(clientId)]))

export const publishPacket = (
  topic: string,
  payload: Buffer,
  id: number,
  qos: 1 | 2 = 1,
  dup = false,
): Buffer => {
  const identifier = Buffer.alloc(2)
  identifier.writeUInt16BE(id)
  return packet(0x30 | (qos << 1) | (dup ? 8 : 0), Buffer.concat([field(topic), identifier, payload]))
}

export const connectRaw = async (port: number, clientId: string): Promise<Socket> => {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  await once(socket, 'connect')
  socket.write(connectPacket(clientId))
  const [connack] = (await once(socket, 'data')) as [Buffer]
  if (connack[3] !== 0) throw new Error(`CONNACK ${connack[3]}`)
  return socket
}

export const produce = async (load: Load): Promise<Produced> => {
  const { connections, records } = load
  const startedMs = performance.now()
  const latenciesMs: number[] = []
  let total = 0
  const acknowledged = await Promise.all(
    Array.from({ length: connections }, (_, producer) => {
      const count = Math.floor(records / connections) + (producer < records % connections ? 1 : 0)
      return produceOne(load, producer, count, latenciesMs, acked => {
        const before = Math.floor(total / 10_000)
        total += acked
        if (Math.floor(total / 10_000) > before) load.onProgress?.(total)
      })
    }),
  )
  return { acknowledged, elapsedMs: performance.now() - startedMs, latenciesMs }
}

const produceOne = async (
  load: Load,
  producer: number,
  count: number,
  latenciesMs: number[],
  onAcked: (count: number) => void,
): Promise<number> => {
  const {
    port,
    window = 500,
    clientPrefix = 'bench',
    payload = senmlPayload,
    topic = each => `bench/${each}`,
  } = load
  if (count === 0) return 0
  const socket = await connectRaw(port, `${clientPrefix}-${producer}`)
  const sentAtMs = new Map<number, number>()
  let sent = 0
  let acked = 0
  let rest: Buffer = Buffer.alloc(0)
  const send = (): void => {
    const packets: Buffer[] = []
    while (sent < count && sent - acked < window) {
      const id = (sent % 65_535) + 1
      if (sent % 100 === 0) sentAtMs.set(id, performance.now())
      packets.push(publishPacket(topic(producer), payload(producer, sent), id))
      sent += 1
    }
    if (packets.length > 0) socket.write(Buffer.concat(packets))
  }
  return await new Promise((resolve, reject) => {
    socket.on('error', reject)
    socket.on('close', () =>
      acked === count
        ? resolve(acked)
        : reject(new Error(`producer ${producer}: closed after ${acked} of ${count}`)),
    )
    socket.on('data', (chunk: Buffer) => {
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
      let at = 0
      const before = acked
      for (; at + 4 <= bytes.length; at += 4) {
        if (bytes[at] !== 0x40) return reject(new Error(`producer ${producer}: packet ${bytes[at]}`))
        const id = bytes.readUInt16BE(at + 2)
        if (id !== (acked % 65_535) + 1)
          return reject(new Error(`producer ${producer}: PUBACK ${id} out of turn`))
        const sentMs = sentAtMs.get(id)
        if (sentMs !== undefined) {
          latenciesMs.push(performance.now() - sentMs)
          sentAtMs.delete(id)
        }
        acked += 1
      }
      rest = bytes.subarray(at)
      onAcked(acked - before)
      if (acked === count) socket.end()
      else send()
    })
    send()
  })
}
