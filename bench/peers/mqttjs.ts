// mqtt.js with mqtt-level-store. It is a library, so its edge is a program that publishes to itself (mqttjs-edge.ts); its
// cloud is Mosquitto, with the consumer that Mosquitto has.

import { once } from 'node:events'
import { createRequire } from 'node:module'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Produced } from '../harness/generator.ts'
import { freePort } from '../harness/ports.ts'
import { start } from '../harness/process.ts'
import { openRelay } from '../harness/relay.ts'
import { openConsumer } from './consumer.ts'
import { mosquitto, startBroker } from './mosquitto.ts'
import type { Answered, Asked } from './mqttjs-edge.ts'
import type { Batch, Peer } from './peer.ts'
import { openRig } from './rig.ts'

/** Each has an id of 16 bits until it is delivered, and one round trip a message takes minutes for more. */
const RECORDS_MAX = 20_000
const STORED_WITHIN_MS = 120_000

const hasStore = (): boolean => {
  try {
    createRequire(import.meta.url).resolve('mqtt-level-store')
    return true
  } catch {
    return false
  }
}

export const mqttjs: Peer = {
  name: 'mqttjs',
  durability:
    'not synced: a message counts as taken when LevelDB has it, in a file without fdatasync (its default)',
  configured: `clean false, mqtt-level-store, defaults else; at most ${RECORDS_MAX} records, from within the process; cloud Mosquitto; no TLS`,
  recordsMax: RECORDS_MAX,
  missing: () => (hasStore() ? mosquitto.missing() : 'npm install (mqtt-level-store is a devDependency)'),
  open: () =>
    openRig('mqttjs', async (folder, tally) => {
      const cloudPort = await freePort()
      const cloud = await startBroker(folder, 'cloud', cloudPort)
      const relay = await openRelay(cloudPort)
      const consumer = await openConsumer(cloudPort, 'bench/#', tally)
      const args = [...program(), String(relay.port), join(folder, 'edge')]
      const edge = start({ command: process.execPath, args })
      await edge.saying(/asked on port \d+/)
      // What is stored while it connects, it may keep until it connects again.
      await edge.saying(/^connected$/m)
      const askedPort = Number(/asked on port (\d+)/.exec(edge.said())?.[1])
      return { edge, cloud, relay, consumer, produce: batch => produceThere(askedPort, batch) }
    }),
}

/** Beside this file, whether that runs as TypeScript or built. */
const program = (): string[] =>
  import.meta.filename.endsWith('.ts')
    ? ['--import', 'tsx', join(import.meta.dirname, 'mqttjs-edge.ts')]
    : [join(import.meta.dirname, 'mqttjs-edge.js')]

const produceThere = async (port: number, { records, firstProducer }: Batch): Promise<Produced> => {
  const socket = connect({ host: '127.0.0.1', port })
  await once(socket, 'connect')
  try {
    const asked: Asked = { records, producer: firstProducer }
    socket.write(`${JSON.stringify(asked)}\n`)
    const lines = createInterface(socket)
    const [line] = (await once(lines, 'line', { signal: AbortSignal.timeout(STORED_WITHIN_MS) })) as [string]
    const answer = JSON.parse(line) as Partial<Answered> & { readonly failed?: string }
    const { elapsedMs, latenciesMs } = answer
    if (elapsedMs === undefined || latenciesMs === undefined)
      throw new Error(`mqtt.js: ${answer.failed ?? line}`)
    return { acknowledged: [records], elapsedMs, latenciesMs }
  } finally {
    socket.destroy()
  }
}
