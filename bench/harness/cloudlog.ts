// The cloud's log as its ingestion feeds it: frames of one gateway, each checked, in groups with their mark; while one
// group is committed, the next arrives and is checked.

import { from, lastValueFrom } from 'rxjs'
import { type Receiving, receiveFrame } from '../../cloud/ingestion/receive.ts'
import { CHAIN_ZERO, gatewayId, ORIGIN, STREAM_DATA } from '../../schemas/ids.ts'
import { noBallast } from '../../streams/log/ballast.ts'
import type { CloudBody, CloudWriter, StoredMark } from '../../streams/log/cloudlog.ts'
import { openCloudWriter } from '../../streams/log/cloudwriter.ts'
import type { Entry } from '../../streams/log/log.ts'
import { systemClock } from '../../streams/run/clock.ts'
import { hold } from '../../streams/run/hold.ts'

export interface Appended {
  readonly elapsedMs: number
  /** Of each commit: from the call until durable. */
  readonly latenciesMs: readonly number[]
  /** Seconds, records durable. */
  readonly points: readonly (readonly [number, number])[]
}

export interface AppendFrames {
  readonly folder: string
  /** Of a stream `data`, from its first frame on. */
  readonly entries: readonly Entry[]
  /** Of one commit; the last frame may go beyond. */
  readonly groupBytes: number
  readonly onDurable?: (records: number) => void
}

/** Rejects when a commit fails, or a frame does. */
export const appendFrames = ({ folder, ...rest }: AppendFrames): Promise<Appended> => {
  const opened$ = openCloudWriter({ folder, clock: systemClock(), ballast: noBallast, reserveBytes: 0 })
  return lastValueFrom(hold(opened$, writer => from(feed(writer, rest))))
}

const feed = async (
  log: CloudWriter,
  { entries, groupBytes, onDurable }: Omit<AppendFrames, 'folder'>,
): Promise<Appended> => {
  const latenciesMs: number[] = []
  const points: [number, number][] = [[0, 0]]
  const check = checking(entries)
  const startedMs = performance.now()
  const commit = async ({ bodies, mark }: Group): Promise<void> => {
    const calledMs = performance.now()
    await lastValueFrom(log.append('data', bodies, [mark]))
    const durableMs = performance.now()
    latenciesMs.push(durableMs - calledMs)
    points.push([(durableMs - startedMs) / 1_000, mark.offset])
    onDurable?.(mark.offset)
  }
  let committing = Promise.resolve()
  for (const frames of groupsOf(entries, groupBytes)) {
    const group = check(frames)
    await committing
    committing = commit(group)
  }
  await committing
  return { elapsedMs: performance.now() - startedMs, latenciesMs, points }
}

function* groupsOf(entries: readonly Entry[], groupBytes: number): Generator<readonly Entry[]> {
  let first = 0
  let bytes = 0
  for (const [index, entry] of entries.entries()) {
    bytes += entry.bytes.length
    if (bytes < groupBytes && index < entries.length - 1) continue
    yield entries.slice(first, index + 1)
    first = index + 1
    bytes = 0
  }
}

interface Group {
  readonly bodies: readonly CloudBody[]
  readonly mark: StoredMark
}

/** As `ingest.ts` takes frames: length, CRC, sequence and chain of each. */
const checking = (entries: readonly Entry[]) => {
  const [first] = entries
  if (first === undefined) throw new Error('no frames to append')
  const gateway = gatewayId('bench')
  const place = { stream: STREAM_DATA, epoch: first.header.epoch }
  const at: Receiving = { ...place, received: { offset: ORIGIN, chain: CHAIN_ZERO } }
  return (frames: readonly Entry[]): Group => {
    const bodies = frames.map(({ bytes, header }): CloudBody => {
      const outcome = receiveFrame(bytes, at)
      if (outcome.kind !== 'taken') throw new Error(`the frame at ${header.first} is ${outcome.kind}`)
      at.received = outcome.position
      return { kind: 'frame', gateway, frame: outcome.frame }
    })
    return { bodies, mark: { gateway, ...place, ...at.received } }
  }
}
