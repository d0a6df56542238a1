// Who is connected, and where each of its streams stands.

import type { Epoch, GatewayId, StreamName } from '../../schemas/ids.ts'
import type { Assembler } from './assemble.ts'
import type { Held } from './batches.ts'

export interface Stream extends Held {
  head: number
  assembler: Assembler
}

export interface Session {
  readonly gateway: GatewayId
  readonly connection: string
  readonly streams: ReadonlyMap<StreamName, Stream>
  waitingBytes: number
  /** A hello whose answer waits for a commit that was running when it came. */
  answers: string | undefined
}

export const isSettled = ({ received, durable }: Stream): boolean => received.offset === durable.offset

export const isBehind = ({ streams, waitingBytes }: Session): boolean =>
  waitingBytes > 0 || [...streams.values()].some(({ head, durable }) => durable.offset < head)

export const placeKey = ({
  gateway,
  stream,
  epoch,
}: {
  gateway: GatewayId
  stream: StreamName
  epoch: Epoch
}): string => `${gateway}\0${stream}\0${epoch}`
