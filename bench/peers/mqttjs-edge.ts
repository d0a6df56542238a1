// An edge made of mqtt.js and its persistent store: a process of its own, which publishes what it is told to.
//
// Over a socket on loopback: {"records", "producer"} asks for that many messages; the answer comes when all of them are
// in the store, with how long that took. What mqtt.js does with them then is its own affair.

import { mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { connect, type IStore } from 'mqtt'
import { senmlPayload } from '../harness/generator.ts'

interface Stores {
  readonly incoming: IStore
  readonly outgoing: IStore
}
export interface Asked {
  readonly records: number
  readonly producer: number
}
export interface Answered {
  readonly elapsedMs: number
  readonly latenciesMs: readonly number[]
}

/** Not yet in the store: as many as all devices of the other benches have unacknowledged. */
const WINDOW = 4_000

const [port = '', folder = ''] = process.argv.slice(2)
mkdirSync(folder, { recursive: true })
// It has no types.
const openStores = createRequire(import.meta.url)('mqtt-level-store') as (path: string) => Stores
const { incoming, outgoing } = openStores(join(folder, 'level'))

const client = connect({
  host: '127.0.0.1',
  port: Number(port),
  clientId: 'bench-edge',
  clean: false,
  incomingStore: incoming,
  outgoingStore: outgoing,
})
client.on('error', () => undefined)
client.once('connect', () => process.stdout.write('connected\n'))

const publish = ({ records, producer }: Asked): Promise<Answered> =>
  new Promise((resolve, reject) => {
    const startedMs = performance.now()
    const latenciesMs: number[] = []
    let sent = 0
    let stored = 0
    const more = (): void => {
      while (sent < records && sent - stored < WINDOW) one(sent++)
    }
    const one = (sequence: number): void => {
      const sentMs = performance.now()
      const cbStorePut = (): void => {
        stored += 1
        if (sequence % 100 === 0) latenciesMs.push(performance.now() - sentMs)
        if (stored === records) resolve({ elapsedMs: performance.now() - startedMs, latenciesMs })
        else more()
      }
      client.publish(
        `bench/${producer}`,
        senmlPayload(producer, sequence),
        { qos: 1, cbStorePut },
        failed => failed && reject(failed),
      )
    }
    more()
  })

const server = createServer(socket => {
  socket.on('error', () => undefined)
  createInterface(socket).on('line', line => {
    publish(JSON.parse(line) as Asked).then(
      answer => socket.write(`${JSON.stringify(answer)}\n`),
      (thrown: unknown) => socket.write(`${JSON.stringify({ failed: String(thrown) })}\n`),
    )
  })
})
server.listen(0, '127.0.0.1', () => {
  const bound = server.address()
  process.stdout.write(`asked on port ${bound === null || typeof bound === 'string' ? 0 : bound.port}\n`)
})
