// One end of a connection, for strace: `broker` prints its port, `link <port>` connects and publishes once.
// Certificates come as JSON in the environment.

import { setTimeout as sleep } from 'node:timers/promises'
import { message, outcome, startBroker, startLink, stateOf } from './harness.ts'

const [role, port] = process.argv.slice(2)
const { CERTIFICATES = '{}' } = process.env
const { server, gateway } = JSON.parse(CERTIFICATES)

if (role === 'broker') {
  const started = await startBroker({ kind: 'tls', host: '127.0.0.1', port: 0, ...server })
  console.log(started.port)
  await started.state('disconnected')
  started.stop()
} else {
  const { link, stop } = startLink(Number(port), { tls: gateway })
  await stateOf(link, 'up')
  console.log(await outcome(link.publish(message('a'))))
  stop()
  await sleep(50)
}
