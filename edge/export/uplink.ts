// Sends what the cloud lacks: one ordered reader a stream, go-back-N, within the window.
//
//   order    within a stream, frames leave in the order of the log; a stream of higher priority goes first
//   window   bytes sent and not marked ≤ the smallest of the cloud's credit, 1 MB and what the rate asks for; parts of
//            a frame larger than that count until the broker has them, since no mark can come before the last
//   marks    move forward only, to frames that were sent, with the chain that was sent
//
// Ends with an error when the connection does, or when nothing moves for `progressMsMax`: the session begins again.

import { interval, Observable, Subject } from 'rxjs'
import { packPart, packWhole } from '../../schemas/bundle.ts'
import type { Mark } from '../../schemas/hello.ts'
import type { GatewayId } from '../../schemas/ids.ts'
import { up } from '../../schemas/topics.ts'
import type { Entry, Position, StreamLog } from '../../streams/log/log.ts'
import type { Link } from '../../streams/mqtt/link.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { fault } from '../../streams/run/fault.ts'
import { type Flight, openFlight } from './flight.ts'
import type { Pace, Sent } from './pace.ts'

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
/** A smaller part costs more in headers than it saves in time. */
const PART_BYTES_MIN = 4 * 1024

interface Lane {
  readonly log: StreamLog
  readonly flight: Flight
  readonly demand$: Subject<number>
  queue: Entry[]
  queuedBytes: number
  asked: number
  /** The first queued frame is leaving in parts: where the next begins, and when the first left. */
  part: { at: number; readonly sent: Sent } | undefined
  /** Of parts that the broker has not acknowledged: no mark can come before the last of them is sent. */
  partBytes: number
  movedAtMs: number
  refused: boolean
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
        part: undefined,
        partBytes: 0,
        movedAtMs: clock.monoMs(),
        refused: false,
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

    const bytesOf = ({ flight, partBytes }: Lane): number => flight.bytes() + partBytes
    const inFlight = (): number => lanes.reduce((sum, lane) => sum + bytesOf(lane), 0)

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
      if (bytesOf(lane) === 0) lane.movedAtMs = nowMs
      const [first] = lane.queue
      if (first === undefined) return
      if (lane.part !== undefined || first.bytes.length > Math.max(bytesMax, pace.messageBytes()))
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
      // The rate counts from the first part: the frame's bytes took all that time.
      const part = lane.part ?? { at: 0, sent: pace.sent(entry.bytes.length, nowMs) }
      const position = part.at
      const bytes = entry.bytes.subarray(position, position + Math.max(PART_BYTES_MIN, bytesMax))
      part.at += bytes.length
      lane.part = part
      lane.partBytes += bytes.length
      if (part.at >= entry.bytes.length) {
        lane.part = undefined
        lane.queue.shift()
        lane.queuedBytes -= entry.bytes.length
        lane.flight.launch(entry, part.sent)
      }
      const payload = packPart({ first: entry.header.first, total: entry.bytes.length, position, bytes })
      publish(lane, payload, () => {
        lane.partBytes -= bytes.length
        lane.movedAtMs = clock.monoMs()
        pump()
      })
    }

    const publish = (lane: Lane, payload: Buffer, acknowledged?: () => void): void => {
      subscriber.add(
        link
          .publish({ topic: up.export(gateway, lane.log.name), payload, qos: 1, lane: 'backlog' })
          .subscribe({
            error: thrown => subscriber.error(thrown),
            complete: () => acknowledged?.(),
          }),
      )
    }

    /** Told once: each mark that follows would be refused for the same reason. */
    const refuse = (lane: Lane, because: string): void => {
      if (lane.refused) return
      lane.refused = true
      subscriber.next({ kind: 'mark_refused', log: lane.log, because })
    }

    const land = (mark: Mark): void => {
      const nowMs = clock.monoMs()
      credit = mark.creditBytes
      for (const { name, epoch, offset, chain } of mark.streams) {
        const lane = lanes.find(each => each.log.name === name)
        if (lane === undefined) continue
        if (epoch !== lane.log.state().epoch) {
          refuse(lane, `it is of epoch ${epoch}`)
          continue
        }
        const landing = lane.flight.mark({ offset, chain })
        if (landing.kind === 'refuse') refuse(lane, landing.because)
        if (landing.kind !== 'progress') continue
        lane.movedAtMs = nowMs
        pace.marked(landing.items, nowMs)
        subscriber.next({ kind: 'marked', log: lane.log, at: landing.at, bytes: landing.bytes })
      }
      pump()
    }

    const lanes = streams.map(openLane)
    subscriber.add(marks$.subscribe({ next: land, error: thrown => subscriber.error(thrown) }))
    subscriber.add(
      interval(Math.ceil(progressMsMax / 4), clock.scheduler).subscribe(() => {
        const nowMs = clock.monoMs()
        const stuck = lanes.find(lane => bytesOf(lane) > 0 && nowMs - lane.movedAtMs >= progressMsMax)
        if (stuck !== undefined)
          subscriber.error(
            fault('link_lost', {
              address: 'the cloud',
              because: `no mark of ${stuck.log.name} for ${progressMsMax} ms`,
            }),
          )
      }),
    )
    pump()
  })
