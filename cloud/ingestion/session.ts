// Who is connected, and where each of its streams stands.

import type { GatewayId, StreamName } from '../../schemas/ids.ts'
import type { Assembler } from './assemble.ts'
import type { Held } from './batches.ts'

export interface Stream extends Held {
  /** As the hello said, or as was received since. */
  head: number
  assembler: Assembler
}

export interface Session {
  readonly gateway: GatewayId
  readonly connection: string
  readonly saidAtMs: number
  readonly streams: ReadonlyMap<StreamName, Stream>
  /** Of the backlog that the hello told of. */
  waitingBytes: number
  /** Received and not yet durable. */
  unmarkedBytes: number
  /** Sends as fast as its credit lets it: treated as having a backlog until then. */
  busyUntilMs: number
  /** A hello whose answer waits for a commit that was running when it came. */
  answers: string | undefined
  /** What it sent was lost with a commit that failed: nothing is taken before its next hello. */
  lost: boolean
}

export const isSettled = ({ received, durable }: Stream): boolean => received.offset === durable.offset

export const isBehind = ({ streams, waitingBytes }: Session): boolean =>
  waitingBytes > 0 || [...streams.values()].some(({ head, durable }) => durable.offset < head)
