// NATS at both ends: a leaf whose JetStream keeps what devices publish, and a hub that mirrors it through the leaf's
// domain. The consumer is pushed to by the hub, from the mirror: what it counts is stored in the cloud.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { until } from '../harness/installation.ts'
import { freePorts } from '../harness/ports.ts'
import { type Started, start } from '../harness/process.ts'
import { openRelay } from '../harness/relay.ts'
import { produceNats } from './nats-devices.ts'
import { connectNats } from './nats-wire.ts'
import type { Peer } from './peer.ts'
import { programPath } from './program.ts'
import { openRig } from './rig.ts'
import type { Tally } from './tally.ts'

const INBOX = 'consumer.bench'

export const nats: Peer = {
  name: 'nats',
  durability:
    'not synced before the acknowledgement: written to a file, synced every 2 minutes (its default)',
  configured:
    'streams in files, hub mirrors by the domain of the leaf; push consumer with flow control, without acknowledgements; no TLS',
  missing: () => (programPath('nats-server') === undefined ? 'apt-get install nats-server' : undefined),
  open: () =>
    openRig('nats', async (folder, tally) => {
      const [leafPort = 0, hubPort = 0, leafnodesPort = 0] = await freePorts(3)
      const relay = await openRelay(leafnodesPort)
      // A hub tells its leaves where it is: by its own address, the leaf would go around the cut relay.
      const cloud = await startServer(folder, 'hub', hubPort, [
        `host: 127.0.0.1, port: ${leafnodesPort}, advertise: "127.0.0.1:${relay.port}"`,
      ])
      const edge = await startServer(folder, 'leaf', leafPort, [
        `remotes: [{ url: "nats-leaf://127.0.0.1:${relay.port}" }]`,
      ])
      await edge.saying(/Leafnode connection created/)
      await createStream(leafPort)
      const consumer = await consume(hubPort, tally)
      return { edge, cloud, relay, consumer, produce: batch => produceNats(leafPort, batch) }
    }),
}

const startServer = async (
  folder: string,
  name: string,
  port: number,
  leafnodes: readonly string[],
): Promise<Started> => {
  const file = join(folder, `${name}.conf`)
  const lines = [
    `server_name: ${name}`,
    'host: 127.0.0.1',
    `port: ${port}`,
    `jetstream: { store_dir: "${join(folder, name)}", domain: ${name} }`,
    `leafnodes: { ${leafnodes.join(', ')} }`,
  ]
  writeFileSync(file, `${lines.join('\n')}\n`)
  const server = start({ command: programPath('nats-server') ?? 'nats-server', args: ['-c', file] })
  await server.saying(/Server is ready/)
  return server
}

const ignore = (): void => undefined

const createStream = async (leafPort: number): Promise<void> => {
  const leaf = await connectNats(leafPort, ignore, ignore)
  await leaf.request('$JS.API.STREAM.CREATE.devices', {
    name: 'devices',
    subjects: ['bench.>'],
    storage: 'file',
    retention: 'limits',
    discard: 'old',
    num_replicas: 1,
  })
  leaf.close()
}

const consume = async (hubPort: number, tally: Tally) => {
  const hub = await connectNats(
    hubPort,
    ({ subject, reply, bytes, at, end }) => {
      if (subject.startsWith('bench.')) tally.take(bytes, at)
      // A status without payload: whoever asks in it how far we are gets an empty answer.
      else if (end === at && reply !== undefined) hub.write(`PUB ${reply} 0\r\n\r\n`)
    },
    tally.fail,
  )
  hub.write(`SUB ${INBOX} consumer\r\n`)
  await until('the hub mirrors the leaf', () =>
    hub.request('$JS.API.STREAM.CREATE.mirror', {
      name: 'mirror',
      storage: 'file',
      retention: 'limits',
      discard: 'old',
      num_replicas: 1,
      mirror: { name: 'devices', external: { api: '$JS.leaf.API' } },
    }),
  )
  await hub.request('$JS.API.CONSUMER.CREATE.mirror', {
    stream_name: 'mirror',
    config: {
      deliver_subject: INBOX,
      deliver_policy: 'all',
      ack_policy: 'none',
      replay_policy: 'instant',
      flow_control: true,
      idle_heartbeat: 5_000_000_000,
    },
  })
  return hub
}
