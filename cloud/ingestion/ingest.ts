// Gateways' frames into the cloud's log, and marks back.
//
//   order     a frame is taken only behind the one before it, by offset and by chain
//   durable   a mark is sent only after the commit that holds the frames and the mark itself
//   once      duplicates are dropped by epoch and offset, and counted
//   bounded   what waits for a commit is within the credit that was given; who sends far more is disconnected
//
// While the log cannot take frames (a full disk), gateways keep theirs: they get no credit until it is tried again.

import { interval, Observable } from 'rxjs'
import { unpack } from '../../schemas/bundle.ts'
import type { CloudEvent } from '../../schemas/events.ts'
import { FRAME_BYTES_MAX, FrameError } from '../../schemas/frame.ts'
import { type Hello, type HelloStream, PROTOCOL_VERSION, parseHello } from '../../schemas/hello.ts'
import { type GatewayId, STREAM_EVENTS, type StreamName } from '../../schemas/ids.ts'
import type { LogClass } from '../../streams/log/cloudlog.ts'
import { type Fault, fault, isFatal, reasonOf } from '../../streams/run/fault.ts'
import type { Uplink } from '../context.ts'
import { openAnswers } from './answers.ts'
import { openAssembler } from './assemble.ts'
import { type Batch, type Batches, type Held, openBatches } from './batches.ts'
import { counted } from './counted.ts'
import { CREDIT_LIMITS, openCredit } from './credit.ts'
import { openGate } from './gate.ts'
import type { IngestionNotice, IngestionPorts } from './ports.ts'
import { openPositions, placeKey } from './positions.ts'
import { receiveFrame } from './receive.ts'
import { isBehind, type Session, type Stream } from './session.ts'

/** A mark is cumulative and may be lost: it is said again this often while something is unmarked. */
const MARK_REPEAT_MS = 5_000
/** A hello need not be said more often on one connection. */
const HELLO_MS_MIN = 500
const PRESENCE: ReadonlySet<CloudEvent['kind']> = new Set(['connected', 'disconnected', 'hello'])
/** How long a gateway that used half its credit between two marks counts as having a backlog. */
const BUSY_MS = 5_000

/** Runs while subscribed. Errors: only what is fatal (log_unreadable and defects). */
export const ingest = ({
  log,
  clock,
  uplink$,
  sendMark,
  sendWho,
  close,
  opening,
  credit: limits = CREDIT_LIMITS,
}: IngestionPorts): Observable<IngestionNotice> =>
  new Observable(subscriber => {
    const positions = openPositions(log.marks())
    const sessions = new Map<GatewayId, Session>()
    /** Outlives a session until its frames are durable: a gateway that returns meanwhile must not send them twice. */
    const streams = new Map<string, Stream>()
    const refusals = counted<GatewayId>(clock)
    const duplicates = counted<Stream>(clock)
    const batches = new Map<LogClass, Batches>()
    const credit = openCredit(limits, gateway => {
      const session = sessions.get(gateway)
      if (session !== undefined) answers.marks(session)
    })
    const gate = openGate(clock, () => {
      for (const session of sessions.values()) {
        if (session.lost) answers.ask(session.gateway)
        else answers.marks(session)
      }
    })
    const answers = openAnswers({ clock, creditOf: credit.of, isBlocked: gate.isClosed, sendMark, sendWho })

    // A fork goes to disk at once, ahead of the first frame of its epoch; who came and went has time.
    const record = (event: CloudEvent): void =>
      batches
        .get('events')
        ?.add(
          ({ bodies }) => bodies.push({ kind: 'event', event }),
          PRESENCE.has(event.kind) ? 'wait' : 'now',
        )

    const committed =
      (logClass: LogClass) =>
      ({ bodies, moved }: Batch): void => {
        const touched = new Map<Session, number>()
        let records = 0
        for (const [held, { position, bytes }] of moved) {
          records += position.offset - held.durable.offset
          held.durable = position
          positions.advance(held, position)
          const session = sessions.get(held.gateway)
          if (session === undefined) forget(held)
          else touched.set(session, (touched.get(session) ?? 0) + bytes)
        }
        for (const [session, bytes] of touched) {
          if ([...session.streams.values()].every(({ head, durable }) => durable.offset >= head))
            session.waitingBytes = 0
          session.unmarkedBytes = Math.max(0, session.unmarkedBytes - bytes)
          if (bytes * 2 >= credit.of(session.gateway)) session.busyUntilMs = clock.monoMs() + BUSY_MS
          measure(session)
          answers.marks(session)
        }
        if (records === 0) return
        gate.forgive()
        const bytes = bodies.reduce((sum, body) => sum + (body.kind === 'frame' ? body.frame.length : 0), 0)
        subscriber.next({ kind: 'durable', class: logClass, records, bytes })
      }

    /** Nothing of it is on disk, and what followed has lost its place: these gateways begin again with a hello. */
    const failed = (lost: readonly Batch[], thrown: unknown, eventsForgotten: number): void => {
      if (isFatal(thrown)) return subscriber.error(thrown)
      subscriber.next({ kind: 'commit_failed', because: reasonOf(thrown), eventsForgotten })
      const held = lost.flatMap(({ moved }) => [...moved.keys()])
      for (const each of held) {
        each.received = each.durable
        const session = sessions.get(each.gateway)
        if (session === undefined) forget(each)
        else session.lost = true
      }
      if (held.length > 0) block()
    }

    const block = (): void => {
      const forMs = gate.close()
      if (forMs === undefined) return
      subscriber.next({ kind: 'blocked', forMs })
      for (const session of sessions.values()) if (!session.lost) answers.marks(session)
    }

    const forget = (held: Held): void => {
      if (held.received.offset === held.durable.offset) streams.delete(placeKey(held))
    }

    const measure = ({ gateway, waitingBytes, busyUntilMs }: Session): void =>
      credit.present(gateway, waitingBytes > limits.baseBytes || clock.monoMs() < busyUntilMs)

    const refuse = (gateway: GatewayId, stream: StreamName, because: Fault): void => {
      subscriber.next({ kind: 'refused', gateway, because: because.message })
      const count = refusals.tell(gateway, 1)
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
      const before = sessions.get(gateway)
      const isRepeated = before?.connection === connection
      if (isRepeated && clock.monoMs() - before.saidAtMs < HELLO_MS_MIN) return
      const parsed = parseHello(payload)
      const because = parsed.ok ? protocolMismatch(parsed.value) : parsed.because
      if (!parsed.ok || because !== undefined)
        return refuse(gateway, STREAM_EVENTS, fault('hello_malformed', { because }))
      const said = parsed.value
      const session: Session = {
        gateway,
        connection,
        saidAtMs: clock.monoMs(),
        streams: new Map(said.streams.map(each => [each.name, resume(gateway, each)])),
        waitingBytes: said.streams.reduce((sum, each) => sum + each.waitingBytes, 0),
        unmarkedBytes: 0,
        busyUntilMs: 0,
        answers: said.connection,
        lost: false,
      }
      sessions.set(gateway, session)
      const named = new Set(session.streams.values())
      for (const stream of before?.streams.values() ?? []) if (!named.has(stream)) forget(stream)
      measure(session)
      if (!isRepeated) {
        const heads = said.streams.map(({ name, epoch, tail, head, waitingBytes }) => ({
          name,
          epoch,
          tail,
          head,
          waitingBytes,
        }))
        record({ kind: 'hello', gateway, connection, version: said.version, streams: heads })
      }
      answers.marks(session)
    }

    const resume = (gateway: GatewayId, said: HelloStream): Stream => {
      const place = { gateway, stream: said.name, epoch: said.epoch }
      const { at, news } = positions.resume(gateway, said)
      for (const event of news) record(event)
      const running = streams.get(placeKey(place))
      if (running !== undefined) {
        running.head = said.head
        running.assembler = openAssembler()
        return running
      }
      const stream: Stream = {
        ...place,
        head: said.head,
        received: at,
        durable: at,
        assembler: openAssembler(),
      }
      streams.set(placeKey(place), stream)
      return stream
    }

    const frames = (gateway: GatewayId, connection: string, name: StreamName, payload: Buffer): void => {
      const session = sessions.get(gateway)
      const stream = session?.streams.get(name)
      if (session === undefined || stream === undefined || session.lost || session.connection !== connection)
        return answers.ask(gateway)
      if (session.unmarkedBytes > 2 * limits.shareBytesMax + FRAME_BYTES_MAX) {
        session.lost = true
        return close(gateway, 'it sends more than its credit')
      }
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
      let repeated = 0
      for (const bytes of whole) {
        const outcome = receiveFrame(bytes, stream)
        if (outcome.kind === 'duplicate') {
          repeated += 1
          continue
        }
        if (outcome.kind !== 'taken') {
          if (outcome.kind === 'refused') refuse(gateway, stream.stream, fault(outcome.code, outcome.facts))
          answers.ask(gateway)
          break // What follows is out of place as well.
        }
        stream.received = outcome.position
        stream.head = Math.max(stream.head, outcome.position.offset)
        session.waitingBytes = Math.max(0, session.waitingBytes - bytes.length)
        session.unmarkedBytes += bytes.length
        batch.bodies.push({ kind: 'frame', gateway, frame: outcome.frame })
        batch.moved.set(stream, {
          position: outcome.position,
          bytes: (batch.moved.get(stream)?.bytes ?? 0) + bytes.length,
        })
      }
      if (repeated === 0) return
      subscriber.next({ kind: 'duplicates', gateway, count: repeated })
      tellDuplicates(stream, duplicates.tell(stream, repeated))
    }

    const tellDuplicates = ({ gateway, stream, epoch }: Stream, count: number): void => {
      if (count > 0) record({ kind: 'duplicates_dropped', gateway, stream, epoch, count })
    }

    const disconnected = (gateway: GatewayId, connection: string, because: string): void => {
      const session = sessions.get(gateway)
      if (session?.connection === connection) {
        sessions.delete(gateway)
        answers.forget(gateway)
        credit.gone(gateway)
        for (const stream of session.streams.values()) forget(stream)
      }
      record({ kind: 'disconnected', gateway, connection, because })
    }

    const handle = (message: Uplink): void => {
      const { gateway, connection } = message
      switch (message.kind) {
        case 'hello':
          return hello(gateway, connection, message.payload)
        case 'export':
          return frames(gateway, connection, message.stream, message.payload)
        case 'connected':
          return record({ kind: 'connected', gateway, connection, address: message.address })
        case 'disconnected':
          return disconnected(gateway, connection, message.because)
      }
    }

    const repeatMarks = (): void => {
      for (const session of sessions.values()) {
        measure(session)
        if (isBehind(session)) answers.marks(session)
      }
      for (const { key, count } of duplicates.rest()) tellDuplicates(key, count)
    }

    for (const logClass of ['data', 'events'] as const) {
      subscriber.add(
        openBatches({ log, clock, class: logClass, committed: committed(logClass), failed }).subscribe(
          opened => batches.set(logClass, opened),
        ),
      )
    }
    if (opening !== undefined) record(opening)
    subscriber.add(interval(MARK_REPEAT_MS, clock.scheduler).subscribe(repeatMarks))
    subscriber.add(gate.held)
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
