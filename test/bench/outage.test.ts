// An outage, tiny: an hour of five gateways in virtual time and three seconds of a real edge.

import { createServer } from 'node:net'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { simulateOutage } from '../../bench/harness/outage-world.ts'
import { freePort } from '../../bench/harness/ports.ts'
import { endAll } from '../../bench/harness/process.ts'
import { silent } from '../../bench/harness/told.ts'
import { outage } from '../../bench/outage.ts'
import { flagsOf } from '../../bench/scenario.ts'

test.after(endAll)

test('gateways knock less and less, and a real edge knocks at the same pace', async () => {
  const result = await outage.run(flagsOf(outage, { tiny: true }), silent)
  const number = (name: string): number => {
    const value = result[name]
    assert.ok(typeof value === 'number' && Number.isFinite(value), `${name} is ${String(value)}`)
    return value as number
  }
  assert.ok(number('synsPerMinuteAfterFirstMinutes') > 0, 'they do not give up')
  assert.ok(number('synsPerMinuteFirstMinutes') > number('synsPerMinuteAfterFirstMinutes'), 'less and less')
  assert.ok(number('synsFirstMinute') >= number('synsPerMinuteFirstMinutes'))
  assert.ok(number('synsPerMinuteLastHalf') <= number('synsPerMinuteAfterFirstMinutes'))
  assert.is(number('minutes'), 60)
  assert.is(number('gateways'), 5)
  // Half a second between two tries in the mean: three seconds hold about six.
  assert.ok(number('edgeSyns') >= 1 && number('edgeSyns') <= 40, `${number('edgeSyns')}`)
})

test('the tries are real: where something listens, the simulation says so', async () => {
  const server = createServer(socket => socket.destroy())
  const port = await freePort()
  let arrived = 0
  server.on('connection', () => {
    arrived += 1
  })
  await new Promise<void>(resolve => server.listen(port, '127.0.0.1', resolve))
  try {
    const knocks = await simulateOutage({ gateways: 1, minutes: 1, port, onProgress: () => undefined })
    const tries = knocks.perMinute[0] ?? 0
    assert.ok(Math.abs(arrived - tries) <= 1, `${tries} tries, ${arrived} connections`)
  } finally {
    await new Promise(resolve => server.close(resolve))
  }
})

test.run()
