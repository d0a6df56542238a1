// An edge's log, opened as the program opens it, while the program does not run; and records to fill it with.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { from, lastValueFrom } from 'rxjs'
import { LOG_FILE } from '../../edge/compose.ts'
import { HELD_TABLE } from '../../edge/ingest/held.ts'
import { INTAKE_LIMITS } from '../../edge/ingest/intake.ts'
import { MEMORY_TABLES } from '../../edge/ingest/memory.ts'
import { edgeSchema, streamsOf } from '../../schemas/config.ts'
import { STREAM_DATA, STREAM_EVENTS } from '../../schemas/ids.ts'
import type { TakenRecord } from '../../schemas/records.ts'
import { noBallast } from '../../streams/log/ballast.ts'
import { openLmdb } from '../../streams/log/lmdb.ts'
import type { StreamLog } from '../../streams/log/log.ts'
import { openStreams, tablesOf } from '../../streams/log/streams.ts'
import { systemClock, systemRandom } from '../../streams/run/clock.ts'
import { hold } from '../../streams/run/hold.ts'
import { senmlPayload } from './generator.ts'

/** The stream `data` of the log in `folder`, with the default configuration; closed when `use` is done. */
export const withEdgeLog = async <T>(folder: string, use: (data: StreamLog) => Promise<T>): Promise<T> => {
  const settings = edgeSchema.parse({ data: folder })
  const streams = streamsOf(settings, [])
  const store = openLmdb({
    file: join(folder, LOG_FILE),
    tables: [...tablesOf(streams.keys()), HELD_TABLE, ...MEMORY_TABLES],
  })
  const limits = [...streams].map(
    ([name, { maxBytes: bytesMax, onFull }]) =>
      [name, { bytesMax, onFull, reserved: name === STREAM_EVENTS }] as const,
  )
  const opened$ = openStreams({
    store,
    clock: systemClock(),
    random: systemRandom,
    ballast: noBallast,
    streams: new Map(limits),
    reserveBytes: settings.disk.reserveBytes,
    sealWaitMsMax: settings.seal.waitMsMax,
    codec: settings.seal.compression,
  })
  try {
    return await lastValueFrom(hold(opened$, opened => from(use(opened.stream(STREAM_DATA)))))
  } finally {
    await lastValueFrom(store.close())
  }
}

export type Batch = readonly [TakenRecord, ...TakenRecord[]]

const PRODUCERS = 8
const RUN_RECORDS = 500
const POOL_RECORDS = 96_000

/**
 * Batches of 112-byte SenML as the edge's intake makes them when more waits than one append may take: eight producers by
 * turns, 500 records each. The payloads come again after 96,000: far beyond what a frame or its codec looks back on.
 */
export function* batchesOf(records: number): Generator<Batch> {
  const clock = systemClock()
  const pool = Array.from({ length: Math.min(records, POOL_RECORDS) }, (_, index) => {
    const run = Math.floor(index / RUN_RECORDS)
    const producer = run % PRODUCERS
    const sequence = Math.floor(run / PRODUCERS) * RUN_RECORDS + (index % RUN_RECORDS)
    return { topic: `bench/${producer}`, payload: senmlPayload(producer, sequence) }
  })
  const [{ topic, payload } = { topic: '', payload: Buffer.alloc(0) }] = pool
  const { batchBytesMax, batchRecordsMax } = INTAKE_LIMITS
  const size = Math.min(batchRecordsMax, Math.floor(batchBytesMax / (topic.length + payload.length)))
  for (let at = 0; at < records; at += size) {
    const receivedMonoMs = clock.monoMs()
    const take = (index: number): TakenRecord => ({
      topic,
      payload,
      ...pool[(at + index) % pool.length],
      qos: 1,
      retain: false,
      receivedMonoMs,
    })
    const rest = Array.from({ length: Math.min(size, records - at) - 1 }, (_, index) => take(index + 1))
    yield [take(0), ...rest]
  }
}

/** Physical bytes that this process, threads and all, has written since its start. */
export const writtenBytes = (): number =>
  Number(/^write_bytes:\s+(\d+)/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1] ?? Number.NaN)
