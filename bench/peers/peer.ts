// The port that each rival stands behind: an edge that takes messages, a link through a relay, a cloud, and a consumer
// there that counts. What is done with it, and how it is measured, is the same for all: outage.ts and accept.ts.

import type { Produced } from '../harness/generator.ts'
import type { Started } from '../harness/process.ts'
import type { Relay } from '../harness/relay.ts'
import type { Tally } from './tally.ts'

export type PeerName = 'mosquitto' | 'nats' | 'mqttjs'

export interface Peer {
  readonly name: PeerName
  /** What an acknowledgement means, in a sentence. */
  readonly durability: string
  /** What was set beyond the defaults, in words. */
  readonly configured: string
  /** More it is not given: it is too slow, or cannot hold them. */
  readonly recordsMax?: number
  /** How to install it; undefined when it is there. */
  missing(): string | undefined
  /** Starts all of it; nothing was sent through it yet. */
  open(): Promise<Rig>
}

export interface Rig {
  readonly edge: Started
  readonly cloud: Started
  readonly relay: Relay
  readonly tally: Tally
  produce(batch: Batch): Promise<Produced>
  /** Ends all processes, and removes the folder. */
  close(): Promise<void>
}

export interface Batch {
  readonly records: number
  /** The lowest producer's number: no two batches of a rig share one. */
  readonly firstProducer: number
  readonly onProgress?: (acknowledged: number) => void
}

/** As the generator for our own edge. */
export const CONNECTIONS = 8
export const WINDOW = 500
