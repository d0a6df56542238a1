// SUBSCRIBE and UNSUBSCRIBE of clients that keep their session: durable before they are answered.
//
//   one row      a session's subscriptions are written as one list, so one request follows the other
//   told after   a message is queued for a filter only once that filter is durable

import type { Qos } from '../../schemas/records.ts'
import type { AedesClient, Filter } from './aedes.ts'
import type { Kept, Session } from './kept.ts'
import type { Saver } from './saver.ts'
import type { MemoryChange, SessionLimits } from './session.ts'

export interface Subscribing {
  /** Errors, which close the connection: those of the memory's save, and too many subscriptions. */
  add(client: AedesClient, filters: readonly Filter[]): Promise<void>
  remove(client: AedesClient, filters: readonly string[]): Promise<void>
}

export interface SubscribingOptions {
  readonly kept: Kept
  readonly saver: Saver
  readonly limits: SessionLimits
  readonly subscriptionsMax: number
  readonly maySubscribe: (client: AedesClient, filter: string) => boolean
}

export const openSubscribing = (options: SubscribingOptions): Subscribing => {
  const { kept, saver, limits } = options
  const asking = new WeakMap<readonly Filter[], Promise<void>>()
  const turns = new WeakMap<AedesClient, Promise<void>>()
  /** One after the other: each writes the whole list. */
  const inTurn = (client: AedesClient, act: () => Promise<void>): Promise<void> => {
    const turn = (turns.get(client) ?? Promise.resolve()).then(act)
    turns.set(
      client,
      turn.catch(() => undefined),
    )
    return turn
  }
  const subscribe = async (client: AedesClient, given: readonly Filter[]): Promise<void> => {
    // aedes also brings those that were refused.
    const filters = given.filter(({ topic }) => options.maySubscribe(client, topic))
    const known = kept.of(client.id)
    const begun = known === undefined ? kept.begin(client) : { session: known, evicted: [] }
    if (begun === undefined) throw new Error(`more than ${limits.sessionsMax} sessions`)
    const { session, evicted } = begun
    const wanted = new Map(session.subscriptions)
    for (const { topic, qos } of filters) wanted.set(topic, qosOf(qos))
    if (wanted.size > options.subscriptionsMax)
      throw new Error(`more than ${options.subscriptionsMax} subscriptions`)
    const isNew = [...wanted].some(([topic, qos]) => session.subscriptions.get(topic) !== qos)
    if (!isNew) return saver.save(evicted)
    await saver.save([...evicted, sessionChange(session, wanted)])
    if (kept.of(client.id) === session) for (const [topic, qos] of wanted) kept.addFilter(session, topic, qos)
    // It left while this was being saved: that row came later, and without these.
    if (session.present !== client) saver.noteSession(client.id)
  }
  const unsubscribe = async (client: AedesClient, filters: readonly string[]): Promise<void> => {
    const session = kept.of(client.id)
    if (session === undefined) return
    const rest = new Map(session.subscriptions)
    for (const filter of filters) rest.delete(filter)
    await saver.save([sessionChange(session, rest)])
    for (const filter of filters) kept.dropFilter(session, filter)
    if (session.present !== client) saver.noteSession(client.id)
  }

  return {
    add: (client, filters) => {
      // aedes comes once for each filter, each time with all of them.
      const asked = asking.get(filters) ?? inTurn(client, () => subscribe(client, filters))
      asking.set(filters, asked)
      return asked
    },
    remove: (client, filters) => inTurn(client, () => unsubscribe(client, filters)),
  }
}

const qosOf = (qos: number): Qos => (qos === 2 ? 2 : qos === 1 ? 1 : 0)

const sessionChange = (
  { clientId, left }: Session,
  subscriptions: ReadonlyMap<string, Qos>,
): MemoryChange => ({
  kind: 'session',
  clientId,
  session: { clientId, left, subscriptions: [...subscriptions].map(([topic, qos]) => ({ topic, qos })) },
})
