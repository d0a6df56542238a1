// The gateway's key and its request for a certificate. Loaded only to enrol: a running gateway needs none.

import 'reflect-metadata'
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, webcrypto } from 'node:crypto'
import { Pkcs10CertificateRequestGenerator } from '@peculiar/x509'
import type { GatewayId } from '../../schemas/ids.ts'

const KEY_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' }

/** EC P-256, PKCS #8 in PEM. */
export const makeKey = (): string =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem' })
    .toString()

/** SHA-256 of the SPKI, 64 hex digits. */
export const keyFingerprint = (keyPem: string): string =>
  createHash('sha256').update(spkiOf(keyPem)).digest('hex')

/** PKCS #10 in PEM, signed by the key: the proof that its sender holds it. */
export const requestCertificate = async (keyPem: string, gateway: GatewayId): Promise<string> => {
  const pkcs8 = createPrivateKey(keyPem).export({ type: 'pkcs8', format: 'der' })
  const { subtle } = webcrypto
  const request = await Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [gateway] }],
    keys: {
      privateKey: await subtle.importKey('pkcs8', pkcs8, KEY_ALGORITHM, false, ['sign']),
      publicKey: await subtle.importKey('spki', spkiOf(keyPem), KEY_ALGORITHM, true, ['verify']),
    },
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
  })
  return request.toString('pem')
}

const spkiOf = (keyPem: string): Buffer => createPublicKey(keyPem).export({ type: 'spki', format: 'der' })
