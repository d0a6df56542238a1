// Certificates for tests: EC P-256, a CA and what it issues, as PEM texts.

import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from '@peculiar/x509'

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const DAY_MS = 86_400_000

export interface Ca {
  readonly cn: string
  /** The certificate, PEM. */
  readonly cert: string
  readonly keys: webcrypto.CryptoKeyPair
}

export interface Issued {
  readonly ca: string
  readonly cert: string
  readonly key: string
  /** Upper-case hex, as Node tells it. */
  readonly serial: string
}

export interface Wish {
  readonly cn: string
  /** Makes it a server's. */
  readonly server?: { readonly dns?: readonly string[]; readonly ips?: readonly string[] }
  readonly notBefore?: Date
  readonly notAfter?: Date
  /** Hex. */
  readonly serial?: string
}

const newKeys = () =>
  webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>
const newSerial = () => `01${Buffer.from(webcrypto.getRandomValues(new Uint8Array(8))).toString('hex')}`
const pem = (label: string, der: ArrayBuffer) =>
  `-----BEGIN ${label}-----\n${Buffer.from(der).toString('base64').replace(/.{64}/g, '$&\n').trimEnd()}\n-----END ${label}-----\n`

export const makeCa = async (cn = 'Test CA'): Promise<Ca> => {
  const keys = await newKeys()
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial(),
    name: `CN=${cn}`,
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + 365 * DAY_MS),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { cn, cert: certificate.toString('pem'), keys }
}

/** A client's certificate, or a server's for 127.0.0.1 and localhost when `server` says no more. */
export const issue = async (
  ca: Ca,
  { cn, server, notBefore, notAfter, serial = newSerial() }: Wish,
): Promise<Issued> => {
  const keys = await newKeys()
  const purpose = server === undefined ? ExtendedKeyUsage.clientAuth : ExtendedKeyUsage.serverAuth
  const { dns = ['localhost'], ips = ['127.0.0.1'] } = server ?? {}
  const names = [
    ...dns.map(value => ({ type: 'dns' as const, value })),
    ...ips.map(value => ({ type: 'ip' as const, value })),
  ]
  const extensions: Extension[] = [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    new ExtendedKeyUsageExtension([purpose]),
    await AuthorityKeyIdentifierExtension.create(ca.keys.publicKey),
    ...(server === undefined ? [] : [new SubjectAlternativeNameExtension(names)]),
  ]
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serial,
    subject: `CN=${cn}`,
    issuer: `CN=${ca.cn}`,
    notBefore: notBefore ?? new Date(Date.now() - DAY_MS),
    notAfter: notAfter ?? new Date(Date.now() + 30 * DAY_MS),
    signingAlgorithm: ALGORITHM,
    publicKey: keys.publicKey,
    signingKey: ca.keys.privateKey,
    extensions,
  })
  const key = pem('PRIVATE KEY', await webcrypto.subtle.exportKey('pkcs8', keys.privateKey))
  return { ca: ca.cert, cert: certificate.toString('pem'), key, serial: serial.toUpperCase() }
}
