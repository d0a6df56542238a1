// An MQTT client of bytes, to do what a library would not: answer late, repeat, stay silent.

import { EventEmitter } from 'node:events'
import { connect, type Socket } from 'node:net'
import { generate, type Packet, parser } from 'mqtt-packet'
import { until } from './harness.ts'

export interface Raw {
  readonly socket: Socket
  readonly received: Packet[]
  send(...packets: Packet[]): void
  /** The n-th packet of that kind, awaited. */
  packet(cmd: Packet['cmd'], nth?: number): Promise<Packet>
  count(cmd: Packet['cmd']): number
  close(): void
}

export const rawClient = async (
  port: number,
  { clientId = 'raw', clean = true, keepalive = 0 } = {},
): Promise<Raw> => {
  const socket = connect({ port, host: '127.0.0.1' })
  const received: Packet[] = []
  const parsing = parser({ protocolVersion: 4 })
  if (parsing instanceof EventEmitter) parsing.on('packet', packet => received.push(packet))
  socket.on('data', chunk => parsing.parse(chunk))
  socket.on('error', () => undefined)
  const of = (cmd: Packet['cmd']) => received.filter(packet => packet.cmd === cmd)
  const raw: Raw = {
    socket,
    received,
    send: (...packets) => socket.write(Buffer.concat(packets.map(packet => generate(packet)))),
    packet: async (cmd, nth = 1) => {
      await until(() => of(cmd).length >= nth, `${cmd} ${nth} in ${JSON.stringify(received)}`)
      const packet = of(cmd)[nth - 1]
      if (packet === undefined) throw new Error(`no ${cmd}`)
      return packet
    },
    count: cmd => of(cmd).length,
    close: () => socket.destroy(),
  }
  raw.send({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clientId, clean, keepalive })
  return raw
}

export const publishPacket = (
  topic: string,
  qos: 0 | 1 | 2,
  messageId: number,
  payload: string | Buffer = 'x',
  dup = false,
): Packet => ({
  cmd: 'publish',
  topic,
  payload,
  qos,
  messageId,
  dup,
  retain: false,
})
