// Adds gateways until the file may not grow any more, goes on for a while, then counts. Prints one line of JSON.

import { lastValueFrom } from 'rxjs'
import { openRegistry } from '../../../cloud/registry/registry.ts'
import { systemClock, systemRandom } from '../../../streams/run/clock.ts'
import { isFault } from '../../../streams/run/fault.ts'

const file = process.argv[2] ?? ''
const open = () => openRegistry(file, { clock: systemClock(), random: systemRandom })
const registry = open()
const codes: string[] = []
let acknowledged = 0
for (let i = 0; i < 5_000 && codes.length < 3; i++) {
  try {
    await lastValueFrom(registry.add({ name: `gateway-${i}`, labels: { filling: 'x'.repeat(200) } }))
    acknowledged += 1
  } catch (thrown) {
    codes.push(isFault(thrown) ? thrown.code : String(thrown))
  }
}
// An unhandled rejection would end the process here.
await new Promise(done => setTimeout(done, 50))
await lastValueFrom(registry.close(), { defaultValue: undefined })
const again = open()
const report = { codes, acknowledged, kept: again.list().length, events: again.events(0).length }
process.stdout.write(`${JSON.stringify(report)}\n`)
await lastValueFrom(again.close(), { defaultValue: undefined })
