// What a gateway took while its link was down, sealed as its log seals it.

import { readHeader, type Stamp, sealFrame } from '../../schemas/frame.ts'
import { CHAIN_ZERO, epochOf, offset, STREAM_DATA } from '../../schemas/ids.ts'
import { cut } from '../../streams/log/cut.ts'
import { stampOf, systemClock, systemRandom } from '../../streams/run/clock.ts'
import { senmlPayload } from './generator.ts'
import type { Backlog } from './simulated.ts'

const clock = systemClock()

/** 112-byte SenML, numbered from 0, of the producer with this number. */
export const sealBacklog = (producer: number, records: number): Backlog => {
  const stamp: Stamp = stampOf(clock)
  const topic = `bench/${producer}`
  const taken = Array.from({ length: records }, (_, sequence) => ({
    topic,
    payload: senmlPayload(producer, sequence),
    qos: 1 as const,
    retain: false,
    receivedMonoMs: stamp.monoMs,
  }))
  const epoch = epochOf(systemRandom.bytes(8))
  const frames: Buffer[] = []
  let chain = CHAIN_ZERO
  let first = 1
  for (const batch of cut(taken)) {
    const frame = sealFrame(
      batch,
      { stream: STREAM_DATA, epoch, first: offset(first), previous: chain },
      stamp,
    )
    frames.push(frame)
    chain = readHeader(frame).chain
    first += batch.length
  }
  return { stream: STREAM_DATA, epoch, frames }
}
