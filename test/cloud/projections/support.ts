// Folds given entries with one projection, in memory, and hands back its view.

import type { CloudEvent } from '../../../schemas/events.ts'
import { mount } from '../../../streams/fold/member.ts'
import type { Projection, View } from '../../../streams/fold/projection.ts'
import type { CloudBody, LogClass } from '../../../streams/log/cloudlog.ts'

export const START_MS = 1_750_000_000_000

export interface Given {
  readonly class?: LogClass
  readonly body: CloudBody
  readonly atMs?: number
}

export const event = (happened: CloudEvent, atMs = START_MS): Given => ({
  class: 'events',
  body: { kind: 'event', event: happened },
  atMs,
})
export const data = (body: CloudBody, atMs = START_MS): Given => ({ class: 'data', body, atMs })

/** `firstSeq`: where the log begins. */
export const folded = <V>(projection: Projection<V>, given: readonly Given[], firstSeq = 1): View<V> => {
  const member = mount(projection)
  const seqs: Record<LogClass, number> = { data: firstSeq, events: firstSeq, audit: firstSeq }
  for (const { class: logClass = 'data', body, atMs = START_MS } of given) {
    member.apply([{ ...body, seq: seqs[logClass]++, receivedAtMs: atMs }], logClass)
  }
  // Through the store and back, as a restart does.
  const again = mount(projection)
  for (const { key, value } of member.takeWrites()) if (value !== undefined) again.load(key, value)
  return again.view
}
