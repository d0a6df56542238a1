// What goes down one client's connection: lanes, packet ids and who waits for a PUBACK.
//
// PUBLISH packets are written whole and in one turn, so they never mix with what aedes writes itself.

import type { Socket } from 'node:net'
import { Observable, type Subscriber } from 'rxjs'
import { type Fault, fault } from '../run/fault.ts'
import type { Outgoing } from './link.ts'
import { publishHead } from './packets.ts'
import { LANE_LIMITS, type LaneLimits, laneScheduler } from './scheduler.ts'

/** Unacknowledged QoS 1 messages to one client: an id and a callback each, the payloads are gone. */
export const IN_FLIGHT_MAX = 16_384

export interface Sendable extends Outgoing {
  readonly retain?: boolean
}

interface Sent {
  readonly message: Sendable
  readonly settle: (error?: Fault) => void
  isQueued: boolean
}

export interface Downlink {
  /** See `Broker.send`. */
  send(message: Outgoing): Observable<never>
  /** Fire and forget, for subscribers. False: no room. */
  offer(message: Sendable): boolean
  /** False: no such id waits. */
  acknowledged(messageId: number): boolean
  queuedBytes(): number
  close(): void
}

export const openDownlink = (
  socket: Socket,
  address: string,
  allocateId: () => number,
  limits: LaneLimits = LANE_LIMITS,
): Downlink => {
  const inFlight = new Map<number, Sent['settle']>()

  const freeId = (): number => {
    for (;;) {
      const id = allocateId()
      if (!inFlight.has(id)) return id
    }
  }
  const write = (sent: Sent) => {
    const { message } = sent
    const messageId = message.qos === 1 ? freeId() : 0
    sent.isQueued = false
    socket.cork()
    socket.write(publishHead({ ...message, messageId }))
    if (message.payload.length > 0) socket.write(message.payload)
    socket.uncork()
    if (message.qos === 1) inFlight.set(messageId, sent.settle)
    else sent.settle()
  }
  const lanes = laneScheduler<Sent>({ write, writableLength: () => socket.writableLength }, limits)
  socket.on('drain', lanes.resume)

  const offer = (sent: Sent): boolean => {
    const { topic, payload, qos, lane } = sent.message
    if (qos === 1 && inFlight.size >= IN_FLIGHT_MAX) return false
    return lanes.offer(lane, topic.length + payload.length, sent)
  }

  return {
    send: message =>
      new Observable<never>((subscriber: Subscriber<never>) => {
        const settle = (error?: Fault) =>
          error === undefined ? subscriber.complete() : subscriber.error(error)
        const sent: Sent = { message, settle, isQueued: true }
        if (!offer(sent)) subscriber.error(fault('lane_full', { lane: message.lane, address }))
        return () => {
          if (sent.isQueued) lanes.withdraw(message.lane, sent)
        }
      }),
    offer: message => offer({ message, settle: () => undefined, isQueued: true }),
    acknowledged: messageId => {
      const settle = inFlight.get(messageId)
      inFlight.delete(messageId)
      settle?.()
      return settle !== undefined
    },
    queuedBytes: () => Object.values(lanes.stats().queuedBytes).reduce((sum, bytes) => sum + bytes, 0),
    close: () => {
      socket.off('drain', lanes.resume)
      const lost = [...lanes.close().map(sent => sent.settle), ...inFlight.values()]
      inFlight.clear()
      for (const settle of lost) settle(fault('link_lost', { address, because: 'the client disconnected' }))
    },
  }
}
