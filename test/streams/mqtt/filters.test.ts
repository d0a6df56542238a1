// The tree of filters finds whom a look at every filter would find.

import * as fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Qos } from '../../../schemas/records.ts'
import { filterMatches } from '../../../schemas/topics.ts'
import { openFilters } from '../../../streams/mqtt/filters.ts'
import { openRetained } from '../../../streams/mqtt/retained.ts'
import { SESSION_LIMITS } from '../../../streams/mqtt/session.ts'

const name = fc.constantFrom('a', 'b', '', '$x')
const topic = fc.array(name, { minLength: 1, maxLength: 4 }).map(levels => levels.join('/'))
const filter = fc
  .tuple(fc.array(fc.oneof(name, fc.constant('+')), { maxLength: 4 }), fc.boolean())
  .map(([levels, isOpen]) => (isOpen || levels.length === 0 ? [...levels, '#'] : levels).join('/'))
const change = fc.record({
  filter,
  clientId: fc.constantFrom('c1', 'c2', 'c3'),
  qos: fc.constantFrom<Qos>(1, 2),
  isAdded: fc.boolean(),
})

test('a topic finds each client that a matching filter names, once, with its highest QoS', () => {
  void fc.assert(
    fc.property(
      fc.array(change, { maxLength: 20 }),
      fc.array(topic, { minLength: 1, maxLength: 8 }),
      (changes, topics) => {
        const filters = openFilters()
        const model = new Map<string, { filter: string; clientId: string; qos: Qos }>()
        for (const { filter: changed, clientId, qos, isAdded } of changes) {
          const key = `${clientId} ${changed}`
          if (isAdded) {
            filters.add(changed, clientId, qos)
            model.set(key, { filter: changed, clientId, qos })
          } else {
            filters.remove(changed, clientId)
            model.delete(key)
          }
        }
        for (const published of topics) {
          const expected = new Map<string, Qos>()
          for (const { filter: held, clientId, qos } of model.values())
            if (filterMatches(held, published) && qos >= (expected.get(clientId) ?? 0))
              expected.set(clientId, qos)
          assert.equal([...filters.match(published)].sort(), [...expected].sort(), `${published}`)
        }
        for (const { filter: held, clientId } of model.values()) filters.remove(held, clientId)
        assert.ok(filters.isEmpty(), 'nothing stays behind')
      },
    ),
    { numRuns: 500 },
  )
})

const retainedOf = (text: string) => ({ topic: 'a', payload: Buffer.from(text), qos: 1 as const })

test('of two retained messages the one that was planned last stays, whichever is durable first', () => {
  const retained = openRetained(SESSION_LIMITS, () => undefined)
  const [older, newer] = [retained.plan(retainedOf('older')), retained.plan(retainedOf('newer'))]
  newer?.keep()
  older?.keep()
  assert.is(retained.matching(['#', 'a']).length, 1)
  assert.is(retained.matching(['a'])[0]?.payload.toString(), 'newer')

  const [set, cleared] = [retained.plan(retainedOf('set')), retained.plan(retainedOf(''))]
  cleared?.keep()
  set?.keep()
  assert.equal(retained.matching(['#']), [])
  assert.equal(retained.held(), { messages: 0, bytes: 0 })
})

test('retained messages that are on their way count, and those that failed no more', () => {
  let dropped = 0
  const retained = openRetained({ ...SESSION_LIMITS, retainedMessagesMax: 1 }, () => {
    dropped += 1
  })
  const first = retained.plan(retainedOf('x'))
  assert.is(retained.plan({ ...retainedOf('x'), topic: 'b' }), undefined)
  assert.is(dropped, 1)
  first?.cancel()
  const second = retained.plan({ ...retainedOf('x'), topic: 'b' })
  second?.keep()
  assert.equal(retained.held(), { messages: 1, bytes: 2 })
})

test.run()
