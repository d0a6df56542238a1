// The cloud's keys and certificates on disk, loaded and checked: what is open here is sound.
//
//   ca.crt      the root                          ca.key      its key, 0600
//   server.crt  the cloud's own, then the root    server.key  its key, 0600
//   tickets.key 48 bytes for TLS tickets, 0600, so that sessions resume across a restart

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { defer, type Observable } from 'rxjs'
import type { GatewayId } from '../../schemas/ids.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { fault, reasonOf } from '../../streams/run/fault.ts'
import { MODE_PUBLIC, modeWarning, readWanted, writeWhole } from '../../streams/run/files.ts'
import { type Names, sameNames } from './hosts.ts'
import {
  type Chance,
  csrFingerprint,
  fingerprintOf,
  type IssuedCertificate,
  issueGateway,
  issueServer,
  namesIn,
} from './issue.ts'

export const CA_CERTIFICATE = 'ca.crt'
export const CA_KEY = 'ca.key'
export const SERVER_CERTIFICATE = 'server.crt'
export const SERVER_KEY = 'server.key'
export const TICKETS_KEY = 'tickets.key'
/** What Node asks of `ticketKeys`. */
export const TICKETS_KEY_BYTES = 48

const MEND = 'headgate-cloud init'

export interface Pki {
  readonly folder: string
  readonly ca: {
    /** PEM: what clients are verified against, and what they verify with. */
    readonly certificate: string
    /** SHA-256 of its DER, 64 hex digits: what a token pins. */
    readonly fingerprint: string
    readonly notAfterMs: number
  }
  readonly server: {
    /** PEM, with the root behind it: a client that knows only the fingerprint finds it in the chain. */
    readonly chain: string
    readonly key: string
    readonly names: Names
    readonly notAfterMs: number
  }
  readonly ticketKeys: Buffer
  /** For a person: keys that others can read. */
  readonly warnings: readonly string[]
  /** SHA-256 of the key in a request whose sender holds that key. Errors: csr_invalid. */
  keyOf(csr: string): Observable<string>
  /** A certificate for the key in `csr` under the gateway's name. Cold. Errors: csr_invalid. */
  issueGateway(request: {
    readonly csr: string
    readonly gateway: GatewayId
    readonly days?: number
  }): Observable<IssuedCertificate>
}

/** `folder`: `<data>/pki`. Throws identity_missing, identity_invalid; each names the file and the mend. */
export const openPki = (folder: string, { clock, random }: Chance): Pki => {
  const ca = openCa(folder, clock)
  const server = openServer(folder, ca.certificate, clock)
  const ticketKeys = readWanted({ folder, name: TICKETS_KEY, mend: MEND })
  if (ticketKeys.length !== TICKETS_KEY_BYTES) {
    throw invalid(
      folder,
      TICKETS_KEY,
      `holds ${ticketKeys.length} bytes, not ${TICKETS_KEY_BYTES}: delete it and run "${MEND}"`,
    )
  }
  return {
    folder,
    ca: {
      certificate: ca.certificate,
      fingerprint: fingerprintOf(ca.certificate),
      notAfterMs: ca.notAfterMs,
    },
    server,
    ticketKeys,
    warnings: [CA_KEY, SERVER_KEY, TICKETS_KEY].flatMap(name => modeWarning(join(folder, name)) ?? []),
    keyOf: csr => defer(() => csrFingerprint(csr)),
    issueGateway: request => defer(() => issueGateway({ ca, clock, random, ...request })),
  }
}

export interface Reissue extends Chance {
  /** `<data>/pki`. */
  readonly folder: string
  readonly names: Names
}

/** A new server certificate for the same key, on disk when it emits. Errors: identity_*, folder_*. */
export const reissueServer = ({ folder, names, clock, random }: Reissue): Observable<IssuedCertificate> =>
  defer(async () => {
    const ca = openCa(folder, clock)
    const key = readKey(folder, SERVER_KEY)
    const issued = await issueServer({ ca, key, names, clock, random })
    writeWhole(join(folder, SERVER_CERTIFICATE), issued.certificate + ca.certificate, MODE_PUBLIC)
    return issued
  })

export const coversNames = ({ server }: Pki, names: Names): boolean => sameNames(server.names, names)

/** Loads the root and its key. Throws as openPki. */
export const openCa = (folder: string, clock: Clock) => {
  const restore = 'restore it from a backup'
  const certificate = readWanted({ folder, name: CA_CERTIFICATE, mend: MEND }).toString('utf8')
  const parsed = parseCertificate(folder, CA_CERTIFICATE, certificate, restore)
  if (!parsed.ca || !parsed.verify(parsed.publicKey))
    throw invalid(folder, CA_CERTIFICATE, `is not a root certificate: ${restore}`)
  const key = readKey(folder, CA_KEY)
  if (!parsed.checkPrivateKey(createPrivateKey(key)))
    throw invalid(folder, CA_KEY, `does not belong to ${CA_CERTIFICATE}: ${restore}`)
  const notAfterMs = checkLife(
    folder,
    CA_CERTIFICATE,
    parsed,
    clock,
    'move the folder away, run "headgate-cloud init", and enrol every gateway anew',
  )
  return { certificate, key, notAfterMs }
}

const openServer = (folder: string, caCertificate: string, clock: Clock): Pki['server'] => {
  const mend = `delete it and run "${MEND}"`
  const chain = readWanted({ folder, name: SERVER_CERTIFICATE, mend: MEND }).toString('utf8')
  const parsed = parseCertificate(folder, SERVER_CERTIFICATE, chain, mend)
  const ca = new X509Certificate(caCertificate)
  if (!parsed.checkIssued(ca) || !parsed.verify(ca.publicKey))
    throw invalid(folder, SERVER_CERTIFICATE, `is not signed by ${CA_CERTIFICATE}: ${mend}`)
  const key = readKey(folder, SERVER_KEY)
  if (!parsed.checkPrivateKey(createPrivateKey(key)))
    throw invalid(
      folder,
      SERVER_KEY,
      `does not belong to ${SERVER_CERTIFICATE}: delete both and run "${MEND}"`,
    )
  return {
    chain,
    key,
    names: namesIn(parsed.toString()),
    notAfterMs: checkLife(folder, SERVER_CERTIFICATE, parsed, clock, mend),
  }
}

const invalid = (folder: string, name: string, because: string, cause?: unknown) =>
  fault('identity_invalid', { file: join(folder, name), because }, cause)

const parseCertificate = (folder: string, name: string, pem: string, mend: string): X509Certificate => {
  try {
    return new X509Certificate(pem)
  } catch (thrown) {
    throw invalid(folder, name, `is not a certificate in PEM (${reasonOf(thrown)}): ${mend}`, thrown)
  }
}

const readKey = (folder: string, name: string): string => {
  const key = readWanted({ folder, name, mend: MEND }).toString('utf8')
  try {
    createPrivateKey(key)
  } catch (thrown) {
    throw invalid(
      folder,
      name,
      `is not a private key in PEM (${reasonOf(thrown)}): restore it from a backup`,
      thrown,
    )
  }
  return key
}

const checkLife = (
  folder: string,
  name: string,
  { validTo }: X509Certificate,
  clock: Clock,
  mend: string,
): number => {
  const notAfterMs = Date.parse(validTo)
  if (clock.nowMs() >= notAfterMs)
    throw invalid(folder, name, `expired on ${new Date(notAfterMs).toISOString()}: ${mend}`)
  return notAfterMs
}
