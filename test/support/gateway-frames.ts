// A gateway's stream as frames that continue each other, for tests of whatever reads the cloud's log.

import {
  type FrameHeader,
  readHeader,
  type SkipCause,
  type Stamp,
  sealFrame,
  sealSkip,
} from '../../schemas/frame.ts'
import {
  bootIdOf,
  CHAIN_ZERO,
  type Chain,
  type Epoch,
  epochOf,
  gatewayId,
  offset,
  streamName,
} from '../../schemas/ids.ts'
import type { Qos } from '../../schemas/records.ts'
import type { CloudBody } from '../../streams/log/cloudlog.ts'

export interface Sent {
  readonly topic: string
  readonly payload: string | Uint8Array
  readonly qos?: Qos
  readonly retain?: boolean
  readonly receivedMonoMs?: number
}
export type FrameBody = CloudBody & { readonly kind: 'frame' }

export const STAMP: Stamp = {
  wallMs: 1_750_000_000_000,
  monoMs: 1_000_000,
  bootId: bootIdOf(Buffer.alloc(8, 3)),
  quality: 'synchronised',
}

export const EPOCH: Epoch = epochOf(Buffer.alloc(8, 7))

export const gatewayFrames = (gateway: string, stream = 'data', { epoch = EPOCH, after = 0 } = {}) => {
  let next = after + 1
  let chain: Chain = CHAIN_ZERO
  const body = (frame: Buffer): FrameBody => {
    const header: FrameHeader = readHeader(frame)
    next = header.last + 1
    chain = header.chain
    return { kind: 'frame', gateway: gatewayId(gateway), frame }
  }
  const at = () => ({ stream: streamName(stream), epoch, first: offset(next) })
  return {
    seal: (records: readonly Sent[], stamp: Partial<Stamp> = {}): FrameBody => {
      const taken = records.map(
        ({ topic, payload, qos = 1, retain = false, receivedMonoMs = STAMP.monoMs }) => ({
          topic,
          payload: typeof payload === 'string' ? Buffer.from(payload) : payload,
          qos,
          retain,
          receivedMonoMs,
        }),
      )
      return body(sealFrame(taken, { ...at(), previous: chain }, { ...STAMP, ...stamp }))
    },
    skip: (count: number, cause: SkipCause): FrameBody =>
      body(sealSkip({ ...at(), count, cause, chain }, STAMP)),
    /** Leaves offsets out, as nothing ever should. */
    lose: (count: number) => {
      next += count
    },
    goBackTo: (first: number) => {
      next = first
    },
  }
}

/** A body that nobody can decompress, in a frame that is otherwise whole. */
export const undecodable = (whole: FrameBody): FrameBody => {
  const frame = Buffer.from(whole.frame)
  frame[3] = 1
  return { ...whole, frame }
}
