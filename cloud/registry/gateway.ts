// A gateway's record as the fold of its events, the choice of its id, and what its token may do. Pure.

import { createHash } from 'node:crypto'
import { type GatewayId, gatewayIdSchema } from '../../schemas/ids.ts'
import type { GatewayRecord, RegistryEntry } from '../../schemas/registry.ts'
import { type Fault, fault, unreachable } from '../../streams/run/fault.ts'

/** Long enough for somebody to carry it to a machine, short enough to be forgotten safely. */
export const TOKEN_LIFE_MS_DEFAULT = 24 * 60 * 60 * 1000

const SUFFIX_BYTES = 3
const ID_LENGTH_MAX = 63
/** Topics use these in the place of a gateway's id. */
const RESERVED_IDS: readonly string[] = ['all']

export const secretHash = (secret: string): string => createHash('sha256').update(secret).digest('hex')

/** Throws when an event cannot follow: the table of events is then not one that this program wrote. */
export const evolve = (record: GatewayRecord | undefined, { atMs, event }: RegistryEntry): GatewayRecord => {
  if (event.kind === 'gateway_added') {
    const { gateway: id, name, labels, controlChannel, dataChannel } = event
    return { id, name, labels, state: 'registered', controlChannel, dataChannel, createdAtMs: atMs }
  }
  if (record === undefined) throw new Error(`${event.kind} before gateway_added of ${event.gateway}`)
  switch (event.kind) {
    case 'token_issued':
      return { ...record, token: { hash: event.hash, expiresAtMs: event.expiresAtMs } }
    case 'token_bound':
      if (record.token === undefined) throw new Error(`token_bound without a token of ${event.gateway}`)
      return { ...record, token: { ...record.token, publicKeyFingerprint: event.publicKey } }
    case 'certificate_issued':
      return {
        ...record,
        state: record.state === 'registered' ? 'enrolled' : record.state,
        serial: event.serial,
        certificateNotAfterMs: event.notAfterMs,
      }
    case 'gateway_activated':
      return { ...record, state: 'active' }
    case 'gateway_suspended':
      return { ...record, state: 'suspended' }
    case 'gateway_resumed':
      return { ...record, state: record.serial === undefined ? 'registered' : 'enrolled' }
    case 'gateway_revoked':
      return { ...record, state: 'revoked' }
    default:
      return unreachable(event)
  }
}

/** `Plant 7 (north)` → `plant-7-north`; undefined when nothing usable is left. */
export const slugOf = (name: string): GatewayId | undefined => {
  const slug = name
    .normalize('NFKD')
    .toLowerCase()
    .replace(/\p{M}+/gu, '')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, ID_LENGTH_MAX)
  const parsed = gatewayIdSchema.safeParse(slug)
  return parsed.success ? parsed.data : undefined
}

export interface IdChoice {
  readonly name: string
  readonly isFree: (id: GatewayId) => boolean
  readonly randomBytes: (count: number) => Buffer
}

/** The slug of the name when that is free, otherwise the slug with a random suffix. */
export const chooseId = ({ name, isFree, randomBytes }: IdChoice): GatewayId => {
  const slug = slugOf(name)
  if (slug !== undefined && !RESERVED_IDS.includes(slug) && isFree(slug)) return slug
  const stem = (slug ?? 'gateway').slice(0, ID_LENGTH_MAX - 1 - 2 * SUFFIX_BYTES)
  // Sixteen million suffixes a stem: that eight draws are all taken means a broken source of chance.
  for (let draw = 0; draw < 8; draw++) {
    const id = gatewayIdSchema.parse(`${stem}-${randomBytes(SUFFIX_BYTES).toString('hex')}`)
    if (isFree(id)) return id
  }
  throw new Error(`no free id for ${name}`)
}

/** An id that a person chose. Throws gateway_invalid. */
export const parseId = (text: string): GatewayId => {
  const parsed = gatewayIdSchema.safeParse(text)
  if (!parsed.success)
    throw fault('gateway_invalid', {
      because: `the id must be lower-case letters, digits and dashes, at most ${ID_LENGTH_MAX}: "${text}"`,
    })
  if (RESERVED_IDS.includes(parsed.data))
    throw fault('gateway_invalid', { because: `the id "${text}" is reserved` })
  return parsed.data
}

/** Why a gateway in this state gets no token and no certificate, if so. */
export const refuseByState = ({ id, state }: GatewayRecord): Fault | undefined => {
  switch (state) {
    case 'registered':
    case 'enrolled':
    case 'active':
      return undefined
    case 'suspended':
      return fault('gateway_state', { gateway: id, state, mend: 'resume it first' })
    case 'revoked':
      return fault('gateway_state', { gateway: id, state, mend: 'add the machine as a new gateway' })
    default:
      return unreachable(state)
  }
}

export interface TokenUse {
  readonly record: GatewayRecord
  readonly hash: string
  readonly publicKeyFingerprint: string
  readonly nowMs: number
}

/** Why this use of a token is refused, if it is. The first key that used a token is the only one. */
export const refuseToken = ({ record, hash, publicKeyFingerprint, nowMs }: TokenUse): Fault | undefined => {
  const { token } = record
  if (token?.hash !== hash)
    return fault('token_invalid', { because: 'it is unknown, or a newer one took its place' })
  if (nowMs >= token.expiresAtMs)
    return fault('token_invalid', {
      because: `it expired on ${new Date(token.expiresAtMs).toISOString()}: ask for a new one`,
    })
  if (token.publicKeyFingerprint !== undefined && token.publicKeyFingerprint !== publicKeyFingerprint) {
    return fault('token_invalid', { because: 'another key has used it already: ask for a new one' })
  }
  return refuseByState(record)
}
