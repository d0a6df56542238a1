// One live socket: events of the cloud in their order, and latest values as they change.
//
//   events   are read from the log by credit that the socket's own writes return: a slow socket gets them later, all
//            of them, and holds at most EVENTS_IN_FLIGHT_MAX
//   values   are dropped while more than BUFFERED_BYTES_MAX wait, since newer ones follow; then the socket is told
//            `behind`, with how many it missed and the cursor of its events
//   silence  a socket that answers no ping is closed; its cursor is where it goes on

import { interval, Observable, Subject } from 'rxjs'
import type { WebSocket } from 'ws'
import { eventBody, eventCursor } from './routes/events.ts'
import { valueBody } from './routes/views.ts'
import type { RouteContext } from './scope.ts'

export const EVENTS_IN_FLIGHT_MAX = 64
export const BUFFERED_BYTES_MAX = 1024 * 1024
const PING_EVERY_MS = 15_000
/** WebSocket close code "try again later" (IANA registry). */
const CLOSE_BEHIND = 1013
const CLOSE_GOING_AWAY = 1001

export interface LiveOptions {
  readonly socket: WebSocket
  /** Seq behind which events start. */
  readonly after: number
  readonly context: Pick<RouteContext, 'reader' | 'views' | 'clock' | 'stop$'>
}

/** Serves until the socket closes. Errors: those of the reader. */
export const serveLive = ({
  socket,
  after,
  context: { reader, views, clock, stop$ },
}: LiveOptions): Observable<never> =>
  new Observable(subscriber => {
    const credit$ = new Subject<number>()
    let sent = after
    let dropped = 0
    let answered = true

    const send = (message: object, done?: () => void) => {
      if (socket.readyState === socket.OPEN)
        socket.send(JSON.stringify(message), thrown => (thrown ? undefined : done?.()))
    }
    const tellDropped = () => {
      if (dropped === 0 || socket.bufferedAmount > BUFFERED_BYTES_MAX) return
      send({ type: 'behind', cursor: eventCursor(sent), dropped })
      dropped = 0
    }
    const close = (code: number) => {
      socket.close(code)
      subscriber.complete()
    }

    socket.on('close', () => subscriber.complete())
    socket.on('error', () => subscriber.complete())
    socket.on('pong', () => {
      answered = true
    })
    send({ type: 'start', cursor: eventCursor(after) })
    subscriber.add(
      reader.replay({ class: 'events', after, demand$: credit$, atHead: 'follow' }).subscribe({
        next: entry => {
          sent = entry.seq
          if (entry.kind === 'event') send({ type: 'event', ...eventBody(entry) }, () => credit$.next(1))
          else credit$.next(1)
        },
        error: thrown => subscriber.error(thrown),
      }),
    )
    credit$.next(EVENTS_IN_FLIGHT_MAX)
    subscriber.add(
      views.latest$.subscribe(changes => {
        tellDropped()
        if (dropped > 0 || socket.bufferedAmount > BUFFERED_BYTES_MAX) dropped += changes.length
        else send({ type: 'latest', changes: changes.map(valueBody) })
      }),
    )
    subscriber.add(
      interval(PING_EVERY_MS, clock.scheduler).subscribe(() => {
        tellDropped()
        if (!answered) {
          send({ type: 'behind', cursor: eventCursor(sent), dropped })
          close(CLOSE_BEHIND)
          return socket.terminate()
        }
        answered = false
        socket.ping()
      }),
    )
    subscriber.add(stop$.subscribe(() => close(CLOSE_GOING_AWAY)))
  })
