// Enrolment: the one-time token that a person carries, and the one request and reply that it is good for.
//
//   token   hg1.<base64url of JSON {address, ca, gateway, secret}>
//   POST /enrol {secret, csr} → {gateway, certificate, ca, channels, cloud, config} or {code, because}

import { z } from 'zod'
import { addressSchema } from './address.ts'
import type { Parsed } from './hello.ts'
import { channelIdSchema, gatewayIdSchema } from './ids.ts'
import { sha256Schema } from './registry.ts'

export const ENROL_PATH = '/enrol'
/** A P-256 request is about 500 bytes of PEM. */
export const CSR_LENGTH_MAX = 4 * 1024
export const ENROL_BODY_BYTES_MAX = 16 * 1024
/** Two certificates, ids and a first configuration. */
export const ENROL_REPLY_BYTES_MAX = 256 * 1024
export const TOKEN_SECRET_BYTES = 32
const TOKEN_PREFIX = 'hg1.'
const TOKEN_LENGTH_MAX = 2_048

/** 32 bytes as 43 characters of base64url. */
export const tokenSecretSchema = z.string().regex(/^[A-Za-z0-9_-]{43}$/, 'must be 43 characters of base64url')

export const enrolTokenSchema = z.strictObject({
  /** Of the enrolment listener. */
  address: addressSchema,
  /** Fingerprint of the cloud's root: SHA-256 of its DER. */
  ca: sha256Schema,
  gateway: gatewayIdSchema,
  secret: tokenSecretSchema,
})
export type EnrolToken = z.output<typeof enrolTokenSchema>

export const formatToken = (token: EnrolToken): string =>
  TOKEN_PREFIX + Buffer.from(JSON.stringify(token)).toString('base64url')

/** What a person pasted, white space around it and line breaks in it forgiven. */
export const parseToken = (text: string): Parsed<EnrolToken> => {
  const bare = text.replace(/\s+/g, '')
  if (!bare.startsWith(TOKEN_PREFIX))
    return { ok: false, because: `it does not begin with "${TOKEN_PREFIX}"` }
  if (bare.length > TOKEN_LENGTH_MAX)
    return { ok: false, because: `it is longer than ${TOKEN_LENGTH_MAX} characters` }
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bare.slice(TOKEN_PREFIX.length), 'base64url').toString('utf8'))
  } catch {
    return { ok: false, because: 'it is cut short or garbled' }
  }
  const parsed = enrolTokenSchema.safeParse(value)
  return parsed.success
    ? { ok: true, value: parsed.data }
    : { ok: false, because: z.prettifyError(parsed.error) }
}

export const enrolRequestSchema = z.strictObject({
  secret: tokenSecretSchema,
  /** PKCS #10 in PEM, EC P-256. */
  csr: z.string().max(CSR_LENGTH_MAX),
})
export type EnrolRequest = z.output<typeof enrolRequestSchema>

const pem = z
  .string()
  .startsWith('-----BEGIN CERTIFICATE-----')
  .max(64 * 1024)

export const channelsSchema = z.strictObject({ control: channelIdSchema, data: channelIdSchema })
export type Channels = z.output<typeof channelsSchema>

/** The gateway's first configuration, by section; it knows what it may take from it. */
export const firstConfigSchema = z.record(z.string(), z.json())
export type FirstConfig = z.output<typeof firstConfigSchema>

export const enrolReplySchema = z.object({
  gateway: gatewayIdSchema,
  certificate: pem,
  /** The root that signs the cloud's own certificates. */
  ca: pem,
  channels: channelsSchema,
  /** Where gateways connect. */
  cloud: z.object({ address: addressSchema }),
  config: firstConfigSchema,
})
export type EnrolReply = z.output<typeof enrolReplySchema>

/** `code` is a fault code, `because` is for a person. */
export const enrolRefusalSchema = z.object({ code: z.string().max(64), because: z.string().max(2_000) })
export type EnrolRefusal = z.output<typeof enrolRefusalSchema>
