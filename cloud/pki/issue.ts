// Makes certificates: EC P-256, SHA-256, random serials. Knows no files and keeps no state.
// A key is made where it will be used; only its public half is ever sent to be signed.

import 'reflect-metadata'
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  webcrypto,
  X509Certificate,
} from 'node:crypto'
import * as x509 from '@peculiar/x509'
import type { GatewayId } from '../../schemas/ids.ts'
import type { Clock, Random } from '../../streams/run/clock.ts'
import { fault, reasonOf } from '../../streams/run/fault.ts'
import { type Names, namesOf } from './hosts.ts'

const DAY_MS = 24 * 60 * 60 * 1000
export const CA_DAYS = 3_650
export const SERVER_DAYS_DEFAULT = 365
/** Short, because a lost machine is only locked out for certain when its certificate ends. */
export const GATEWAY_DAYS_DEFAULT = 30
/** Every certificate begins this much earlier: the clock of a gateway may lag. */
const BACKDATE_MS = DAY_MS

const KEY_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' }
const SIGNING_ALGORITHM = { name: 'ECDSA', hash: 'SHA-256' }
/** RFC 5280 allows 20 bytes; 16 random ones never meet. */
const SERIAL_BYTES = 16

export interface Chance {
  readonly clock: Clock
  readonly random: Random
}

/** PEM, both. */
export interface Certified {
  readonly certificate: string
  readonly key: string
}

export interface IssuedCertificate {
  /** PEM. */
  readonly certificate: string
  /** As Node prints it: upper-case hex. */
  readonly serial: string
  readonly notAfterMs: number
}

/** SHA-256 of the DER, 64 hex digits: what a token pins. Throws what Node throws for no certificate. */
export const fingerprintOf = (pem: string): string => sha256(new X509Certificate(pem).raw)

export const makeKey = (): string =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem' })
    .toString()

/** A new root with a key of its own. */
export const createCa = async ({ clock, random }: Chance): Promise<Certified> => {
  const key = makeKey()
  const keys = await keyPair(key)
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    // Its own name for each installation, so that chains of two never mix.
    name: `CN=Headgate CA ${random.bytes(4).toString('hex')}`,
    ...life(clock, CA_DAYS, random),
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { certificate: pemOf(ca), key }
}

export interface ServerRequest extends Chance {
  readonly ca: Certified
  /** Private key of the server, PEM. */
  readonly key: string
  readonly names: Names
  readonly days?: number
}

/** The cloud's own certificate for its listeners. */
export const issueServer = async ({
  ca,
  key,
  names,
  clock,
  random,
  days = SERVER_DAYS_DEFAULT,
}: ServerRequest): Promise<IssuedCertificate> => {
  const { publicKey } = await keyPair(key)
  const alternatives = [
    ...names.dns.map(value => ({ type: 'dns' as const, value })),
    ...names.ips.map(value => ({ type: 'ip' as const, value })),
  ]
  return sign(
    {
      ca,
      subject: 'headgate-cloud',
      publicKey,
      usage: x509.ExtendedKeyUsage.serverAuth,
      clock,
      random,
      days,
    },
    [new x509.SubjectAlternativeNameExtension(alternatives)],
  )
}

export interface GatewayRequest extends Chance {
  readonly ca: Certified
  /** PKCS #10, PEM. */
  readonly csr: string
  readonly gateway: GatewayId
  readonly days?: number
}

/** Takes only the key from the request: the name is the registry's to give. Rejects with csr_invalid. */
export const issueGateway = async ({
  ca,
  csr,
  gateway,
  clock,
  random,
  days = GATEWAY_DAYS_DEFAULT,
}: GatewayRequest): Promise<IssuedCertificate> => {
  const { publicKey } = await openCsr(csr)
  return sign(
    { ca, subject: gateway, publicKey, usage: x509.ExtendedKeyUsage.clientAuth, clock, random, days },
    [],
  )
}

/** SHA-256 of the SPKI of a request whose sender has proved to hold the key. Rejects with csr_invalid. */
export const csrFingerprint = async (csr: string): Promise<string> =>
  sha256(Buffer.from((await openCsr(csr)).publicKey.rawData))

/** Names in a certificate, in canonical form. */
export const namesIn = (pem: string): Names => {
  const found = new x509.X509Certificate(pem).getExtension(x509.SubjectAlternativeNameExtension)
  return namesOf(found?.names.items.map(({ value }) => value) ?? [])
}

const openCsr = async (pem: string): Promise<x509.Pkcs10CertificateRequest> => {
  const request = parseCsr(pem)
  const { algorithm } = request.publicKey
  if (
    algorithm.name !== KEY_ALGORITHM.name ||
    !('namedCurve' in algorithm) ||
    algorithm.namedCurve !== KEY_ALGORITHM.namedCurve
  ) {
    throw fault('csr_invalid', { because: 'its key must be EC P-256' })
  }
  const proven = await request.verify().catch((thrown: unknown) => reasonOf(thrown))
  if (proven !== true) throw fault('csr_invalid', { because: 'its signature is not by its own key' })
  return request
}

const parseCsr = (pem: string): x509.Pkcs10CertificateRequest => {
  try {
    return new x509.Pkcs10CertificateRequest(pem)
  } catch (thrown) {
    throw fault('csr_invalid', { because: `not PKCS #10 in PEM (${reasonOf(thrown)})` }, thrown)
  }
}

interface Signing extends Chance {
  readonly ca: Certified
  readonly subject: string
  readonly publicKey: webcrypto.CryptoKey | x509.PublicKey
  readonly usage: x509.ExtendedKeyUsage
  readonly days: number
}

const sign = async (
  { ca, subject, publicKey, usage, clock, random, days }: Signing,
  extensions: x509.Extension[],
): Promise<IssuedCertificate> => {
  const issuer = new x509.X509Certificate(ca.certificate)
  const { privateKey } = await keyPair(ca.key)
  const span = life(clock, days, random)
  const certificate = pemOf(
    await x509.X509CertificateGenerator.create({
      subject: [{ CN: [subject] }],
      issuer: issuer.subjectName,
      ...span,
      publicKey,
      signingKey: privateKey,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([usage]),
        await x509.SubjectKeyIdentifierExtension.create(publicKey),
        await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
        ...extensions,
      ],
    }),
  )
  return {
    certificate,
    serial: new X509Certificate(certificate).serialNumber,
    notAfterMs: span.notAfter.getTime(),
  }
}

/** X.509 counts in whole seconds. */
const life = (clock: Clock, days: number, random: Random) => {
  const nowMs = Math.floor(clock.nowMs() / 1000) * 1000
  const serial = random.bytes(SERIAL_BYTES)
  // A positive number whose first byte is never zero, so that every tool prints it alike.
  serial[0] = (serial.readUInt8(0) & 0x7f) | 0x40
  return {
    serialNumber: serial.toString('hex'),
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(nowMs + days * DAY_MS),
    signingAlgorithm: SIGNING_ALGORITHM,
  }
}

const keyPair = async (pem: string): Promise<webcrypto.CryptoKeyPair> => {
  const key = createPrivateKey(pem)
  const { subtle } = webcrypto
  return {
    privateKey: await subtle.importKey(
      'pkcs8',
      key.export({ type: 'pkcs8', format: 'der' }),
      KEY_ALGORITHM,
      false,
      ['sign'],
    ),
    publicKey: await subtle.importKey(
      'spki',
      createPublicKey(key).export({ type: 'spki', format: 'der' }),
      KEY_ALGORITHM,
      true,
      ['verify'],
    ),
  }
}

const pemOf = (certificate: x509.X509Certificate): string => `${certificate.toString('pem').trim()}\n`
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
