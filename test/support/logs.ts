// Streams for tests: over a store that outlives them, as a disk outlives a process.

import { concat, firstValueFrom, lastValueFrom, NEVER, type Observable, of, toArray } from 'rxjs'
import { type FrameHeader, readRecords } from '../../schemas/frame.ts'
import { bootIdOf, type Offset, ORIGIN, type StreamName, streamName } from '../../schemas/ids.ts'
import type { TakenRecord } from '../../schemas/records.ts'
import { noBallast } from '../../streams/log/ballast.ts'
import type { Entry, StreamLog } from '../../streams/log/log.ts'
import type { Store } from '../../streams/log/store.ts'
import type { StreamLimits } from '../../streams/log/stream.ts'
import { openStreams, type Streams } from '../../streams/log/streams.ts'
import { type Random, systemClock, systemRandom } from '../../streams/run/clock.ts'

export const DATA = streamName('data')
export const EVENTS = streamName('events')
export const clock = systemClock(bootIdOf(Buffer.alloc(8, 7)))

export const seededRandom = (seed: number): Random => {
  let state = seed >>> 0
  const unit = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
  return { unit, bytes: count => Buffer.from(Array.from({ length: count }, () => Math.floor(unit() * 256))) }
}

export const GENEROUS: StreamLimits = { bytesMax: 2 ** 40, onFull: 'refuse', reserved: false }

export const withStreams = async <R>(
  store: Store,
  body: (streams: Streams) => Promise<R>,
  limits: ReadonlyMap<StreamName, StreamLimits> = new Map([
    [DATA, GENEROUS],
    [EVENTS, { ...GENEROUS, reserved: true }],
  ]),
): Promise<R> => {
  let opened: Streams | undefined
  const holding = openStreams({
    store,
    clock,
    random: systemRandom,
    ballast: noBallast,
    streams: limits,
    reserveBytes: 0,
    sealWaitMsMax: 5,
    codec: 'deflate',
  }).subscribe(streams => {
    opened = streams
  })
  try {
    return await body(opened!)
  } finally {
    holding.unsubscribe()
  }
}

export const record = (text: string, topic = 'a/b', qos: 0 | 1 | 2 = 1): TakenRecord => ({
  topic,
  payload: Buffer.from(text),
  qos,
  retain: false,
  receivedMonoMs: clock.monoMs(),
})

export const records = (count: number, from = 0): [TakenRecord, ...TakenRecord[]] =>
  Array.from({ length: count }, (_, i) => record(`r${from + i}`)) as [TakenRecord, ...TakenRecord[]]

export const append = (log: StreamLog, batch: [TakenRecord, ...TakenRecord[]]) =>
  firstValueFrom(log.append(batch))

export const entriesOf = (log: StreamLog, after: Offset = ORIGIN): Promise<Entry[]> =>
  lastValueFrom(log.replay({ after, atHead: 'complete', demand$: grant(1e9) }).pipe(toArray()))

/** Data as texts, skips as [first, last]. */
export const contents = (
  entries: readonly { header: FrameHeader; bytes: Buffer }[],
): (string | [number, number])[] =>
  entries.flatMap(({ header, bytes }): (string | [number, number])[] =>
    header.kind === 'skip'
      ? [[header.first, header.last]]
      : readRecords(bytes).map(r => r.payload.toString()),
  )

export const grant = (n: number): Observable<number> => concat(of(n), NEVER)
