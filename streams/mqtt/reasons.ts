// Why a connection failed, in words that say what to look at.

import { reasonOf } from '../run/fault.ts'

const words: Readonly<Record<string, string>> = {
  // What this end found in the other's certificate.
  SELF_SIGNED_CERT_IN_CHAIN: 'certificate of an unknown CA',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'certificate of an unknown CA',
  UNABLE_TO_GET_ISSUER_CERT: 'certificate of an unknown CA',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'certificate of an unknown CA',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'certificate of an unknown CA',
  CERT_SIGNATURE_FAILURE: 'certificate of an unknown CA',
  CERT_HAS_EXPIRED: 'expired certificate (or a clock that is wrong)',
  CERT_NOT_YET_VALID: 'certificate that is not valid yet (or a clock that is wrong)',
  CERT_REVOKED: 'revoked certificate',
  INVALID_PURPOSE: 'certificate that is not meant for this use',
  ERR_TLS_CERT_ALTNAME_INVALID: 'certificate that names another server',
  // What the other end said of ours.
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: 'the other end does not know the CA of this certificate',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: 'the other end asks for a certificate',
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: 'the other end refuses this certificate',
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED: 'the other end finds this certificate expired',
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN: 'the other end does not accept this certificate',
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED: 'the other end finds this certificate revoked',
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: 'no certificate',
  // What is not the TLS that we speak.
  ERR_SSL_WRONG_VERSION_NUMBER: 'not TLS',
  ERR_SSL_HTTP_REQUEST: 'not TLS (an HTTP request)',
  ERR_SSL_UNSUPPORTED_PROTOCOL: 'TLS older than 1.3',
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: 'TLS older than 1.3',
  ERR_TLS_HANDSHAKE_TIMEOUT: 'the TLS handshake took too long',
  // The network.
  ECONNREFUSED: 'nothing listens there',
  ECONNRESET: 'the connection was reset',
  ENOTFOUND: 'the name does not resolve',
  EAI_AGAIN: 'the name cannot be resolved now',
  EHOSTUNREACH: 'no route to the host',
  ENETUNREACH: 'the network is unreachable',
  ETIMEDOUT: 'no answer',
}

export const codeOf = (thrown: unknown): string | undefined =>
  thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : undefined

/** For a code of Node's or OpenSSL's; the code itself when it is not in the table. */
export const wordsFor = (code: string): string => words[code] ?? code

export const connectionReason = (thrown: unknown): string => {
  const code = codeOf(thrown)
  return code === undefined ? reasonOf(thrown) : (words[code] ?? reasonOf(thrown))
}

/** The ticket or the certificates are at fault, not the way there. */
export const isTlsFailure = (thrown: unknown): boolean =>
  /^(ERR_SSL|ERR_TLS|CERT_|UNABLE_TO|SELF_SIGNED|DEPTH_ZERO)/.test(codeOf(thrown) ?? '')

const connackWords: Readonly<Record<number, string>> = {
  1: 'it does not speak MQTT 3.1.1',
  2: 'client identifier rejected',
  3: 'server unavailable',
  4: 'bad user name or password',
  5: 'not authorised',
}
export const connackReason = (code: number): string => connackWords[code] ?? `CONNACK code ${code}`
