// What a quiet gateway meets: a device that publishes at a steady rate, and a keep-alive.

import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:tls'
import { connectPacket, connectRaw, publishPacket, senmlPayload } from './generator.ts'
import type { SimulatedIdentity } from './identities.ts'
import type { Relay } from './relay.ts'

export interface Steady {
  readonly qos: 0 | 1
  sent(): number
  /** PUBACKs; QoS 0 has none. */
  acknowledged(): number
  /** Sends no more; the connection stays for what is on its way. */
  stop(): void
  close(): void
}

export interface SteadyLoad {
  readonly port: number
  readonly qos: 0 | 1
  readonly perSecond: number
}

const TOPIC = 'bench/0'
const PUBACK_BYTES = 4

/** MQTT 3.1.1, 3.3: without an identifier. The payloads are shorter than 16 KB. */
const publishQos0 = (topic: string, payload: Buffer): Buffer => {
  const length = 2 + topic.length + payload.length
  const remaining = length < 128 ? [length] : [(length % 128) | 128, Math.floor(length / 128)]
  return Buffer.concat([Buffer.of(0x30, ...remaining, 0, topic.length), Buffer.from(topic), payload])
}

/** One message after the other, each at its time: a late one does not delay those that follow. */
export const publishSteadily = async ({ port, qos, perSecond }: SteadyLoad): Promise<Steady> => {
  const socket = await connectRaw(port, 'steady')
  const startedMs = performance.now()
  let sent = 0
  let ackedBytes = 0
  let failed: unknown
  socket.on('data', (chunk: Buffer) => {
    ackedBytes += chunk.length
  })
  socket.on('error', thrown => {
    failed = thrown
  })
  const send = (): void => {
    const due = Math.floor(((performance.now() - startedMs) / 1_000) * perSecond)
    for (; sent < due; sent++) {
      const payload = senmlPayload(0, sent)
      socket.write(
        qos === 0 ? publishQos0(TOPIC, payload) : publishPacket(TOPIC, payload, (sent % 65_535) + 1),
      )
    }
  }
  const timer = setInterval(send, Math.min(50, 500 / perSecond))
  return {
    qos,
    sent: () => {
      if (failed !== undefined) throw failed
      return sent
    },
    acknowledged: () => Math.floor(ackedBytes / PUBACK_BYTES),
    stop: () => clearInterval(timer),
    close: () => {
      clearInterval(timer)
      socket.destroy()
    },
  }
}

const PINGREQ = Buffer.of(0xc0, 0)
const PINGRESP = 0xd0
const ANSWER_MS_MAX = 5_000
/** The tickets of a TLS 1.3 server come behind its handshake. */
const SETTLE_MS = 300

/** Bytes on the wire, both ways, of one PINGREQ and its answer on a gateway's connection. */
export const pingWireBytes = async (
  relay: Relay,
  { gateway, ca, cert, key }: SimulatedIdentity,
): Promise<number> => {
  const socket = connect({ host: '127.0.0.1', port: relay.port, servername: 'localhost', ca, cert, key })
  const signal = AbortSignal.timeout(ANSWER_MS_MAX)
  try {
    await once(socket, 'secureConnect', { signal })
    socket.write(connectPacket(gateway))
    await once(socket, 'data', { signal })
    await sleep(SETTLE_MS)
    const before = relay.up() + relay.down()
    socket.write(PINGREQ)
    const [answer] = (await once(socket, 'data', { signal })) as [Buffer]
    if (answer[0] !== PINGRESP) throw new Error(`a ping was answered by a packet of type ${answer[0]}`)
    return relay.up() + relay.down() - before
  } finally {
    socket.destroy()
  }
}
