// The process behind `startLiveProbe`: one device, one north-side subscriber, one WebSocket, one clock.
//
// The number of a record is its value, so that whoever hears it knows when it was sent. A hundred names take turns:
// a view tells its newest value, and a record that a newer one of its name overtakes would never be told of.

import { connect, type Socket } from 'node:net'
import { generate, type Packet, parser } from 'mqtt-packet'
import type { LiveProbeOptions, LiveRecord, ProbeSaid } from './live-probe.ts'
import { listenWebSocket } from './websocket.ts'

const NAMES = 100
const STRAGGLERS_MS_MAX = 5_000
const LOOK_MS = 20
/** Packet ids go round; far more than are ever unacknowledged. */
const IDS = 65_535

type Kept = { -readonly [Key in keyof LiveRecord]: LiveRecord[Key] }

const options = JSON.parse(process.argv[2] ?? '{}') as LiveProbeOptions
const { localPort, northPort, channel, perSecond, apiPort, gateway, name = 'live-probe' } = options
const topic = `${name}/device`

const say = (said: ProbeSaid): void => void process.send?.(said)
const fail = (because: string): never => {
  throw new Error(because)
}

const records: Kept[] = []
const sentAt: number[] = []

/** Milliseconds since record `sequence` was sent; undefined for what is not ours. */
const age = (sequence: unknown): { readonly record: Kept; readonly ms: number } | undefined => {
  const record = typeof sequence === 'number' ? records[sequence] : undefined
  const at = typeof sequence === 'number' ? sentAt[sequence] : undefined
  return record === undefined || at === undefined ? undefined : { record, ms: performance.now() - at }
}

const openMqtt = (port: number, clientId: string, onPacket: (packet: Packet) => void): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true })
    const packets = parser({ protocolVersion: 4 })
    socket.on('error', reject)
    socket.on('close', () => fail(`${clientId}: the broker closed the connection`))
    socket.on('data', (chunk: Buffer) => packets.parse(chunk))
    packets.on('packet', packet => {
      if (packet.cmd !== 'connack') return onPacket(packet)
      if (packet.returnCode === 0) resolve(socket)
      else reject(new Error(`${clientId}: CONNACK ${packet.returnCode}`))
    })
    socket.write(
      generate({
        cmd: 'connect',
        protocolId: 'MQTT',
        protocolVersion: 4,
        clientId,
        clean: true,
        keepalive: 0,
      }),
    )
  })

interface Senml {
  readonly v: number
}

const heardNorth = (payload: Buffer): void => {
  const [first] = JSON.parse(payload.toString('utf8')) as [Senml]
  const found = age(first.v)
  if (found !== undefined) found.record.northMs ??= found.ms
}

interface LiveMessage {
  readonly type: string
  readonly changes?: readonly { readonly gateway: string; readonly name: string; readonly value?: unknown }[]
}

const heardWebSocket = (text: string): void => {
  const { type, changes = [] } = JSON.parse(text) as LiveMessage
  if (type !== 'latest') return
  for (const change of changes) {
    if (change.gateway !== gateway || !change.name.startsWith(`${name}:`)) continue
    const found = age(change.value)
    if (found !== undefined) found.record.webSocketMs ??= found.ms
  }
}

let subscribed: (() => void) | undefined
const north = await openMqtt(northPort, `${name}-north`, packet => {
  if (packet.cmd === 'suback') subscribed?.()
  if (packet.cmd !== 'publish') return
  heardNorth(packet.payload as Buffer)
  if (packet.qos === 1) north.write(generate({ cmd: 'puback', messageId: packet.messageId ?? 0 }))
})
await new Promise<void>(resolve => {
  subscribed = resolve
  const filter = `channels/${channel}/messages/${topic}`
  north.write(generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: filter, qos: 1 }] }))
})
if (apiPort !== undefined)
  await listenWebSocket(apiPort, '/api/live', heardWebSocket, () => fail('the API closed its WebSocket'))

/** By packet id: the sequence that it carries. */
const unacknowledged = new Map<number, number>()
const device = await openMqtt(localPort, `${name}-device`, packet => {
  if (packet.cmd !== 'puback') return
  const id = packet.messageId ?? 0
  const found = age(unacknowledged.get(id))
  unacknowledged.delete(id)
  if (found !== undefined) found.record.pubackMs ??= found.ms
})
const publish = (): void => {
  const sequence = records.length
  const messageId = (sequence % IDS) + 1
  unacknowledged.set(messageId, sequence)
  const payload = JSON.stringify([{ bn: `${name}:`, n: String(sequence % NAMES), u: '1', v: sequence }])
  records.push({ sentAtMs: Date.now() })
  sentAt.push(performance.now())
  device.write(generate({ cmd: 'publish', topic, payload, qos: 1, messageId, dup: false, retain: false }))
}

// One that nobody measures: everything is in place once it is here.
publish()
const isThrough = ({ northMs, webSocketMs }: Kept): boolean =>
  northMs !== undefined && (apiPort === undefined || webSocketMs !== undefined)
const all = async (withinMs: number): Promise<void> => {
  const endMs = performance.now() + withinMs
  while (!records.every(isThrough) && performance.now() < endMs)
    await new Promise(resolve => setTimeout(resolve, LOOK_MS))
}
await all(2 * STRAGGLERS_MS_MAX)
if (!records.every(isThrough)) fail(`the first record did not come through: ${JSON.stringify(records)}`)
say({ kind: 'ready' })

// By the clock, not by the timer: one that comes late sends all that is due.
const startedMs = performance.now()
const sending = setInterval(
  () => {
    const due = 1 + Math.floor(((performance.now() - startedMs) / 1_000) * perSecond)
    while (records.length < 1 + due) publish()
  },
  Math.max(1, 500 / perSecond),
)

process.on('message', () => {
  clearInterval(sending)
  void all(STRAGGLERS_MS_MAX).then(() => say({ kind: 'result', records: records.slice(1) }))
})
