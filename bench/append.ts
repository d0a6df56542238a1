// The durable log alone, in this process: the edge's seals records into frames (`sealed…`); the cloud's takes those
// frames as its ingestion does: half of one uplink's window a commit, while the other half arrives; and again one message
// of 64 KB a commit (`single…`), the smallest that a drain makes.
//
// Durable: an append counts when it has emitted, which it does after its transaction's fdatasync.

import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lastValueFrom, Subject, tap } from 'rxjs'
import { PACE_LIMITS } from '../edge/export/pace.ts'
import { readRecords } from '../schemas/frame.ts'
import { ORIGIN } from '../schemas/ids.ts'
import type { Entry, StreamLog } from '../streams/log/log.ts'
import { appendFrames } from './harness/cloudlog.ts'
import { batchesOf, withEdgeLog, writtenBytes } from './harness/edgelog.ts'
import { percentilesOf } from './harness/plots.ts'
import { percentile, rounded, type Scenario, type Told } from './scenario.ts'

/** Appends of one record each: what a quiet gateway's commit costs. */
const LONE = 500
const LONE_TINY = 20
/** Of the 4 to 256 KB that an uplink sends at a time, what it sends while something interactive is open. */
const MESSAGE_BYTES = 64 * 1024
/** As `uplink.ts` reads ahead. */
const READ_AHEAD = 8

export const append: Scenario = {
  name: 'append',
  says: 'the durable log: sealed frames a second as the cloud takes them, sealing and replay as the edge does them',
  records: { byDefault: 2_000_000, tiny: 20_000 },
  minutesMax: 3,
  run: async ({ records, tiny }, told) => {
    const folder = mkdtempSync(join(tmpdir(), 'headgate-append-'))
    const edgeFolder = join(folder, 'edge')
    const cloudFolder = join(folder, 'cloud')
    const singleFolder = join(folder, 'cloud, a message a commit')
    for (const each of [edgeFolder, cloudFolder, singleFolder]) mkdirSync(each)
    try {
      const sealed = await withEdgeLog(edgeFolder, async data => ({
        ...(await seal(data, records, told)),
        bytes: bytesOn(edgeFolder),
        ...(await replay(data)),
        lone: await appendLone(data, tiny ? LONE_TINY : LONE),
      }))
      const single = await appendFrames({
        folder: singleFolder,
        entries: sealed.entries,
        groupBytes: MESSAGE_BYTES,
      })
      const beforeBytes = writtenBytes()
      const taken = await appendFrames({
        folder: cloudFolder,
        entries: sealed.entries,
        groupBytes: PACE_LIMITS.windowBytesMax / 2,
        onDurable: done => told.progress('sealed frames appended', done, records),
      })
      const cloudWrittenBytes = writtenBytes() - beforeBytes
      told.plot({
        title: 'One append, until durable',
        unit: 'ms',
        over: 'percent',
        lines: [
          percentilesOf('frames, what has arrived', taken.latenciesMs),
          percentilesOf('frames, one message of 64 KB', single.latenciesMs),
          percentilesOf('1 MB of records, sealed', sealed.latenciesMs),
          percentilesOf('one record, sealed', sealed.lone.latenciesMs),
        ],
      })
      told.plot({
        title: 'Sealed frames appended',
        unit: 'records',
        over: 'seconds',
        lines: [{ name: 'durable', points: taken.points }],
      })
      const seconds = taken.elapsedMs / 1_000
      return {
        records,
        perSecond: Math.round(records / seconds),
        framesPerSecond: Math.round(sealed.entries.length / seconds),
        p50Ms: rounded(percentile(taken.latenciesMs, 0.5), 2),
        p99Ms: rounded(percentile(taken.latenciesMs, 0.99), 2),
        recordsPerFrame: rounded(records / sealed.entries.length),
        framesPerCommit: rounded(sealed.entries.length / taken.latenciesMs.length),
        bytesPerRecord: rounded(bytesOn(cloudFolder) / records, 2),
        writtenBytesPerRecord: rounded(cloudWrittenBytes / records, 2),
        singlePerSecond: Math.round(records / (single.elapsedMs / 1_000)),
        singleFramesPerCommit: rounded(sealed.entries.length / single.latenciesMs.length),
        singleP50Ms: rounded(percentile(single.latenciesMs, 0.5), 2),
        singleP99Ms: rounded(percentile(single.latenciesMs, 0.99), 2),
        sealedPerSecond: Math.round(records / (sealed.elapsedMs / 1_000)),
        sealedP50Ms: rounded(percentile(sealed.latenciesMs, 0.5), 2),
        sealedP99Ms: rounded(percentile(sealed.latenciesMs, 0.99), 2),
        sealedBytesPerRecord: rounded(sealed.bytes / records, 2),
        sealedWrittenBytesPerRecord: rounded(sealed.writtenBytes / records, 2),
        lonePerSecond: Math.round(sealed.lone.perSecond),
        loneP99Ms: rounded(percentile(sealed.lone.latenciesMs, 0.99), 2),
        loneWrittenBytes: Math.round(sealed.lone.writtenBytes),
        replayPerSecond: Math.round(records / (sealed.replayMs / 1_000)),
        readPerSecond: Math.round(records / (sealed.readMs / 1_000)),
        durability: 'each commit is one LMDB transaction with fdatasync; what counts was emitted after it',
      }
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  },
}

const timed = async (latenciesMs: number[], work: () => Promise<unknown>): Promise<void> => {
  const startedMs = performance.now()
  await work()
  latenciesMs.push(performance.now() - startedMs)
}

/** One append at a time, as `intake.ts` does it: sealing and compression are part of it. */
const seal = async (data: StreamLog, records: number, told: Told) => {
  const latenciesMs: number[] = []
  const beforeBytes = writtenBytes()
  let done = 0
  let elapsedMs = 0
  for (const batch of batchesOf(records)) {
    const startedMs = performance.now()
    await timed(latenciesMs, () => lastValueFrom(data.append(batch)))
    elapsedMs += performance.now() - startedMs
    done += batch.length
    told.progress('records sealed', done, records)
  }
  return { latenciesMs, elapsedMs, writtenBytes: writtenBytes() - beforeBytes }
}

/** From the first record to the head by credit: frames as the uplink reads them, then opened as a projection does it. */
const replay = async (data: StreamLog) => {
  const entries: Entry[] = []
  const startedMs = performance.now()
  await readAll(data, entry => entries.push(entry))
  const replayMs = performance.now() - startedMs
  let found = 0
  await readAll(data, ({ bytes, header }) => {
    found += readRecords(bytes, header).length
  })
  const readMs = performance.now() - startedMs - replayMs
  const { head } = data.state()
  if (found !== head) throw new Error(`${found} records were read back, ${head} are in the log`)
  return { entries, replayMs, readMs }
}

const readAll = async (data: StreamLog, see: (entry: Entry) => void): Promise<void> => {
  const demand$ = new Subject<number>()
  let granted = 0
  const read$ = data.replay({ after: ORIGIN, atHead: 'complete', demand$ }).pipe(
    tap(entry => {
      see(entry)
      granted -= 1
      if (granted === 0) grant()
    }),
  )
  const grant = (): void => {
    granted = READ_AHEAD
    demand$.next(READ_AHEAD)
  }
  const done = lastValueFrom(read$, { defaultValue: undefined })
  grant()
  await done
}

const appendLone = async (data: StreamLog, count: number) => {
  const latenciesMs: number[] = []
  const beforeBytes = writtenBytes()
  for (const [record] of batchesOf(1)) {
    for (let i = 0; i < count; i++) await timed(latenciesMs, () => lastValueFrom(data.append([record])))
  }
  const elapsedMs = latenciesMs.reduce((sum, ms) => sum + ms, 0)
  return {
    latenciesMs,
    perSecond: count / (elapsedMs / 1_000),
    writtenBytes: (writtenBytes() - beforeBytes) / count,
  }
}

/** Blocks of all files in the folder. */
const bytesOn = (folder: string): number =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).reduce(
    (sum, name) => sum + statSync(join(folder, name)).blocks * 512,
    0,
  )
