// A gateway played by a test: the identity that was enrolled, mqtt.js over mutual TLS, and whatever the test sends.

import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect, type IClientOptions, type MqttClient } from 'mqtt'
import { type Gateway, until } from '../../bench/harness/installation.ts'
import { sealFrame } from '../../schemas/frame.ts'
import {
  encodeHello,
  type Hello,
  type HelloStream,
  type Mark,
  markSchema,
  PROTOCOL_VERSION,
} from '../../schemas/hello.ts'
import {
  bootIdOf,
  CHAIN_ZERO,
  type Chain,
  type Epoch,
  epochOf,
  gatewayId,
  type Offset,
  offset,
  type StreamName,
  streamName,
} from '../../schemas/ids.ts'
import { down, up } from '../../schemas/topics.ts'

export interface Pems {
  readonly ca: Buffer | string
  readonly cert: Buffer | string
  readonly key: Buffer | string
}

/** The cloud passes over a hello that follows the last one on its connection sooner than 500 ms. */
const HELLO_MS_MIN = 600

export const pemsOf = ({ folder }: Gateway): Pems => {
  const read = (name: string): Buffer => readFileSync(join(folder, 'identity', name))
  const names = JSON.parse(read('identity.json').toString()) as {
    ca: string
    certificate: string
    key: string
  }
  return { ca: read(names.ca), cert: read(names.certificate), key: read(names.key) }
}

export interface Attempt {
  readonly client: MqttClient
  /** Resolves with 0 or the CONNACK's refusal code; with the error's text when there was no CONNACK. */
  readonly answer: Promise<number | string>
  isClosed(): boolean
}

/** One attempt; never again by itself. */
export const attempt = (
  port: number,
  clientId: string,
  pems: Pems,
  options: Partial<IClientOptions> = {},
): Attempt => {
  let closed = false
  const client = connect({
    host: 'localhost',
    port,
    protocol: 'mqtts',
    clientId,
    ...pems,
    reconnectPeriod: 0,
    protocolVersion: 4,
    ...options,
  })
  client.on('close', () => {
    closed = true
  })
  const answer = new Promise<number | string>(resolve => {
    client.once('connect', () => resolve(0))
    client.on('error', thrown =>
      resolve('code' in thrown && typeof thrown.code === 'number' ? thrown.code : thrown.message),
    )
    client.once('close', () => resolve('closed'))
  })
  return { client, answer, isClosed: () => closed }
}

export interface PlayedStream {
  readonly name: StreamName
  readonly epoch: Epoch
}

export interface Played {
  readonly client: MqttClient
  readonly stream: PlayedStream
  readonly marks: readonly Mark[]
  /** Says hello for one stream, from its origin; resolves with the answer. */
  hello(state?: Partial<HelloStream>): Promise<Mark>
  send(payload: Buffer): void
  /** The newest mark of the stream. */
  marked(): number
  close(): Promise<void>
}

/** Connected and subscribed as an edge is. */
export const play = async (port: number, gateway: Gateway): Promise<Played> => {
  const { client, answer } = attempt(port, gateway.id, pemsOf(gateway))
  const code = await answer
  if (code !== 0) throw new Error(`CONNACK ${code}`)
  const id = gatewayId(gateway.id)
  const marks: Mark[] = []
  client.on('message', (topic, payload) => {
    if (topic === down.mark(id)) marks.push(markSchema.parse(JSON.parse(payload.toString())))
  })
  await client.subscribeAsync([down.mark(id), down.who(id), down.whoAll()], { qos: 1 })
  let saidAtMs = 0
  const stream: PlayedStream = { name: streamName('data'), epoch: epochOf(randomBytes(8)) }
  return {
    client,
    stream,
    marks,
    hello: async state => {
      await sleep(Math.max(0, saidAtMs + HELLO_MS_MIN - performance.now()))
      saidAtMs = performance.now()
      const connection = randomBytes(8).toString('hex')
      const origin = { offset: offset(0), chain: CHAIN_ZERO }
      const own: HelloStream = {
        ...stream,
        origin,
        tail: offset(1),
        head: offset(0),
        mark: origin,
        waitingBytes: 0,
        ...state,
      }
      const hello: Hello = {
        protocol: PROTOCOL_VERSION,
        version: 'played',
        connection,
        bootId: bootIdOf(randomBytes(8)),
        clock: { wallMs: Date.now(), quality: 'synchronised' },
        streams: [own],
      }
      await client.publishAsync(up.hello(id), encodeHello(hello), { qos: 1 })
      return await until('the answer to the hello', async () =>
        marks.find(mark => mark.answers === connection),
      )
    },
    send: payload => {
      client.publish(up.export(id, stream.name), payload, { qos: 1 }, () => undefined)
    },
    marked: () => marks.at(-1)?.streams.find(({ name }) => name === stream.name)?.offset ?? 0,
    close: () => client.endAsync(true),
  }
}

/** A frame of one record at `first`, behind `previous`. */
export const frameAt = (
  { name, epoch }: PlayedStream,
  first: number,
  payload: string,
  previous: Chain = CHAIN_ZERO,
): Buffer =>
  sealFrame(
    [{ topic: 'played', payload: Buffer.from(payload), qos: 1, retain: false, receivedMonoMs: 1 }],
    { stream: name, epoch, first: first as Offset, previous },
    { wallMs: Date.now(), monoMs: 1, bootId: bootIdOf(Buffer.alloc(8)), quality: 'synchronised' },
    'plain',
  )
