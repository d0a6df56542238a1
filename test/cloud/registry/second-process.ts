// What the command line does to a registry that a running cloud has open. Prints one line of JSON.

import { lastValueFrom } from 'rxjs'
import { openRegistry } from '../../../cloud/registry/registry.ts'
import { gatewayId } from '../../../schemas/ids.ts'
import { systemClock, systemRandom } from '../../../streams/run/clock.ts'

const registry = openRegistry(process.argv[2] ?? '', { clock: systemClock(), random: systemRandom })
const found = registry.get('mine')?.controlChannel
for (let i = 0; i < 20; i++) await lastValueFrom(registry.add({ name: `theirs-${i}` }))
const { secret } = await lastValueFrom(registry.issueToken(gatewayId('theirs-0')))
await lastValueFrom(registry.revoke(gatewayId('mine'), 'by the command line'))
process.stdout.write(`${JSON.stringify({ found, secret })}\n`)
await lastValueFrom(registry.close(), { defaultValue: undefined })
