// Live fan-out: what is durable goes to the channels of its gateways, record by record, as it arrives.
//
//   durable  only what the log holds is published; reading starts at its head
//   ordered  a gateway's records in the order of the log: one frame after the other, and within a frame no message is
//            handed over before those of another QoS in front of it have been routed
//   live     records that are older than a minute when they arrive belong to a backlog: those who want them read
//            /api/records
//   bounded  CREDIT frames are held; each subscriber's queue is the broker's, and what it loses is counted

import {
  concat,
  concatMap,
  defer,
  EMPTY,
  finalize,
  ignoreElements,
  interval,
  map,
  merge,
  mergeMap,
  type Observable,
  of,
  Subject,
  takeUntil,
  timer,
} from 'rxjs'
import { type FrameHeader, readHeader, readRecords } from '../../schemas/frame.ts'
import type { ChannelId, GatewayId } from '../../schemas/ids.ts'
import type { SealedRecord } from '../../schemas/records.ts'
import { channelTopic, TOPIC_BYTES_MAX } from '../../schemas/topics.ts'
import type { CloudEntry, CloudReader } from '../../streams/log/cloudlog.ts'
import type { Clock } from '../../streams/run/clock.ts'

/** The part of the embedded broker that is needed here. */
export interface NorthPort {
  /** Completes when routed. */
  publish(message: { topic: string; payload: Buffer; qos: 0 | 1; retain: false }): Observable<never>
  stats(): { readonly dropped: number }
}

export interface FanOutOptions {
  readonly reader: CloudReader
  readonly port: NorthPort
  readonly clock: Clock
  readonly isWanted: (channel: ChannelId) => boolean
  /** Emits once; undefined for a gateway that has none. */
  readonly channelOf: (gateway: GatewayId) => Observable<ChannelId | undefined>
  /** Age at which a record is backlog; undefined publishes everything. 60 s. */
  readonly ageMsMax?: number | undefined
}

export interface FanOutCounts {
  readonly published: number
  /** Older than `ageMsMax` when they arrived. */
  readonly late: number
  /** Frames that cannot be decoded: the dead letters show them. */
  readonly undecodable: number
  /** Records whose topic cannot be published. */
  readonly untopical: number
  /** Frames of gateways without a channel. */
  readonly homeless: number
  /** Messages that a slow subscriber's full queue cost it. */
  readonly dropped: number
}

export const AGE_MS_MAX = 60_000
const CREDIT = 4
const COUNTS_EVERY_MS = 1_000

/** Emits the counts, at most every second and only when they changed. Errors: those of the reader. */
export const fanOut = (options: FanOutOptions): Observable<FanOutCounts> =>
  defer(() => {
    const { reader, port, clock, isWanted, channelOf } = options
    const ageMsMax = 'ageMsMax' in options ? options.ageMsMax : AGE_MS_MAX
    const counts = { published: 0, late: 0, undecodable: 0, untopical: 0, homeless: 0 }
    const credit$ = new Subject<number>()
    const ended$ = new Subject<void>()

    const publishable = (
      record: SealedRecord,
      entry: CloudEntry,
      { clock: quality }: FrameHeader,
    ): boolean => {
      // The age of a record is as good as its gateway's clock.
      const ageMs = quality === 'synchronised' ? entry.receivedAtMs - record.receivedAtMs : 0
      if (ageMsMax !== undefined && ageMs > ageMsMax) {
        counts.late += 1
        return false
      }
      if (/[+#\0]/.test(record.topic) || Buffer.byteLength(record.topic) > TOPIC_BYTES_MAX) {
        counts.untopical += 1
        return false
      }
      return true
    }

    const relay = (entry: CloudEntry & { readonly kind: 'frame' }, channel: ChannelId): Observable<never> => {
      let header: FrameHeader
      let records: SealedRecord[]
      try {
        header = readHeader(entry.frame)
        records = readRecords(entry.frame, header)
      } catch {
        counts.undecodable += 1
        return EMPTY
      }
      const taken = records.filter(record => publishable(record, entry, header))
      counts.published += taken.length
      return concat(
        ...runsOf(taken).map(run =>
          merge(
            ...run.map(({ topic, payload, qos }) =>
              port.publish({
                topic: channelTopic(channel, topic),
                payload,
                qos: qos === 0 ? 0 : 1,
                retain: false,
              }),
            ),
          ),
        ),
      )
    }

    const work = (entry: CloudEntry): Observable<never> => {
      if (entry.kind !== 'frame') return EMPTY
      return channelOf(entry.gateway).pipe(
        mergeMap(channel => {
          if (channel === undefined) counts.homeless += 1
          // Sockets are written between frames: without a turn of the loop every queue would fill up.
          if (channel === undefined || !isWanted(channel)) return EMPTY
          return concat(relay(entry, channel), timer(0, clock.scheduler).pipe(ignoreElements()))
        }),
      )
    }

    // In this order: what is returned during the first grant must not be lost.
    const demand$ = merge(credit$, of(CREDIT))
    const published$ = reader
      .replay({ class: 'data', after: reader.head('data'), demand$, atHead: 'follow' })
      .pipe(
        concatMap(entry => work(entry).pipe(finalize(() => credit$.next(1)))),
        finalize(() => ended$.next()),
      )
    let told = ''
    const counts$ = interval(COUNTS_EVERY_MS, clock.scheduler).pipe(
      map(() => ({ ...counts, dropped: port.stats().dropped })),
      mergeMap(now => {
        const text = Object.values(now).join(' ')
        if (text === told) return []
        told = text
        return [now]
      }),
      takeUntil(ended$),
    )
    return merge(published$, counts$)
  })

/** Neighbours of one QoS: they keep their order on their way, records of different QoS need not. */
const runsOf = (records: readonly SealedRecord[]): SealedRecord[][] => {
  const runs: SealedRecord[][] = []
  for (const record of records) {
    const run = runs.at(-1)
    if (run === undefined || Math.min(run[0]?.qos ?? 0, 1) !== Math.min(record.qos, 1)) runs.push([record])
    else run.push(record)
  }
  return runs
}
