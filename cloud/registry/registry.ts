// Which gateways there are, and which certificate each may connect with. Whether, where TLS says who.
//
// An event and the record that it leads to are one durable commit. The running cloud and the command line use
// the same file at the same time; a read sees what any of them has committed.

import { concatMap, defer, type Observable, of } from 'rxjs'
import { z } from 'zod'
import { TOKEN_SECRET_BYTES } from '../../schemas/enrolment.ts'
import { type ChannelId, channelId, type GatewayId, gatewayIdSchema } from '../../schemas/ids.ts'
import {
  becauseSchema,
  type GatewayRecord,
  gatewayNameSchema,
  type Labels,
  labelsSchema,
  type RegistryEntry,
  type RegistryEvent,
} from '../../schemas/registry.ts'
import type { Clock, Random } from '../../streams/run/clock.ts'
import { fault } from '../../streams/run/fault.ts'
import {
  chooseId,
  evolve,
  parseId,
  refuseByState,
  refuseToken,
  secretHash,
  TOKEN_LIFE_MS_DEFAULT,
} from './gateway.ts'
import { openTables } from './tables.ts'

/** A page of events: some hundred kilobytes, read in one short transaction. */
const EVENTS_PAGE_MAX = 1_000

export interface RegistryOptions {
  readonly clock: Clock
  readonly random: Random
  readonly tokenLifeMs?: number
}

export interface NewGateway {
  readonly name: string
  /** Otherwise made from the name. */
  readonly id?: string
  readonly labels?: Labels
}

export interface IssuedToken {
  readonly gateway: GatewayId
  /** 43 characters; exists here and nowhere else. */
  readonly secret: string
  readonly expiresAtMs: number
}

export interface Issued {
  /** PEM. */
  readonly certificate: string
  readonly serial: string
  readonly notAfterMs: number
}

export interface EnrolRequest {
  readonly secret: string
  /** SHA-256 of the SPKI. */
  readonly publicKeyFingerprint: string
  /** Signs a certificate; called only for a token that is good. */
  readonly issue: (gateway: GatewayId) => Observable<Issued>
}

export interface Enrolment {
  readonly gateway: GatewayRecord
  readonly certificate: string
  /** The same key asked again and got the same certificate. */
  readonly repeated: boolean
}

/** Writes are cold, emit once durable, and err with disk_full or commit_failed besides what each names. */
export interface Registry {
  readonly file: string
  /** Errors: gateway_exists, gateway_invalid. */
  add(gateway: NewGateway): Observable<GatewayRecord>
  /** By id, in order. */
  list(): GatewayRecord[]
  /** A microsecond or two: asked at every CONNECT, with whatever name a certificate bears. */
  get(id: string): GatewayRecord | undefined
  /** By id or, failing that, by name: what a person typed. */
  find(idOrName: string): GatewayRecord | undefined
  /** A one-time token, in the place of an earlier one. Errors: gateway_unknown, gateway_state. */
  issueToken(id: GatewayId): Observable<IssuedToken>
  /** Errors: token_invalid, gateway_state. */
  enrol(request: EnrolRequest): Observable<Enrolment>
  /** After the first connection; changes nothing later. Errors: gateway_unknown, gateway_state. */
  activate(id: GatewayId): Observable<GatewayRecord>
  /** Errors: gateway_unknown, gateway_state, gateway_invalid. */
  suspend(id: GatewayId, because: string): Observable<GatewayRecord>
  resume(id: GatewayId): Observable<GatewayRecord>
  /** For good. */
  revoke(id: GatewayId, because: string): Observable<GatewayRecord>
  /** At most a page (1,000) of the entries behind `after`, in order. */
  events(after: number): RegistryEntry[]
  close(): Observable<void>
}

/** Throws folder_unwritable, log_version, log_unreadable. */
export const openRegistry = (
  file: string,
  { clock, random, tokenLifeMs = TOKEN_LIFE_MS_DEFAULT }: RegistryOptions,
): Registry => {
  const tables = openTables(file)
  const { events, gateways, names, tokens, transact } = tables

  /** Inside a transaction, after every decision. */
  const record = (event: RegistryEvent): GatewayRecord => {
    const entry = { seq: (events.last() ?? 0) + 1, atMs: clock.nowMs(), event }
    const next = evolve(gateways.get(event.gateway), entry)
    events.put(entry.seq, entry)
    gateways.put(next.id, next)
    return next
  }

  const known = (id: GatewayId): GatewayRecord => {
    const found = gateways.get(id)
    if (found === undefined) throw fault('gateway_unknown', { gateway: id })
    return found
  }

  /** One event for a gateway that exists, or none when `decide` sees nothing to do. Throws its refusal. */
  const change = (
    id: GatewayId,
    decide: (found: GatewayRecord) => RegistryEvent | undefined,
  ): Observable<GatewayRecord> =>
    transact(() => {
      const found = known(id)
      const event = decide(found)
      return event === undefined ? found : record(event)
    })

  const add = ({
    name: givenName,
    id: givenId,
    labels: givenLabels,
  }: NewGateway): Observable<GatewayRecord> =>
    transact(() => {
      const name = parsed(gatewayNameSchema, givenName, 'name')
      const labels = parsed(labelsSchema, givenLabels ?? {}, 'labels')
      if (names.get(name.toLowerCase()) !== undefined) throw fault('gateway_exists', { gateway: name })
      const isFree = (candidate: GatewayId) => gateways.get(candidate) === undefined
      const id =
        givenId === undefined ? chooseId({ name, isFree, randomBytes: random.bytes }) : parseId(givenId)
      if (!isFree(id)) throw fault('gateway_exists', { gateway: id })
      const channels = { controlChannel: newChannel(random), dataChannel: newChannel(random) }
      names.put(name.toLowerCase(), id)
      return record({ kind: 'gateway_added', gateway: id, name, labels, ...channels })
    })

  const issueToken = (id: GatewayId): Observable<IssuedToken> =>
    defer(() => {
      const secret = random.bytes(TOKEN_SECRET_BYTES).toString('base64url')
      return transact(() => {
        const found = known(id)
        const refusal = refuseByState(found)
        if (refusal !== undefined) throw refusal
        const hash = secretHash(secret)
        const expiresAtMs = clock.nowMs() + tokenLifeMs
        if (found.token !== undefined) tokens.remove(found.token.hash)
        tokens.put(hash, { gateway: id })
        record({ kind: 'token_issued', gateway: id, hash, expiresAtMs })
        return { gateway: id, secret, expiresAtMs }
      })
    })

  /** The gateway that a token is good for, and the certificate that it was used for. Throws the refusal. */
  const redeem = (hash: string, publicKeyFingerprint: string) => {
    const row = tokens.get(hash)
    const found = row === undefined ? undefined : gateways.get(row.gateway)
    if (found === undefined)
      throw fault('token_invalid', { because: 'it is unknown, or a newer one took its place' })
    const refusal = refuseToken({ record: found, hash, publicKeyFingerprint, nowMs: clock.nowMs() })
    if (refusal !== undefined) throw refusal
    return { found, certificate: row?.certificate }
  }

  const enrol = ({ secret, publicKeyFingerprint, issue }: EnrolRequest): Observable<Enrolment> =>
    defer(() => {
      const hash = secretHash(secret)
      tables.refresh()
      const { found, certificate } = redeem(hash, publicKeyFingerprint)
      if (certificate !== undefined) return of({ gateway: found, certificate, repeated: true })
      return issue(found.id).pipe(
        concatMap(issued =>
          transact(() => {
            // Another request may have used the token while this one was being signed: the first counts.
            const { found: current, certificate: earlier } = redeem(hash, publicKeyFingerprint)
            if (earlier !== undefined) return { gateway: current, certificate: earlier, repeated: true }
            tokens.put(hash, { gateway: current.id, certificate: issued.certificate })
            record({ kind: 'token_bound', gateway: current.id, publicKey: publicKeyFingerprint })
            const { serial, notAfterMs } = issued
            const gateway = record({
              kind: 'certificate_issued',
              gateway: current.id,
              serial,
              notAfterMs,
              publicKey: publicKeyFingerprint,
            })
            return { gateway, certificate: issued.certificate, repeated: false }
          }),
        ),
      )
    })

  return {
    file,
    add,
    list: () => {
      tables.refresh()
      return gateways.range({})
    },
    get: id => {
      if (!gatewayIdSchema.safeParse(id).success) return undefined
      tables.refresh()
      return gateways.get(id)
    },
    find: idOrName => {
      tables.refresh()
      const byId = gatewayIdSchema.safeParse(idOrName).success ? gateways.get(idOrName) : undefined
      if (byId !== undefined) return byId
      const name = gatewayNameSchema.safeParse(idOrName)
      const id = name.success ? names.get(name.data.toLowerCase()) : undefined
      return id === undefined ? undefined : gateways.get(id)
    },
    issueToken,
    enrol,
    activate: id =>
      change(id, found => {
        const refusal = refuseByState(found)
        if (refusal !== undefined) throw refusal
        return found.state === 'enrolled' ? { kind: 'gateway_activated', gateway: id } : undefined
      }),
    suspend: (id, because) =>
      change(id, found => {
        if (found.state === 'suspended') return undefined
        const refusal = refuseByState(found)
        if (refusal !== undefined) throw refusal
        return { kind: 'gateway_suspended', gateway: id, because: parsed(becauseSchema, because, 'reason') }
      }),
    resume: id =>
      change(id, found => {
        if (found.state === 'suspended') return { kind: 'gateway_resumed', gateway: id }
        const refusal = refuseByState(found)
        if (refusal !== undefined) throw refusal
        return undefined
      }),
    revoke: (id, because) =>
      change(id, found =>
        found.state === 'revoked'
          ? undefined
          : { kind: 'gateway_revoked', gateway: id, because: parsed(becauseSchema, because, 'reason') },
      ),
    events: after => {
      tables.refresh()
      return events.range({ after, limit: EVENTS_PAGE_MAX })
    },
    close: () => tables.close(),
  }
}

const parsed = <T>(schema: z.ZodType<T>, value: unknown, what: string): T => {
  const result = schema.safeParse(value)
  if (!result.success)
    throw fault('gateway_invalid', { because: `${what}: ${z.prettifyError(result.error)}` })
  return result.data
}

/** As Mainflux has them: a random UUID. */
const newChannel = (random: Random): ChannelId => {
  const bytes = random.bytes(16)
  bytes[6] = (bytes.readUInt8(6) & 0x0f) | 0x40
  bytes[8] = (bytes.readUInt8(8) & 0x3f) | 0x80
  return channelId(bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'))
}
