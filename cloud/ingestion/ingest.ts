// Gateways' frames into the cloud's log, and marks back.
//
//   order     a frame is taken only behind the one before it, by offset and by chain
//   durable   a mark is sent only after the commit that holds the frames and the mark itself
//   once      duplicates are dropped by epoch and offset, and counted
//   bounded   what waits for a commit is within the credit that was given

import { interval, Observable } from 'rxjs'
import { unpack } from '../../schemas/bundle.ts'
import type { CloudEvent } from '../../schemas/events.ts'
import { FrameError } from '../../schemas/frame.ts'
import {
  encodeMark,
  type Hello,
  type HelloStream,
  PROTOCOL_VERSION,
  parseHello,
} from '../../schemas/hello.ts'
import { type GatewayId, STREAM_EVENTS, type StreamName } from '../../schemas/ids.ts'
import type { CloudWriter, LogClass } from '../../streams/log/cloudlog.ts'
import type { Position } from '../../streams/log/log.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { type Fault, fault, isFatal, reasonOf } from '../../streams/run/fault.ts'
import type { Uplink } from '../context.ts'
import { openAssembler } from './assemble.ts'
import { type Batch, type Batches, type Held, openBatches } from './batches.ts'
import { CREDIT_LIMITS, type CreditLimits, openCredit } from './credit.ts'
import { receiveFrame } from './receive.ts'
import { openRefusals } from './refusals.ts'
import { isBehind, isSettled, placeKey, type Session, type Stream } from './session.ts'

export interface IngestionPorts {
  readonly log: CloudWriter
  readonly clock: Clock
  readonly uplink$: Observable<Uplink>
  readonly sendMark: (gateway: GatewayId, payload: Buffer) => void
  /** Asks one gateway for a hello. */
  readonly sendWho: (gateway: GatewayId) => void
  readonly credit?: CreditLimits
}

export type IngestionNotice =
  | { readonly kind: 'durable'; readonly class: LogClass; readonly records: number; readonly bytes: number }
  | { readonly kind: 'duplicates'; readonly gateway: GatewayId; readonly count: number }
  | { readonly kind: 'refused'; readonly gateway: GatewayId; readonly because: string }
  | { readonly kind: 'commit_failed'; readonly because: string }

/** A mark is cumulative and may be lost: it is said again this often while something is unmarked. */
const MARK_REPEAT_MS = 5_000
/** A gateway is asked for a hello at most this often. */
const WHO_MS_MIN = 1_000

/** Runs while subscribed. Errors: only what is fatal (log_unreadable and defects). */
export const ingest = ({
  log,
  clock,
  uplink$,
  sendMark,
  sendWho,
  credit: limits = CREDIT_LIMITS,
}: IngestionPorts): Observable<IngestionNotice> =>
  new Observable(subscriber => {
    const stored = log.marks()
    const marks = new Map<string, Position>(
      stored.map(({ offset, chain, ...place }) => [placeKey(place), { offset, chain }]),
    )
    const epochs = new Map(stored.map(({ gateway, stream, epoch }) => [`${gateway}\0${stream}`, epoch]))
    const sessions = new Map<GatewayId, Session>()
    /** Outlives a session until its frames are durable: a gateway that returns meanwhile must not send them twice. */
    const streams = new Map<string, Stream>()
    const askedAtMs = new Map<GatewayId, number>()
    const refusals = openRefusals(clock)
    const batches = new Map<LogClass, Batches>()
    const credit = openCredit(limits, gateway => {
      const session = sessions.get(gateway)
      if (session !== undefined) sendMarks(session)
    })

    const record = (event: CloudEvent): void =>
      batches.get('events')?.add(({ bodies }) => bodies.push({ kind: 'event', event }))

    const committed =
      (logClass: LogClass) =>
      ({ bodies, moved }: Batch): void => {
        const touched = new Set<Session>()
        let records = 0
        for (const [held, position] of moved) {
          records += position.offset - held.durable.offset
          held.durable = position
          marks.set(placeKey(held), position)
          const session = sessions.get(held.gateway)
          if (session === undefined) forget(held)
          else touched.add(session)
        }
        for (const session of touched) {
          if ([...session.streams.values()].every(({ head, durable }) => durable.offset >= head))
            session.waitingBytes = 0
          credit.backlog(session.gateway, session.waitingBytes)
          sendMarks(session)
        }
        if (records > 0) {
          const bytes = bodies.reduce((sum, body) => sum + (body.kind === 'frame' ? body.frame.length : 0), 0)
          subscriber.next({ kind: 'durable', class: logClass, records, bytes })
        }
      }

    /** Nothing of it is on disk, and what followed has lost its place: these gateways begin again with a hello. */
    const failed = (lost: readonly Batch[], thrown: unknown): void => {
      if (isFatal(thrown)) return subscriber.error(thrown)
      subscriber.next({ kind: 'commit_failed', because: reasonOf(thrown) })
      for (const held of lost.flatMap(({ moved }) => [...moved.keys()])) {
        held.received = held.durable
        sessions.delete(held.gateway)
        ask(held.gateway)
      }
    }

    const forget = (held: Held): void => {
      if (held.received.offset === held.durable.offset) streams.delete(placeKey(held))
    }

    const sendMarks = (session: Session): void => {
      const all = [...session.streams.values()]
      if (session.answers !== undefined && !all.every(isSettled)) return
      const answers = session.answers === undefined ? {} : { answers: session.answers }
      session.answers = undefined
      sendMark(
        session.gateway,
        encodeMark({
          ...answers,
          streams: all.map(({ stream, epoch, durable }) => ({ name: stream, epoch, ...durable })),
          creditBytes: credit.of(session.gateway),
        }),
      )
    }

    const ask = (gateway: GatewayId): void => {
      const nowMs = clock.monoMs()
      if (nowMs - (askedAtMs.get(gateway) ?? Number.NEGATIVE_INFINITY) < WHO_MS_MIN) return
      askedAtMs.set(gateway, nowMs)
      sendWho(gateway)
    }

    const refuse = (gateway: GatewayId, stream: StreamName, because: Fault): void => {
      subscriber.next({ kind: 'refused', gateway, because: because.message })
      const count = refusals.tell(gateway)
      if (count > 0)
        record({
          kind: 'frame_refused',
          gateway,
          stream,
          code: because.code,
          because: because.message,
          count,
        })
    }

    const hello = (gateway: GatewayId, connection: string, payload: Buffer): void => {
      const parsed = parseHello(payload)
      const because = parsed.ok ? protocolMismatch(parsed.value) : parsed.because
      if (!parsed.ok || because !== undefined)
        return refuse(gateway, STREAM_EVENTS, fault('hello_malformed', { because }))
      const said = parsed.value
      const session: Session = {
        gateway,
        connection,
        streams: new Map(said.streams.map(each => [each.name, resume(gateway, each)])),
        waitingBytes: said.streams.reduce((sum, each) => sum + each.waitingBytes, 0),
        answers: said.connection,
      }
      sessions.set(gateway, session)
      credit.backlog(gateway, session.waitingBytes)
      const heads = said.streams.map(({ name, epoch, tail, head, waitingBytes }) => ({
        name,
        epoch,
        tail,
        head,
        waitingBytes,
      }))
      record({ kind: 'hello', gateway, connection, version: said.version, streams: heads })
      sendMarks(session)
    }

    const resume = (gateway: GatewayId, { name, epoch, origin, parent, tail, head }: HelloStream): Stream => {
      const place = { gateway, stream: name, epoch }
      const known = marks.get(placeKey(place))
      if (known === undefined && epochs.get(`${gateway}\0${name}`) !== epoch) {
        record({
          kind: 'epoch_began',
          ...place,
          origin: origin.offset,
          ...(parent === undefined ? {} : { parent }),
        })
        if (parent !== undefined) {
          const held = marks.get(placeKey({ gateway, stream: name, epoch: parent }))
          record({ kind: 'forked', ...place, parent, at: origin.offset, held: held?.offset ?? origin.offset })
        }
      }
      epochs.set(`${gateway}\0${name}`, epoch)
      const at = known ?? origin
      if (at.offset < tail - 1)
        record({ kind: 'mark_behind_tail', ...place, mark: at.offset, tail, chain: at.chain })
      const running = streams.get(placeKey(place))
      if (running !== undefined) {
        running.head = head
        running.assembler = openAssembler()
        return running
      }
      const stream: Stream = { ...place, head, received: at, durable: at, assembler: openAssembler() }
      streams.set(placeKey(place), stream)
      return stream
    }

    const frames = (gateway: GatewayId, connection: string, name: StreamName, payload: Buffer): void => {
      const session = sessions.get(gateway)
      const stream = session?.streams.get(name)
      if (session === undefined || stream === undefined || session.connection !== connection)
        return ask(gateway)
      let whole: readonly Buffer[]
      try {
        whole = stream.assembler.add(unpack(payload))
      } catch (thrown) {
        if (!(thrown instanceof FrameError)) throw thrown
        return refuse(gateway, name, fault('frame_malformed', { because: thrown.message }))
      }
      if (whole.length > 0) batches.get(classOf(name))?.add(batch => take(session, stream, whole, batch))
    }

    const take = (session: Session, stream: Stream, whole: readonly Buffer[], batch: Batch): void => {
      const { gateway } = session
      let duplicates = 0
      for (const bytes of whole) {
        const outcome = receiveFrame(bytes, stream)
        if (outcome.kind === 'duplicate') {
          duplicates += 1
          continue
        }
        if (outcome.kind !== 'taken') {
          if (outcome.kind === 'refused') refuse(gateway, stream.stream, fault(outcome.code, outcome.facts))
          ask(gateway)
          break // What follows is out of place as well.
        }
        stream.received = outcome.position
        session.waitingBytes = Math.max(0, session.waitingBytes - bytes.length)
        batch.bodies.push({ kind: 'frame', gateway, frame: outcome.frame })
        batch.moved.set(stream, outcome.position)
      }
      if (duplicates === 0) return
      subscriber.next({ kind: 'duplicates', gateway, count: duplicates })
      record({
        kind: 'duplicates_dropped',
        gateway,
        stream: stream.stream,
        epoch: stream.epoch,
        count: duplicates,
      })
    }

    const disconnected = (gateway: GatewayId, connection: string, because: string): void => {
      const session = sessions.get(gateway)
      if (session?.connection === connection) {
        sessions.delete(gateway)
        credit.gone(gateway)
        for (const stream of session.streams.values()) forget(stream)
      }
      record({ kind: 'disconnected', gateway, connection, because })
    }

    const handle = (message: Uplink): void => {
      switch (message.kind) {
        case 'hello':
          return hello(message.gateway, message.connection, message.payload)
        case 'export':
          return frames(message.gateway, message.connection, message.stream, message.payload)
        case 'connected':
          return record({
            kind: 'connected',
            gateway: message.gateway,
            connection: message.connection,
            address: message.address,
          })
        case 'disconnected':
          return disconnected(message.gateway, message.connection, message.because)
      }
    }

    for (const logClass of ['data', 'events'] as const) {
      subscriber.add(
        openBatches({ log, class: logClass, committed: committed(logClass), failed }).subscribe(opened =>
          batches.set(logClass, opened),
        ),
      )
    }
    subscriber.add(
      interval(MARK_REPEAT_MS, clock.scheduler).subscribe(() => {
        for (const session of sessions.values()) if (isBehind(session)) sendMarks(session)
      }),
    )
    subscriber.add(
      uplink$.subscribe({
        next: message => {
          try {
            handle(message)
          } catch (thrown) {
            subscriber.error(thrown)
          }
        },
        error: thrown => subscriber.error(thrown),
        complete: () => subscriber.complete(),
      }),
    )
  })

const protocolMismatch = ({ protocol }: Hello): string | undefined =>
  protocol === PROTOCOL_VERSION ? undefined : `protocol ${protocol}, this cloud speaks ${PROTOCOL_VERSION}`

export const classOf = (stream: StreamName): LogClass => (stream === STREAM_EVENTS ? 'events' : 'data')
