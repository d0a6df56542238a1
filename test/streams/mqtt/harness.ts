// A broker and links for these tests: real sockets on loopback, the machine's clock.

import { filter, firstValueFrom, map, type Observable, of, type Subscription, timeout } from 'rxjs'
import type { BrokerRules, BrokerState, Received } from '../../../streams/mqtt/broker.ts'
import { type LinkOptions, type MqttLink, openLink } from '../../../streams/mqtt/client.ts'
import { type BrokerOptions, type EmbeddedBroker, openBroker } from '../../../streams/mqtt/embedded.ts'
import type { LinkState, Outgoing } from '../../../streams/mqtt/link.ts'
import type { Listener } from '../../../streams/mqtt/listener.ts'
import { systemClock, systemRandom } from '../../../streams/run/clock.ts'

export const clock = systemClock()
export const random = systemRandom
export const plainAt = (port = 0): Listener => ({ kind: 'plain', host: '127.0.0.1', port })

export interface OpenBroker {
  readonly broker: EmbeddedBroker
  readonly port: number
  readonly states: BrokerState[]
  /** The first state, past or coming, that fits. */
  state<K extends BrokerState['kind']>(
    kind: K,
    fits?: (state: Extract<BrokerState, { kind: K }>) => boolean,
  ): Promise<Extract<BrokerState, { kind: K }>>
  stop(): void
}

export const startBroker = async (
  listener: Listener,
  rules: Partial<BrokerRules> = {},
  options: Partial<BrokerOptions> = {},
): Promise<OpenBroker> => {
  const broker = openBroker({
    listeners: [listener],
    clock,
    random,
    rules: {
      connect: () => of({ kind: 'allow' }),
      refusePublish: () => undefined,
      refuseSubscribe: () => undefined,
      take: (_, done) => done(),
      routing: 'forward',
      ...rules,
    },
    ...options,
  })
  const states: BrokerState[] = []
  const listeners = new Set<() => void>()
  let failure: unknown
  const running = broker.run$.subscribe({
    next: state => {
      states.push(state)
      for (const listener of [...listeners]) listener()
    },
    error: thrown => {
      failure = thrown
      for (const listener of [...listeners]) listener()
    },
  })
  const state = <K extends BrokerState['kind']>(
    kind: K,
    fits: (state: Extract<BrokerState, { kind: K }>) => boolean = () => true,
  ) =>
    new Promise<Extract<BrokerState, { kind: K }>>((resolve, reject) => {
      const overdue = setTimeout(
        () => reject(new Error(`no state ${kind} in ${JSON.stringify(states)}`)),
        10_000,
      )
      const look = () => {
        if (failure !== undefined) {
          clearTimeout(overdue)
          reject(failure)
        }
        for (const candidate of states)
          if (is(candidate, kind) && fits(candidate)) {
            clearTimeout(overdue)
            listeners.delete(look)
            resolve(candidate)
            return
          }
      }
      listeners.add(look)
      look()
    })
  const { port } = await state('listening')
  return { broker, port, states, state, stop: () => running.unsubscribe() }
}

const is = <K extends BrokerState['kind']>(
  state: BrokerState,
  kind: K,
): state is Extract<BrokerState, { kind: K }> => state.kind === kind

export interface OpenLink {
  readonly link: MqttLink
  readonly states: LinkState[]
  readonly running: Subscription
  stop(): void
}

export const startLink = (port: number, options: Partial<LinkOptions> = {}): OpenLink => {
  const link = openLink({
    address: { host: '127.0.0.1', port },
    tls: 'plain',
    clientId: 'g1',
    clock,
    random,
    retry: { firstWaitMsMax: 50 },
    ...options,
  })
  const states: LinkState[] = []
  const running = link.state$.subscribe(state => states.push(state))
  return { link, states, running, stop: () => running.unsubscribe() }
}

export const stateOf = <K extends LinkState['kind']>(
  link: MqttLink,
  kind: K,
): Promise<Extract<LinkState, { kind: K }>> =>
  firstValueFrom(
    link.state$.pipe(
      filter((state): state is Extract<LinkState, { kind: K }> => state.kind === kind),
      timeout(10_000),
    ),
  )

/** Resolves on completion, with the fault's message on an error. */
export const outcome = (done$: Observable<never>): Promise<string> =>
  new Promise(resolve => {
    done$.subscribe({
      complete: () => resolve('done'),
      error: thrown => resolve(String(thrown.code ?? thrown)),
    })
  })

export const message = (
  topic: string,
  payload: string | Buffer = 'x',
  rest: Partial<Outgoing> = {},
): Outgoing => ({
  topic,
  payload: Buffer.from(payload),
  qos: 1,
  lane: 'live',
  ...rest,
})

export const until = async (holds: () => boolean, what = 'condition', withinMs = 10_000): Promise<void> => {
  const endMs = performance.now() + withinMs
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`not in time: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}
export const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms))

export const textOf = ({ topic, payload }: Pick<Received, 'topic' | 'payload'>) =>
  `${topic} ${payload.toString()}`
export { map }
