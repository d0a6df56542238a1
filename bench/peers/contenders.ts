// Edges that take messages with their uplink cut, ours and the rivals', behind one face. Each was seen to work before it
// was cut: ours has its link up, a rival has carried messages to its consumer.

import { type Gateway, install, until } from '../harness/installation.ts'
import type { Started } from '../harness/process.ts'
import { openRelay } from '../harness/relay.ts'
import { produceMqtt } from './mqtt-devices.ts'
import { warmUp } from './outage.ts'
import type { Batch, Peer, PeerName, Rig } from './peer.ts'

export interface Contender extends Pick<Rig, 'produce' | 'close'> {
  readonly name: 'headgate' | PeerName
  /** Of one round. */
  readonly records: number
  readonly durability: string
  readonly configured: string
  readonly edge: Started
}

export interface Ours extends Contender {
  /** What it was told to keep against what its log holds, and the physical bytes written for it. */
  check(): Promise<{ readonly lost: number; readonly writtenBytesPerRecord: number }>
}

/** Of mqtt.js in one round: all rounds together stay below its 65,535 ids. */
const SLOW_RECORDS_MAX = 10_000

export const openPeer = async (peer: Peer, records: number): Promise<Contender> => {
  const { name, durability, configured, recordsMax } = peer
  const rig = await peer.open()
  await warmUp(peer, rig, 100)
  await rig.relay.cut()
  return {
    name,
    durability,
    configured,
    records: recordsMax === undefined ? records : Math.min(records, SLOW_RECORDS_MAX),
    edge: rig.edge,
    produce: rig.produce,
    close: rig.close,
  }
}

export const openOurs = async (records: number): Promise<Ours> => {
  const installation = await install()
  const relay = await openRelay(installation.gatewaysPort)
  const close = async (): Promise<void> => {
    await relay.close()
    await installation.close()
  }
  try {
    await installation.startCloud()
    const gateway = await installation.enrol('bench', { address: `localhost:${relay.port}` })
    const edge = await gateway.start()
    const linkIs = (wanted: boolean) => async () =>
      ((await gateway.status()).link === 'up') === wanted ? true : undefined
    await until('the link is up', linkIs(true))
    await relay.cut()
    await until('the link is down', linkIs(false))
    const before = { head: await headOf(gateway), writtenBytes: edge.writtenBytes() }
    let acknowledged = 0
    return {
      name: 'headgate',
      durability: 'PUBACK follows fdatasync of the log',
      configured: 'its defaults',
      records,
      edge,
      produce: async (batch: Batch) => {
        const produced = await produceMqtt(gateway.localPort, batch)
        acknowledged += produced.acknowledged.reduce((sum, count) => sum + count, 0)
        return produced
      },
      check: async () => ({
        lost: acknowledged - ((await headOf(gateway)) - before.head),
        writtenBytesPerRecord: (edge.writtenBytes() - before.writtenBytes) / acknowledged,
      }),
      close,
    }
  } catch (thrown) {
    await close()
    throw thrown
  }
}

const headOf = async (gateway: Gateway): Promise<number> =>
  (await gateway.status()).streams.find(({ name }) => name === 'data')?.head ?? 0
