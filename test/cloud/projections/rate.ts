// Measures the fold of all projections: records a second of 112-byte SenML packs in deflated frames of 500.
// Run: node --import tsx test/cloud/projections/rate.ts [records]

import { performance } from 'node:perf_hooks'
import { lastValueFrom, tap } from 'rxjs'
import { deadLetters } from '../../../cloud/projections/dead-letters.ts'
import { delivery } from '../../../cloud/projections/delivery.ts'
import { fleet } from '../../../cloud/projections/fleet.ts'
import { latest } from '../../../cloud/projections/latest.ts'
import { sealFrame } from '../../../schemas/frame.ts'
import { bootIdOf, CHAIN_ZERO, epochOf, gatewayId, offset, STREAM_DATA } from '../../../schemas/ids.ts'
import { fold } from '../../../streams/fold/fold.ts'
import { mount } from '../../../streams/fold/member.ts'
import { memoryStore } from '../../../streams/log/memory.ts'
import { systemClock } from '../../../streams/run/clock.ts'
import { memoryCloudLog } from '../../support/memory-cloud-log.ts'

const recordsTotal = Number(process.argv[2] ?? 200_000)
const names = ['temperature', 'humidity', 'pressure', 'voltage', 'current', 'speed', 'level', 'flow']
const log = memoryCloudLog()
const stamp = {
  wallMs: 1_750_000_000_000,
  monoMs: 1_000_000,
  bootId: bootIdOf(Buffer.alloc(8)),
  quality: 'synchronised',
} as const
let bytes = 0
for (let first = 1; first <= recordsTotal; first += 500) {
  const records = Array.from({ length: 500 }, (_, i) => {
    const n = first + i
    const text = `[{"bn":"urn:dev:mac:0024befffe80${(n % 50).toString().padStart(4, '0')}:","bt":${(1.75e9 + n / 1000).toFixed(3)},"n":"${names[n % 8]}","u":"Cel","v":${((n * 7919) % 100_000) / 1000}}]`
    const payload = Buffer.from(text.padEnd(112, ' '))
    bytes += payload.length
    return {
      topic: `devices/${n % 50}`,
      payload,
      qos: 1 as const,
      retain: false,
      receivedMonoMs: 999_000 + i,
    }
  })
  const frame = sealFrame(
    records,
    { stream: STREAM_DATA, epoch: epochOf(Buffer.alloc(8, 7)), first: offset(first), previous: CHAIN_ZERO },
    stamp,
  )
  await lastValueFrom(log.append('data', [{ kind: 'frame', gateway: gatewayId('g1'), frame }], []))
}
for (const [what, make] of Object.entries({
  all: () => [mount(fleet), mount(latest), mount(delivery), mount(deadLetters)],
  'headers only': () => [mount(fleet), mount(delivery)],
  'decode only': () => [mount(deadLetters)],
})) {
  const startMs = performance.now()
  await lastValueFrom(
    fold({
      reader: log,
      members: make(),
      store: memoryStore(),
      clock: systemClock(),
      atHead: 'complete',
    }).pipe(tap(() => undefined)),
  )
  const tookMs = performance.now() - startMs
  console.log(
    `${what}: ${Math.round(recordsTotal / tookMs)} k records/s, ${recordsTotal} of ${(bytes / recordsTotal).toFixed(0)} bytes in ${tookMs.toFixed(0)} ms`,
  )
}
