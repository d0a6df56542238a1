// An MQTT broker that is there already, as the source: subscribed with QoS 1 or 2, acknowledged when durable.
//
// mqtt.js acknowledges one message at a time, each behind the one before; with a durable commit for each that is
// 2,000 a second. This client reads on while commits run: the broker's own window (Mosquitto: 20) is the limit.

import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { generate, type IPublishPacket, type Packet, parser } from 'mqtt-packet'
import {
  catchError,
  concat,
  ignoreElements,
  interval,
  merge,
  Observable,
  of,
  type Subscriber,
  switchMap,
  takeUntil,
  timer,
} from 'rxjs'
import { type Address, addressOf, formatAddress } from '../../schemas/address.ts'
import type { EdgeSettings } from '../../schemas/config.ts'
import { RECORD_BYTES_MAX } from '../../schemas/frame.ts'
import { isReservedLocal } from '../../schemas/topics.ts'
import { fault, isFatal, isFault, reasonOf } from '../../streams/run/fault.ts'
import type { Concern, Notice } from '../../streams/run/supervise.ts'
import type { EdgeContext } from '../context.ts'
import { type HeldIds, openHeldIds } from './held.ts'
import { type Intakes, openIntakes } from './intakes.ts'

type SouthBroker = NonNullable<EdgeSettings['local']['broker']>

const KEEP_ALIVE_S = 30
const CONNECT_WAIT_MS_MAX = 10_000
const SUBSCRIPTION_REFUSED = 0x80

/** Waits between connections: uniform up to this, so that edges do not come back to a broker all at once. */
const RECONNECT_MS_MAX = 2_000

export const foreignBroker: Concern<EdgeContext> = {
  name: 'ingest',
  run: context => {
    const { settings, clock, random, streams, stop$ } = context
    const { broker } = settings.local
    if (broker === undefined) throw new Error('no broker is configured')
    // Kept over connections: an append of the last one may still be on its way to disk.
    const intakes = openIntakes({
      streams,
      clock,
      routes: settings.routes,
      sealWaitMsMax: settings.seal.waitMsMax,
      sealSpacingMs: settings.seal.spacingMs,
    })
    const source: Source = { context, broker, intakes, held: openHeldIds(streams), taking: new Map() }
    const connections$ = consume(source).pipe(
      catchError((thrown: unknown, again) => {
        if (isFatal(thrown)) throw thrown
        const wait$ = timer(random.unit() * RECONNECT_MS_MAX, clock.scheduler)
        const told: Notice = { kind: 'rejected', what: 'connection', reason: reasonOf(thrown) }
        return concat(of(told), wait$.pipe(ignoreElements()), again)
      }),
    )
    return merge(intakes.run$, connections$).pipe(takeUntil(stop$.pipe(switchMap(() => intakes.close()))))
  },
}

interface Source {
  readonly context: EdgeContext
  readonly broker: SouthBroker
  readonly intakes: Intakes
  readonly held: HeldIds
  /** By packet id: what is on its way to disk, or waits for room there, and whom it is owed to by now. */
  readonly taking: Map<number, { answer: (error?: Error) => void }>
}

/** One connection; its end is link_lost. */
const consume = (source: Source): Observable<Notice> =>
  new Observable(subscriber => {
    const { context, broker } = source
    const address = addressOf(broker.address)
    const socket = connect({ ...address, noDelay: true })
    const session = openSession(source, passwordOf(broker), socket, subscriber)
    const incoming = parser({ protocolVersion: 4 })
    incoming.on('packet', session.receive)
    incoming.on('error', (thrown: Error) =>
      subscriber.error(lost(address, `it sent no MQTT: ${thrown.message}`)),
    )
    socket.setTimeout(CONNECT_WAIT_MS_MAX)
    socket.on('connect', session.greet)
    socket.on('data', chunk => incoming.parse(chunk))
    socket.on('timeout', () => subscriber.error(lost(address, 'it is silent')))
    socket.on('error', thrown => subscriber.error(lost(address, reasonOf(thrown))))
    socket.on('close', () => subscriber.error(lost(address, 'it closed the connection')))
    subscriber.add(
      interval((KEEP_ALIVE_S * 1_000) / 2, context.clock.scheduler).subscribe(() => session.ping()),
    )
    return () => socket.destroy()
  })

/** Read at each connection, so that a changed file counts. Errors: config_invalid. */
const passwordOf = ({ passwordFile }: SouthBroker): Buffer | undefined => {
  if (passwordFile === undefined) return undefined
  try {
    return Buffer.from(readFileSync(passwordFile, 'utf8').trim())
  } catch (thrown) {
    const because = `local.broker.passwordFile cannot be read (${reasonOf(thrown)}): mend the path or its rights`
    throw fault('config_invalid', { file: passwordFile, because }, thrown)
  }
}

const lost = (address: Address, because: string): Error =>
  fault('link_lost', { address: formatAddress(address), because })

const openSession = (
  { broker, intakes, held, taking }: Source,
  password: Buffer | undefined,
  socket: Socket,
  subscriber: Subscriber<Notice>,
) => {
  const { clientId, filters, qos, username } = broker
  const send = (packet: Packet): void => {
    if (socket.writable) socket.write(generate(packet))
  }

  const publish = ({ topic, payload, qos: taken, retain, dup, messageId = 0 }: IPublishPacket): void => {
    const acknowledge = (): void => {
      if (taken === 1) send({ cmd: 'puback', messageId })
      if (taken === 2) send({ cmd: 'pubrec', messageId })
    }
    if (isReservedLocal(topic)) return acknowledge()
    if (taken === 2 && dup && held.has(clientId, messageId)) return acknowledge()
    const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload
    if (bytes.length + topic.length > RECORD_BYTES_MAX) {
      // Unacknowledged, it would come again for ever and stop what is behind it.
      const tooLarge = fault('record_too_large', {
        bytes: bytes.length + topic.length,
        bytesMax: RECORD_BYTES_MAX,
      })
      subscriber.next({ kind: 'rejected', what: 'record', reason: `${topic}: ${tooLarge.message}` })
      return acknowledge()
    }
    const answer = (error?: Error): void => {
      // Unacknowledged, it comes again: at stop with the next start, else with the next connection.
      if (isFault(error) && error.code === 'log_closed') return
      if (error !== undefined) return subscriber.error(lost(addressOf(broker.address), error.message))
      acknowledge()
    }
    const before = dup && taken > 0 ? taking.get(messageId) : undefined
    if (before !== undefined) {
      // It came over a connection that was lost: taken once, and owed to this one now.
      before.answer = answer
      return
    }
    const own = { answer }
    if (taken > 0) taking.set(messageId, own)
    const alongside = taken === 2 ? [held.write(clientId, messageId)] : undefined
    intakes.take({ topic, payload: bytes, qos: taken, retain }, alongside, error => {
      if (taking.get(messageId) === own) taking.delete(messageId)
      if (error === undefined && taken === 2) held.noteHeld(clientId, messageId)
      own.answer(error)
    })
  }

  const release = (messageId: number): void => {
    subscriber.add(
      held.release(clientId, messageId).subscribe({
        complete: () => send({ cmd: 'pubcomp', messageId }),
        error: thrown => subscriber.error(thrown),
      }),
    )
  }

  const refused = (because: string): void =>
    subscriber.error(fault('link_refused', { address: broker.address, because }))

  return {
    // A session that the broker keeps: what it could not deliver while we were away comes then.
    greet: (): void =>
      send({
        cmd: 'connect',
        protocolId: 'MQTT',
        protocolVersion: 4,
        clientId,
        clean: false,
        keepalive: KEEP_ALIVE_S,
        ...(username === undefined ? {} : { username }),
        ...(password === undefined ? {} : { password }),
      }),
    ping: (): void => send({ cmd: 'pingreq' }),
    receive: (packet: Packet): void => {
      switch (packet.cmd) {
        case 'connack':
          if (packet.returnCode !== 0) return refused(`CONNACK code ${packet.returnCode}`)
          socket.setTimeout(KEEP_ALIVE_S * 1_500)
          return send({
            cmd: 'subscribe',
            messageId: 1,
            subscriptions: filters.map(topic => ({ topic, qos })),
          })
        case 'suback':
          if (packet.granted.some(granted => granted === SUBSCRIPTION_REFUSED))
            return refused(`it does not grant ${filters.join(', ')}`)
          return subscriber.next({
            kind: 'state',
            what: 'subscribed',
            facts: { address: broker.address, filters },
          })
        case 'publish':
          return publish(packet)
        case 'pubrel':
          return release(packet.messageId ?? 0)
        default:
          return undefined
      }
    },
  }
}
