// Mosquitto at both ends: a broker at the edge whose bridge queues while the link is cut, and a broker in the cloud.

import { writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { freePorts } from '../harness/ports.ts'
import { type Started, start } from '../harness/process.ts'
import { openRelay } from '../harness/relay.ts'
import { openConsumer } from './consumer.ts'
import { produceMqtt } from './mqtt-devices.ts'
import type { Peer } from './peer.ts'
import { programPath } from './program.ts'
import { openRig } from './rig.ts'

/** Unacknowledged messages between the brokers, and to the consumer. With its default, 20, it drains 10 % slower. */
const INFLIGHT_MAX = 1_000

export const mosquitto: Peer = {
  name: 'mosquitto',
  durability:
    'not synced before PUBACK: the queue is in memory, written to disk every 30 minutes (persistence on, its defaults)',
  configured: `bridge QoS 1, cleansession false; max_queued_messages 0, max_inflight_messages ${INFLIGHT_MAX}, no Nagle; no TLS`,
  missing: () => (programPath('mosquitto') === undefined ? 'apt-get install mosquitto' : undefined),
  open: () =>
    openRig('mosquitto', async (folder, tally) => {
      const [edgePort = 0, cloudPort = 0] = await freePorts(2)
      const cloud = await startBroker(folder, 'cloud', cloudPort)
      const relay = await openRelay(cloudPort)
      const consumer = await openConsumer(cloudPort, 'bench/#', tally)
      const edge = await startBroker(folder, 'edge', edgePort, bridge(relay.port))
      return { edge, cloud, relay, consumer, produce: batch => produceMqtt(edgePort, batch) }
    }),
}

/** A broker that keeps whatever it is given. `user`: it would give up root, and with it the folder. */
export const startBroker = async (
  folder: string,
  name: string,
  port: number,
  more: readonly string[] = [],
): Promise<Started> => {
  const file = join(folder, `${name}.conf`)
  const lines = [
    `user ${userInfo().username}`,
    `listener ${port} 127.0.0.1`,
    'allow_anonymous true',
    'persistence true',
    `persistence_location ${folder}/`,
    `persistence_file ${name}.db`,
    'max_queued_messages 0',
    `max_inflight_messages ${INFLIGHT_MAX}`,
    'set_tcp_nodelay true',
    'log_dest stderr',
    'log_type error',
    'log_type warning',
    'log_type information',
    'connection_messages false',
    ...more,
  ]
  writeFileSync(file, `${lines.join('\n')}\n`)
  const broker = start({ command: programPath('mosquitto') ?? 'mosquitto', args: ['-c', file] })
  await broker.saying(/mosquitto version \S+ running/)
  return broker
}

const bridge = (port: number): string[] => [
  'connection uplink',
  `address 127.0.0.1:${port}`,
  'topic bench/# out 1',
  'cleansession false',
]
