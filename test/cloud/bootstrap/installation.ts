// A real cloud in a temporary folder, as far as enrolment goes: root, registry, listener on a free port.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { firstValueFrom, lastValueFrom, type Subscription } from 'rxjs'
import type { EnrolmentLimits } from '../../../cloud/bootstrap/limits.ts'
import type { EnrolmentNotice } from '../../../cloud/bootstrap/needs.ts'
import { serveEnrolment } from '../../../cloud/bootstrap/serve.ts'
import { initCloud } from '../../../cloud/pki/init.ts'
import { openPki, type Pki } from '../../../cloud/pki/pki.ts'
import { openRegistry, type Registry } from '../../../cloud/registry/registry.ts'
import { formatToken } from '../../../schemas/enrolment.ts'
import { type Clock, systemClock, systemRandom } from '../../../streams/run/clock.ts'

export const random = systemRandom
const system = systemClock()

export interface Installation {
  readonly data: string
  readonly pki: Pki
  readonly registry: Registry
  /** The cloud's clock; `aheadMs` moves it. */
  readonly clock: Clock
  aheadMs: number
  readonly port: number
  readonly notices: EnrolmentNotice[]
  /** Adds a gateway; the token leads to `port`, or to another one. */
  token(name: string, port?: number): Promise<string>
  stop(): Promise<void>
}

export const install = async (limits: Partial<EnrolmentLimits> = {}): Promise<Installation> => {
  const data = mkdtempSync(join(tmpdir(), 'headgate-cloud-'))
  const state = { aheadMs: 0 }
  const clock: Clock = { ...system, nowMs: () => system.nowMs() + state.aheadMs }
  await lastValueFrom(initCloud({ data, hosts: [], clock, random }))
  const pki = openPki(join(data, 'pki'), { clock, random })
  const registry = openRegistry(join(data, 'registry.mdb'), { clock, random })
  const notices: EnrolmentNotice[] = []
  const { subscription, port } = await new Promise<{ subscription: Subscription; port: number }>(
    (resolve, reject) => {
      const subscription: Subscription = serveEnrolment({
        listen: { host: '127.0.0.1', port: 0 },
        pki,
        registry,
        clock,
        gatewayAddress: '127.0.0.1:8883',
        config: { logs: { level: 'info' } },
        limits,
      }).subscribe({
        next: notice => {
          notices.push(notice)
          if (notice.kind === 'listening') setImmediate(() => resolve({ subscription, port: notice.port }))
        },
        error: reject,
      })
    },
  )
  return {
    data,
    pki,
    registry,
    clock,
    get aheadMs() {
      return state.aheadMs
    },
    set aheadMs(value) {
      state.aheadMs = value
    },
    port,
    notices,
    token: async (name, at = port) => {
      const gateway = registry.find(name) ?? (await firstValueFrom(registry.add({ name })))
      const { secret } = await firstValueFrom(registry.issueToken(gateway.id))
      return formatToken({ address: `127.0.0.1:${at}`, ca: pki.ca.fingerprint, gateway: gateway.id, secret })
    },
    stop: async () => {
      subscription.unsubscribe()
      await lastValueFrom(registry.close(), { defaultValue: undefined })
      rmSync(data, { recursive: true, force: true })
    },
  }
}
