// An MQTT broker that is there already, as the source: subscribed with QoS 1 or 2, acknowledged when durable.
//
// mqtt.js acknowledges one message at a time, each behind the one before; with a durable commit for each that is
// 2,000 a second. This client reads on while commits run: the broker's own window (Mosquitto: 20) is the limit.

import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { generate, type IPublishPacket, type Packet, parser } from 'mqtt-packet'
import { interval, merge, Observable, type Subscriber, switchMap, takeUntil } from 'rxjs'
import { type Address, addressOf, formatAddress } from '../../schemas/address.ts'
import type { EdgeSettings } from '../../schemas/config.ts'
import { isReservedLocal } from '../../schemas/topics.ts'
import { fault, reasonOf } from '../../streams/run/fault.ts'
import type { Concern, Notice } from '../../streams/run/supervise.ts'
import type { EdgeContext } from '../context.ts'
import { openHeldIds } from './held.ts'
import { type Intakes, openIntakes } from './intakes.ts'

type SouthBroker = NonNullable<EdgeSettings['local']['broker']>

const KEEP_ALIVE_S = 30
const CONNECT_WAIT_MS_MAX = 10_000

export const foreignBroker: Concern<EdgeContext> = {
  name: 'ingest',
  run: context => {
    const { settings, clock, streams, stop$ } = context
    const { broker } = settings.local
    if (broker === undefined) throw new Error('no broker is configured')
    const intakes = openIntakes({
      streams,
      clock,
      routes: settings.routes,
      sealWaitMsMax: settings.seal.waitMsMax,
    })
    return merge(intakes.run$, consume(context, broker, intakes)).pipe(
      takeUntil(stop$.pipe(switchMap(() => intakes.close()))),
    )
  },
}

/** One connection; its end is link_lost, and the concern's supervisor begins again. */
const consume = (context: EdgeContext, broker: SouthBroker, intakes: Intakes): Observable<Notice> =>
  new Observable(subscriber => {
    const address = addressOf(broker.address)
    const socket = connect({ ...address, noDelay: true })
    const session = openSession(context, broker, intakes, socket, subscriber)
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

const lost = (address: Address, because: string): Error =>
  fault('link_lost', { address: formatAddress(address), because })

const openSession = (
  context: EdgeContext,
  broker: SouthBroker,
  intakes: Intakes,
  socket: Socket,
  subscriber: Subscriber<Notice>,
) => {
  const { clientId, filters, qos, username, passwordFile } = broker
  const held = openHeldIds(context.streams)
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
    const alongside = taken === 2 ? [held.write(clientId, messageId)] : undefined
    intakes.take({ topic, payload: bytes, qos: taken, retain }, alongside, error => {
      // Unacknowledged, it comes again with the next connection.
      if (error !== undefined)
        return subscriber.error(fault('link_lost', { address: broker.address, because: error.message }))
      if (taken === 2) held.noteHeld(clientId, messageId)
      acknowledge()
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

  return {
    greet: (): void => {
      // A session that the broker keeps: what it could not deliver while we were away comes then.
      const password =
        passwordFile === undefined ? undefined : Buffer.from(readFileSync(passwordFile, 'utf8').trim())
      send({
        cmd: 'connect',
        protocolId: 'MQTT',
        protocolVersion: 4,
        clientId,
        clean: false,
        keepalive: KEEP_ALIVE_S,
        ...(username === undefined ? {} : { username }),
        ...(password === undefined ? {} : { password }),
      })
    },
    ping: (): void => send({ cmd: 'pingreq' }),
    receive: (packet: Packet): void => {
      switch (packet.cmd) {
        case 'connack':
          if (packet.returnCode !== 0)
            return subscriber.error(
              fault('link_refused', {
                address: broker.address,
                because: `CONNACK code ${packet.returnCode}`,
              }),
            )
          socket.setTimeout(KEEP_ALIVE_S * 1_500)
          return send({
            cmd: 'subscribe',
            messageId: 1,
            subscriptions: filters.map(topic => ({ topic, qos })),
          })
        case 'suback':
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
