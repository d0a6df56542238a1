// Gateways by the hundred, each with a key and a certificate of its own: registered and enrolled in the cloud's own
// registry and signed by its own CA, as the enrolment endpoint does it, without a process for each.

import 'reflect-metadata'
import { join } from 'node:path'
import { concatMap, from, lastValueFrom, mergeMap, tap } from 'rxjs'
import { openPki } from '../../cloud/pki/pki.ts'
import { openRegistry } from '../../cloud/registry/registry.ts'
import { keyFingerprint, makeKey, requestCertificate } from '../../edge/bootstrap/csr.ts'
import type { GatewayId } from '../../schemas/ids.ts'
import { systemClock, systemRandom } from '../../streams/run/clock.ts'

export interface SimulatedIdentity {
  readonly gateway: GatewayId
  readonly channel: string
  /** PEM, all three. */
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** So many share a commit of the registry. */
const AT_ONCE = 16

/** Of an enrolled gateway, from the registry: the API needs the views for its answer. */
export const channelOf = async (cloudFolder: string, gateway: string): Promise<string> => {
  const registry = openRegistry(join(cloudFolder, 'registry.mdb'), {
    clock: systemClock(),
    random: systemRandom,
  })
  const found = registry.get(gateway)
  await lastValueFrom(registry.close(), { defaultValue: undefined })
  if (found === undefined) throw new Error(`the registry knows no gateway ${gateway}`)
  return found.dataChannel
}

/** `cloudFolder`: of an initialised cloud, running or not. Rejects with what registry and pki err with. */
export const makeIdentities = async (
  cloudFolder: string,
  count: number,
  onProgress: (made: number) => void = () => undefined,
): Promise<readonly SimulatedIdentity[]> => {
  const chance = { clock: systemClock(), random: systemRandom }
  const pki = openPki(join(cloudFolder, 'pki'), chance)
  const registry = openRegistry(join(cloudFolder, 'registry.mdb'), chance)
  const made: SimulatedIdentity[] = []
  const one = async (index: number): Promise<SimulatedIdentity> => {
    const { id, dataChannel } = await lastValueFrom(registry.add({ name: `simulated-${index}` }))
    const { secret } = await lastValueFrom(registry.issueToken(id))
    const key = makeKey()
    const csr = await requestCertificate(key, id)
    const { certificate } = await lastValueFrom(
      registry.enrol({
        secret,
        publicKeyFingerprint: keyFingerprint(key),
        issue: gateway => pki.issueGateway({ csr, gateway }),
      }),
    )
    return { gateway: id, channel: dataChannel, ca: pki.ca.certificate, cert: certificate, key }
  }
  const made$ = from(Array.from({ length: count }, (_, index) => index)).pipe(
    mergeMap(one, AT_ONCE),
    tap(identity => {
      made.push(identity)
      onProgress(made.length)
    }),
  )
  await lastValueFrom(made$.pipe(concatMap(() => [])), { defaultValue: undefined })
  await lastValueFrom(registry.close(), { defaultValue: undefined })
  return made
}
