// The registry of gateways: what it remembers of each, and the events that made it so.
// A gateway's record is the fold of its events; only the hash of a token is ever kept.

import { z } from 'zod'
import { channelIdSchema, gatewayIdSchema } from './ids.ts'

/** registered → enrolled (has a certificate) → active (has connected); suspended can return, revoked cannot. */
export const GATEWAY_STATES = ['registered', 'enrolled', 'active', 'suspended', 'revoked'] as const
export type GatewayState = (typeof GATEWAY_STATES)[number]

export const GATEWAY_NAME_LENGTH_MAX = 100
/** Labels select gateways for people and roles: a few dozen words, not a store. */
export const LABELS_MAX = 32
export const LABEL_LENGTH_MAX = 256

const printable = /^[^\p{C}]+$/u

export const gatewayNameSchema = z
  .string()
  .trim()
  .min(1, 'must not be empty')
  .max(GATEWAY_NAME_LENGTH_MAX)
  .regex(printable, 'must be printable characters')

export const labelsSchema = z
  .record(
    z
      .string()
      .regex(/^[a-z][a-z0-9_.-]{0,62}$/, 'must be a lower-case word of letters, digits, dots and dashes'),
    z.string().max(LABEL_LENGTH_MAX),
  )
  .refine(labels => Object.keys(labels).length <= LABELS_MAX, `at most ${LABELS_MAX} labels`)
export type Labels = z.output<typeof labelsSchema>

/** SHA-256 as 64 hex digits: of a certificate's DER, of a public key's SPKI, of a token's secret. */
export const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 hex digits')
/** As Node prints it: upper-case hex, whole bytes. */
export const serialSchema = z.string().regex(/^(?:[0-9A-F]{2}){1,20}$/, 'must be upper-case hex digits')

const gateway = gatewayIdSchema
/** Why a person did it, for those who read the events later. */
export const becauseSchema = z.string().trim().max(500)
const because = becauseSchema

export const registryEventSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('gateway_added'),
    gateway,
    name: gatewayNameSchema,
    labels: labelsSchema,
    controlChannel: channelIdSchema,
    dataChannel: channelIdSchema,
  }),
  /** Takes the place of an earlier token. */
  z.strictObject({ kind: z.literal('token_issued'), gateway, hash: sha256Schema, expiresAtMs: z.int() }),
  z.strictObject({ kind: z.literal('token_bound'), gateway, publicKey: sha256Schema }),
  /** From here on no other serial is let in. */
  z.strictObject({
    kind: z.literal('certificate_issued'),
    gateway,
    serial: serialSchema,
    notAfterMs: z.int(),
    publicKey: sha256Schema,
  }),
  /** The first connection with its certificate. */
  z.strictObject({ kind: z.literal('gateway_activated'), gateway }),
  z.strictObject({ kind: z.literal('gateway_suspended'), gateway, because }),
  z.strictObject({ kind: z.literal('gateway_resumed'), gateway }),
  z.strictObject({ kind: z.literal('gateway_revoked'), gateway, because }),
])
export type RegistryEvent = z.output<typeof registryEventSchema>

export const registryEntrySchema = z.strictObject({
  /** 1, 2, 3… without a gap. */
  seq: z.int().min(1),
  atMs: z.int(),
  event: registryEventSchema,
})
export type RegistryEntry = z.output<typeof registryEntrySchema>

export const gatewayRecordSchema = z.strictObject({
  id: gateway,
  name: gatewayNameSchema,
  labels: labelsSchema,
  state: z.enum(GATEWAY_STATES),
  /** Of the current certificate; absent until the first one. */
  serial: serialSchema.optional(),
  certificateNotAfterMs: z.int().optional(),
  controlChannel: channelIdSchema,
  dataChannel: channelIdSchema,
  createdAtMs: z.int(),
  token: z
    .strictObject({
      hash: sha256Schema,
      expiresAtMs: z.int(),
      /** The first key that used it; no other may. */
      publicKeyFingerprint: sha256Schema.optional(),
    })
    .optional(),
})
export type GatewayRecord = z.output<typeof gatewayRecordSchema>
