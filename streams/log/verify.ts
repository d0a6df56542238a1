// Reads logs from end to end and says what is in them: headers, checksums, chains, and that no offset is missing.

import { chainAfter, crcOf, FrameError, readHeader, readRecords } from '../../schemas/frame.ts'
import { CHAIN_ZERO, type Chain, type StreamName } from '../../schemas/ids.ts'
import { framesTable, readMeta, STREAMS_TABLE } from './meta.ts'
import { keyNumber, numberKey, type Store } from './store.ts'

export interface Finding {
  readonly at: string
  readonly problem: string
}

export interface StreamReport {
  readonly stream: string
  readonly epoch: string
  readonly tail: number
  readonly head: number
  readonly records: number
  readonly skipped: number
  readonly bytes: number
  /** The first hundred; `findingCount` counts all. */
  readonly findings: readonly Finding[]
  readonly findingCount: number
}

const FINDINGS_MAX = 100
const PAGE_ROWS = 64

/** Follows one stream's frames in order and collects what is wrong with them. */
export const openChecker = (
  stream: string,
  start: { readonly offset: number; readonly chain: Chain | undefined; readonly epoch: string },
) => {
  const findings: Finding[] = []
  let findingCount = 0
  let { offset: last } = start
  /** Undefined: what came before the first frame is not here to continue. */
  let chain = start.chain
  let records = 0
  let skipped = 0
  let bytes = 0
  const found = (at: string, problem: string): void => {
    findingCount += 1
    if (findings.length < FINDINGS_MAX) findings.push({ at, problem })
  }
  return {
    add: (frame: Buffer): void => {
      try {
        const header = readHeader(frame)
        const at = `${stream} ${header.first}–${header.last}`
        if (header.length !== frame.length)
          found(at, `${frame.length} bytes, the header says ${header.length}`)
        if (crcOf(frame) !== header.crc) found(at, 'its checksum does not match its bytes')
        if (header.first !== last + 1) found(at, `offset ${last + 1} is missing before it`)
        if (header.epoch !== start.epoch)
          found(at, `epoch ${header.epoch} in a stream of epoch ${start.epoch}`)
        if (header.kind === 'data') {
          if (chain !== undefined && chainAfter(chain, frame) !== header.chain)
            found(at, 'it does not continue the chain')
          records += readRecords(frame, header).length
        } else skipped += header.count
        last = header.last
        chain = header.chain
        bytes += frame.length
      } catch (thrown) {
        if (!(thrown instanceof FrameError)) throw thrown
        found(`${stream} behind ${last}`, `malformed frame: ${thrown.message}`)
      }
    },
    report: (): StreamReport => ({
      stream,
      epoch: start.epoch,
      tail: start.offset + 1,
      head: last,
      records,
      skipped,
      bytes,
      findings,
      findingCount,
    }),
  }
}

/** A gateway's log, stream by stream. */
export const verifyStreams = (store: Store): StreamReport[] =>
  store.scan(STREAMS_TABLE, { limit: 1_000 }).map(([key]) => {
    const stream = key.toString() as StreamName
    const meta = readMeta(store, stream)
    const { offset, chain } = meta?.trimmed ?? { offset: 0, chain: CHAIN_ZERO }
    const checker = openChecker(stream, { offset, chain, epoch: meta?.epoch ?? '' })
    for (let from = 0; ; ) {
      const rows = store.scan(framesTable(stream), { from: numberKey(from), limit: PAGE_ROWS })
      for (const [, frame] of rows) checker.add(frame)
      const end = rows.at(-1)
      if (end === undefined) return checker.report()
      from = keyNumber(end[0]) + 1
    }
  })
