// Sends what the cloud lacks: one ordered reader a stream, go-back-N, within the window.
//
//   order    within a stream, frames leave in the order of the log; a stream of higher priority goes first
//   window   bytes sent and not marked ≤ the smallest of the cloud's credit, 1 MB and what the rate asks for
//   marks    move forward only, to frames that were sent, with the chain that was sent
//
// Ends with an error when the connection does, or when nothing moves for `progressMsMax`: the session begins again.

import { interval, Observable, Subject } from 'rxjs'
import { PART_HEADER_BYTES, packPart, packWhole } from '../../schemas/bundle.ts'
import type { Mark } from '../../schemas/hello.ts'
import type { GatewayId } from '../../schemas/ids.ts'
import { up } from '../../schemas/topics.ts'
import type { Entry, Position, StreamLog } from '../../streams/log/log.ts'
import type { Link } from '../../streams/mqtt/link.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { fault } from '../../streams/run/fault.ts'
import { type Flight, openFlight } from './flight.ts'
import type { Pace } from './pace.ts'

export interface UplinkStream {
  readonly log: StreamLog
  /** The cloud's mark. */
  readonly start: Position
  /** Where reading begins: the mark, or the end of what is declared. */
  readonly after: Position
  /** Sent before anything else of the stream. */
  readonly declared: Entry | undefined
}

export interface UplinkOptions {
  readonly gateway: GatewayId
  readonly link: Link
  readonly clock: Clock
  readonly pace: Pace
  /** Highest priority first. */
  readonly streams: readonly UplinkStream[]
  readonly creditBytes: number
  readonly marks$: Observable<Mark>
  /** With data in flight and no mark for so long, something was lost on the way: say hello again. */
  readonly progressMsMax: number
}

export type UplinkNotice =
  | { readonly kind: 'marked'; readonly log: StreamLog; readonly at: Position; readonly bytes: number }
  | { readonly kind: 'mark_refused'; readonly log: StreamLog; readonly because: string }

/** Read ahead of the window: enough for the largest message, little enough for 20 streams. */
const READ_AHEAD_BYTES = 256 * 1024
const READ_AHEAD_ENTRIES = 8

interface Lane {
  readonly log: StreamLog
  readonly flight: Flight
  readonly demand$: Subject<number>
  queue: Entry[]
  queuedBytes: number
  asked: number
  /** Bytes of the first queued frame that have left already, as parts. */
  partAt: number
}

export const uplink = ({
  gateway,
  link,
  clock,
  pace,
  streams,
  creditBytes,
  marks$,
  progressMsMax,
}: UplinkOptions): Observable<UplinkNotice> =>
  new Observable(subscriber => {
    let credit = creditBytes
    let movedAtMs = clock.monoMs()
    let pumping = false
    let again = false

    const openLane = ({ log, start, after, declared }: UplinkStream): Lane => {
      const lane: Lane = {
        log,
        flight: openFlight(start),
        demand$: new Subject(),
        queue: [],
        queuedBytes: 0,
        asked: 0,
        partAt: 0,
      }
      if (declared !== undefined) enqueue(lane, declared)
      subscriber.add(
        log.replay({ after: after.offset, atHead: 'follow', demand$: lane.demand$ }).subscribe({
          next: entry => {
            lane.asked -= 1
            enqueue(lane, entry)
            pump()
          },
          error: thrown => subscriber.error(thrown),
        }),
      )
      return lane
    }

    const enqueue = (lane: Lane, entry: Entry): void => {
      lane.queue.push(entry)
      lane.queuedBytes += entry.bytes.length
    }

    const readAhead = (lane: Lane): void => {
      if (lane.queuedBytes >= READ_AHEAD_BYTES || lane.asked > 0) return
      lane.asked = READ_AHEAD_ENTRIES
      lane.demand$.next(READ_AHEAD_ENTRIES)
    }

    const inFlight = (): number => lanes.reduce((sum, { flight, partAt }) => sum + flight.bytes() + partAt, 0)

    const pump = (): void => {
      again = pumping
      if (pumping) return // Reading ahead emits from inside.
      pumping = true
      do {
        again = false
        for (const lane of lanes) {
          readAhead(lane)
          while (lane.queue.length > 0 && !subscriber.closed) {
            const room = Math.min(credit, pace.windowBytes()) - inFlight()
            if (room <= 0) break
            send(lane, Math.min(room, pace.messageBytes()))
            readAhead(lane)
          }
        }
      } while (again && !subscriber.closed)
      pumping = false
    }

    const send = (lane: Lane, bytesMax: number): void => {
      const nowMs = clock.monoMs()
      if (inFlight() === 0) movedAtMs = nowMs
      const [first] = lane.queue
      if (first === undefined) return
      if (lane.partAt > 0 || first.bytes.length > Math.max(bytesMax, pace.messageBytes()))
        return sendPart(lane, first, bytesMax, nowMs)
      const frames: Buffer[] = []
      let bytes = 0
      for (const { bytes: frame } of lane.queue) {
        if (frames.length > 0 && bytes + frame.length > bytesMax) break
        frames.push(frame)
        bytes += frame.length
      }
      for (const entry of lane.queue.splice(0, frames.length))
        lane.flight.launch(entry, pace.sent(entry.bytes.length, nowMs))
      lane.queuedBytes -= bytes
      publish(lane, packWhole(frames))
    }

    const sendPart = (lane: Lane, entry: Entry, bytesMax: number, nowMs: number): void => {
      const position = lane.partAt
      const bytes = entry.bytes.subarray(position, position + Math.max(PART_HEADER_BYTES, bytesMax))
      lane.partAt += bytes.length
      const payload = packPart({ first: entry.header.first, total: entry.bytes.length, position, bytes })
      if (lane.partAt >= entry.bytes.length) {
        lane.partAt = 0
        lane.queue.shift()
        lane.queuedBytes -= entry.bytes.length
        lane.flight.launch(entry, pace.sent(entry.bytes.length, nowMs))
      }
      publish(lane, payload)
    }

    const publish = (lane: Lane, payload: Buffer): void => {
      subscriber.add(
        link
          .publish({ topic: up.export(gateway, lane.log.name), payload, qos: 1, lane: 'backlog' })
          .subscribe({ error: thrown => subscriber.error(thrown) }),
      )
    }

    const land = (mark: Mark): void => {
      const nowMs = clock.monoMs()
      credit = mark.creditBytes
      for (const { name, epoch, offset, chain } of mark.streams) {
        const lane = lanes.find(each => each.log.name === name)
        if (lane === undefined) continue
        if (epoch !== lane.log.state().epoch) {
          subscriber.next({ kind: 'mark_refused', log: lane.log, because: `it is of epoch ${epoch}` })
          continue
        }
        const landing = lane.flight.mark({ offset, chain })
        if (landing.kind === 'refuse')
          subscriber.next({ kind: 'mark_refused', log: lane.log, because: landing.because })
        if (landing.kind !== 'progress') continue
        movedAtMs = nowMs
        pace.marked(landing.items, nowMs)
        subscriber.next({ kind: 'marked', log: lane.log, at: landing.at, bytes: landing.bytes })
      }
      pump()
    }

    const lanes = streams.map(openLane)
    subscriber.add(marks$.subscribe({ next: land, error: thrown => subscriber.error(thrown) }))
    subscriber.add(
      interval(Math.ceil(progressMsMax / 4), clock.scheduler).subscribe(() => {
        const stuckMs = clock.monoMs() - movedAtMs
        if (inFlight() > 0 && stuckMs >= progressMsMax)
          subscriber.error(fault('link_lost', { address: 'the cloud', because: `no mark for ${stuckMs} ms` }))
      }),
    )
    pump()
  })
