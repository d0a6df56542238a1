// Makes this machine a gateway of the demo's cloud: once, and again only when what is there no longer counts.

import { hostname } from 'node:os'
import { join } from 'node:path'
import { lastValueFrom } from 'rxjs'
import { openRegistry, type Registry } from '../../cloud/registry/registry.ts'
import { enrol } from '../../edge/bootstrap/enrol.ts'
import { hasIdentity, loadIdentity } from '../../edge/bootstrap/identity.ts'
import { formatToken } from '../../schemas/enrolment.ts'
import { type Clock, systemRandom } from '../../streams/run/clock.ts'
import type { Demo } from './settings.ts'

export interface Enrolled {
  readonly gateway: string
  readonly dataChannel: string
  readonly isNew: boolean
}

/** An identity that ends sooner than this is replaced at the start: the demo may then run for a day. */
const LIFE_MS_MIN = 24 * 60 * 60 * 1_000

/** The cloud runs, and `fingerprint` is its root's. Errors: those of the registry and of enrolment. */
export const enrolThisMachine = async (
  { cloud, edge }: Demo,
  fingerprint: string,
  clock: Clock,
): Promise<Enrolled> => {
  const folder = join(edge.folder, 'identity')
  const registry = openRegistry(join(cloud.folder, 'registry.mdb'), { clock, random: systemRandom })
  try {
    const held = standing(folder, registry, clock)
    if (held !== undefined) return { ...held, isNew: false }
    const token = formatToken({
      address: `localhost:${cloud.settings.enrolment.port}`,
      ca: fingerprint,
      ...(await secretFor(registry)),
    })
    const { identity } = await lastValueFrom(enrol({ token, folder, clock, force: hasIdentity(folder) }))
    return { gateway: identity.gateway, dataChannel: identity.channels.data, isNew: true }
  } finally {
    await lastValueFrom(registry.close(), { defaultValue: undefined })
  }
}

/** What is there already; undefined when there is none, or it has ended, or the cloud does not know it. */
const standing = (folder: string, registry: Registry, clock: Clock): Omit<Enrolled, 'isNew'> | undefined => {
  if (!hasIdentity(folder)) return undefined
  try {
    const { gateway, channels, certificateNotAfterMs } = loadIdentity(folder, clock)
    if (registry.get(gateway) === undefined || certificateNotAfterMs - clock.nowMs() < LIFE_MS_MIN)
      return undefined
    return { gateway, dataChannel: channels.data }
  } catch {
    // Expired or damaged: a new one takes its place, and the log goes on under the same name.
    return undefined
  }
}

const secretFor = async (registry: Registry) => {
  const name = hostname() || 'this-machine'
  const { id } = registry.find(name) ?? (await lastValueFrom(registry.add({ name })))
  const { secret } = await lastValueFrom(registry.issueToken(id))
  return { gateway: id, secret }
}
