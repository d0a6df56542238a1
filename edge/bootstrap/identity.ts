// Who this gateway is, on disk: identity.json names the files of its key, certificate and root beside it.
//
// identity.json is replaced last and in one step, so that a crash leaves the old identity whole or the new one.
// File names carry the certificate's serial: a new one never overwrites what still counts.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { z } from 'zod'
import { addressSchema } from '../../schemas/address.ts'
import {
  type Channels,
  channelsSchema,
  type FirstConfig,
  firstConfigSchema,
} from '../../schemas/enrolment.ts'
import { type GatewayId, gatewayIdSchema } from '../../schemas/ids.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { fault, reasonOf } from '../../streams/run/fault.ts'
import {
  MODE_PRIVATE,
  MODE_PUBLIC,
  modeWarning,
  readIfThere,
  removeFiles,
  writeWhole,
} from '../../streams/run/files.ts'

export const IDENTITY_FILE = 'identity.json'
const MEND = 'headgate-edge enroll TOKEN'

const fileName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9.-]*$/, 'must be a file beside this one')
const identityFileSchema = z.strictObject({
  gateway: gatewayIdSchema,
  cloud: z.strictObject({ address: addressSchema }),
  channels: channelsSchema,
  config: firstConfigSchema,
  key: fileName,
  certificate: fileName,
  ca: fileName,
})

export interface Identity {
  readonly gateway: GatewayId
  /** host:port of the cloud's broker. */
  readonly address: string
  /** PEM, all three. */
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly serial: string
  readonly certificateNotAfterMs: number
  readonly channels: Channels
  /** As the cloud sent it at enrolment. */
  readonly config: FirstConfig
  /** For a person: a key that others can read. */
  readonly warnings: readonly string[]
}

export const hasIdentity = (folder: string): boolean => readIfThere(join(folder, IDENTITY_FILE)) !== undefined

/** `folder`: `<data>/identity`. Throws identity_missing, identity_invalid; each names the file and the mend. */
export const loadIdentity = (folder: string, clock: Clock): Identity => {
  const { gateway, cloud, channels, config, ...names } = readIdentityFile(folder)
  const part = (name: string): string => {
    const text = readIfThere(join(folder, name))
    if (text === undefined)
      throw invalid(
        folder,
        name,
        `is missing: restore it from a backup or run "${MEND} --force" with a new token`,
      )
    return text
  }
  const key = part(names.key)
  const cert = part(names.certificate)
  const ca = part(names.ca)
  const certificate = parseCertificate(folder, names.certificate, cert)
  const root = parseCertificate(folder, names.ca, ca)
  if (!certificate.checkPrivateKey(parseKey(folder, names.key, key))) {
    throw invalid(
      folder,
      names.key,
      `does not belong to ${names.certificate}: restore both from one backup or run "${MEND} --force" with a new token`,
    )
  }
  if (!certificate.checkIssued(root) || !certificate.verify(root.publicKey)) {
    throw invalid(
      folder,
      names.certificate,
      `is not signed by ${names.ca}: restore both from one backup or run "${MEND} --force" with a new token`,
    )
  }
  const certificateNotAfterMs = Date.parse(certificate.validTo)
  // Not yet valid is no fault here: the clock of a gateway may start in 1970.
  if (clock.nowMs() >= certificateNotAfterMs) {
    throw invalid(
      folder,
      names.certificate,
      `expired on ${new Date(certificateNotAfterMs).toISOString()}: run "${MEND} --force" with a new token`,
    )
  }
  const warnings = [modeWarning(join(folder, names.key)) ?? []].flat()
  return {
    gateway,
    address: cloud.address,
    ca,
    cert,
    key,
    serial: certificate.serialNumber,
    certificateNotAfterMs,
    channels,
    config,
    warnings,
  }
}

export interface NewIdentity {
  readonly gateway: GatewayId
  readonly address: string
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly channels: Channels
  readonly config: FirstConfig
}

/** On disk when it returns; what it takes the place of is removed. Throws folder_unwritable. */
export const storeIdentity = (folder: string, identity: NewIdentity): void => {
  const previous = previousFiles(folder)
  const { serialNumber } = new X509Certificate(identity.cert)
  const stem = `gateway-${serialNumber.slice(0, 16).toLowerCase()}`
  const names = { key: `${stem}.key`, certificate: `${stem}.crt`, ca: `${stem}.ca.crt` }
  writeWhole(join(folder, names.key), identity.key, MODE_PRIVATE)
  writeWhole(join(folder, names.certificate), identity.cert, MODE_PUBLIC)
  writeWhole(join(folder, names.ca), identity.ca, MODE_PUBLIC)
  const { gateway, address, channels, config } = identity
  const text = `${JSON.stringify({ gateway, cloud: { address }, channels, config, ...names }, undefined, 2)}\n`
  writeWhole(join(folder, IDENTITY_FILE), text, MODE_PRIVATE)
  const current: readonly string[] = Object.values(names)
  removeFiles(previous.filter(name => !current.includes(name)).map(name => join(folder, name)))
}

const previousFiles = (folder: string): string[] => {
  try {
    const { key, certificate, ca } = readIdentityFile(folder)
    return [key, certificate, ca]
  } catch {
    // None, or none that can be read: then nothing is known to be safe to remove.
    return []
  }
}

const readIdentityFile = (folder: string): z.output<typeof identityFileSchema> => {
  const text = readIfThere(join(folder, IDENTITY_FILE))
  if (text === undefined) throw fault('identity_missing', { folder, mend: MEND })
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (thrown) {
    throw invalid(
      folder,
      IDENTITY_FILE,
      `is not JSON (${reasonOf(thrown)}): run "${MEND} --force" with a new token`,
    )
  }
  const parsed = identityFileSchema.safeParse(value)
  if (!parsed.success)
    throw invalid(
      folder,
      IDENTITY_FILE,
      `${z.prettifyError(parsed.error)}: run "${MEND} --force" with a new token`,
    )
  return parsed.data
}

const invalid = (folder: string, name: string, because: string, cause?: unknown) =>
  fault('identity_invalid', { file: join(folder, name), because }, cause)

const parseCertificate = (folder: string, name: string, pem: string): X509Certificate => {
  try {
    return new X509Certificate(pem)
  } catch (thrown) {
    throw invalid(folder, name, `is not a certificate in PEM: run "${MEND} --force" with a new token`, thrown)
  }
}

const parseKey = (folder: string, name: string, pem: string) => {
  try {
    return createPrivateKey(pem)
  } catch (thrown) {
    throw invalid(folder, name, `is not a private key in PEM: run "${MEND} --force" with a new token`, thrown)
  }
}
