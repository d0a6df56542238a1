// A device made of packets: it says exactly what a test wants, and remembers every answer.

import { EventEmitter } from 'node:events'
import { connect, type Socket } from 'node:net'
import { generate, type Packet, parser } from 'mqtt-packet'
import { until } from '../../bench/harness/installation.ts'

export interface Device {
  readonly socket: Socket
  send(...packets: Packet[]): void
  /** The n-th packet of a kind, awaited. */
  packet(cmd: Packet['cmd'], nth?: number): Promise<Packet>
  count(cmd: Packet['cmd']): number
  isClosed(): boolean
  close(): void
}

export interface DeviceOptions {
  readonly clientId: string
  readonly clean?: boolean
  readonly will?: { readonly topic: string; readonly payload: string }
}

/** Connects, says CONNECT, and waits for nothing. */
export const openDevice = (port: number, { clientId, clean = true, will }: DeviceOptions): Device => {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  const received: Packet[] = []
  let closed = false
  const parsing = parser({ protocolVersion: 4 })
  if (parsing instanceof EventEmitter) parsing.on('packet', packet => received.push(packet))
  socket.on('data', chunk => parsing.parse(chunk))
  socket.on('error', () => undefined)
  socket.on('close', () => {
    closed = true
  })
  const of = (cmd: Packet['cmd']) => received.filter(packet => packet.cmd === cmd)
  const send: Device['send'] = (...packets) => {
    socket.write(Buffer.concat(packets.map(packet => generate(packet))))
  }
  send({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clientId,
    clean,
    keepalive: 0,
    ...(will === undefined
      ? {}
      : { will: { topic: will.topic, payload: Buffer.from(will.payload), qos: 1, retain: false } }),
  })
  return {
    socket,
    send,
    packet: (cmd, nth = 1) => until(`${cmd} ${nth}`, async () => of(cmd)[nth - 1], 10_000, 5),
    count: cmd => of(cmd).length,
    isClosed: () => closed,
    close: () => socket.destroy(),
  }
}

export const connected = async (port: number, options: DeviceOptions): Promise<Device> => {
  const device = openDevice(port, options)
  await device.packet('connack')
  return device
}

export const publish = (
  topic: string,
  qos: 0 | 1 | 2,
  messageId: number,
  payload: string | Buffer = 'x',
  dup = false,
  retain = false,
): Packet => ({ cmd: 'publish', topic, payload, qos, dup, retain, ...(qos === 0 ? {} : { messageId }) })
