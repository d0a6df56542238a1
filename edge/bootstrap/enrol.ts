// What `headgate-edge enroll TOKEN` does: key, request, certificate, identity on disk.
//
// The key is on disk before anything is sent, so that a retry after a lost reply asks with the same key and is
// given the same certificate. The token's secret goes only to the holder of the CA that the token names.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { concatMap, defer, from, map, type Observable, of, throwError, timeout } from 'rxjs'
import { type Address, formatAddress, parseAddress } from '../../schemas/address.ts'
import { type EnrolReply, type EnrolToken, parseToken } from '../../schemas/enrolment.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { fault } from '../../streams/run/fault.ts'
import {
  MODE_PRIVATE,
  makePrivateFolder,
  readIfThere,
  removeFiles,
  writeWhole,
} from '../../streams/run/files.ts'
import { askForCertificate } from './ask.ts'
import { keyFingerprint, makeKey, requestCertificate } from './csr.ts'
import { hasIdentity, type Identity, loadIdentity, storeIdentity } from './identity.ts'
import { fetchRoot, sha256Of } from './trust.ts'

/** The key of an enrolment that has not ended. */
const PENDING_KEY = 'pending.key'

/** Four round trips on the worst of links, and a cloud that is busy. */
export const REPLY_WAIT_MS_MAX_DEFAULT = 30_000

export interface Enrol {
  /** As a person pasted it. */
  readonly token: string
  /** `<data>/identity`. */
  readonly folder: string
  readonly clock: Clock
  /** Replace an identity that is there, with a new key. */
  readonly force?: boolean
  /** For each of the two connections. */
  readonly replyWaitMsMax?: number
}

export type Enrolled =
  | { readonly kind: 'enrolled'; readonly identity: Identity }
  /** Nothing was sent and nothing was changed. */
  | { readonly kind: 'already_enrolled'; readonly identity: Identity }

/**
 * Cold; emits once. Errors: token_invalid, folder_unwritable, identity_invalid (the one that is there),
 * link_unreachable, cloud_untrusted, enrol_refused with the cloud's reason.
 */
export const enrol = ({
  token: text,
  folder,
  clock,
  force = false,
  replyWaitMsMax = REPLY_WAIT_MS_MAX_DEFAULT,
}: Enrol): Observable<Enrolled> =>
  defer(() => {
    if (!force && hasIdentity(folder))
      return of({ kind: 'already_enrolled' as const, identity: loadIdentity(folder, clock) })
    const { token, address } = openToken(text)
    makePrivateFolder(folder)
    const key = pendingKey(folder, clock)
    const inTime = <T>(source: Observable<T>): Observable<T> =>
      source.pipe(
        timeout({
          each: replyWaitMsMax,
          scheduler: clock.scheduler,
          with: () => throwError(() => silence(address, replyWaitMsMax)),
        }),
      )
    return inTime(fetchRoot(address, token.ca)).pipe(
      concatMap(ca =>
        from(requestCertificate(key, token.gateway)).pipe(
          concatMap(csr => inTime(askForCertificate(address, ca, { secret: token.secret, csr }))),
        ),
      ),
      map(reply => {
        const because = distrustReply(reply, token, key)
        if (because !== undefined) throw fault('enrol_refused', { address: token.address, because })
        storeIdentity(folder, {
          gateway: reply.gateway,
          address: reply.cloud.address,
          ca: reply.ca,
          cert: reply.certificate,
          key,
          channels: reply.channels,
          config: reply.config,
        })
        removeFiles([join(folder, PENDING_KEY)])
        return { kind: 'enrolled' as const, identity: loadIdentity(folder, clock) }
      }),
    )
  })

const openToken = (text: string): { token: EnrolToken; address: Address } => {
  const parsed = parseToken(text)
  if (!parsed.ok)
    throw fault('token_invalid', {
      because: `${parsed.because}; copy it whole from "headgate-cloud gateway add"`,
    })
  const address = parseAddress(parsed.value.address)
  if (address === undefined)
    throw fault('token_invalid', { because: `"${parsed.value.address}" is not host:port` })
  return { token: parsed.value, address }
}

const silence = (address: Address, waitedMs: number) =>
  fault('link_unreachable', { address: formatAddress(address), because: `no answer within ${waitedMs} ms` })

/** The key of an earlier try, unless that try ended well; otherwise a new one, on disk when this returns. */
const pendingKey = (folder: string, clock: Clock): string => {
  const file = join(folder, PENDING_KEY)
  const earlier = readIfThere(file)
  if (earlier !== undefined && isKey(earlier) && !isCurrentKey(folder, clock, earlier)) return earlier
  const key = makeKey()
  writeWhole(file, key, MODE_PRIVATE)
  return key
}

const isKey = (pem: string): boolean => {
  try {
    return createPrivateKey(pem).asymmetricKeyDetails?.namedCurve === 'prime256v1'
  } catch {
    return false
  }
}

/** A crash may have come between storing an identity and forgetting that its key was pending. */
const isCurrentKey = (folder: string, clock: Clock, key: string): boolean => {
  try {
    return keyFingerprint(loadIdentity(folder, clock).key) === keyFingerprint(key)
  } catch {
    // No identity that counts.
    return false
  }
}

/** Why a reply is not the answer to what was asked, if so. */
const distrustReply = (
  { gateway, certificate, ca }: EnrolReply,
  token: EnrolToken,
  key: string,
): string | undefined => {
  const [leaf, root] = [certificateOf(certificate), certificateOf(ca)]
  if (leaf === undefined || root === undefined) return 'its reply holds no readable certificates'
  if (gateway !== token.gateway)
    return `its reply is for gateway "${gateway}", the token for "${token.gateway}"`
  if (sha256Of(root.raw) !== token.ca) return 'its reply holds another CA than the token names'
  if (!leaf.checkIssued(root) || !leaf.verify(root.publicKey))
    return 'its reply holds a certificate that its CA has not signed'
  if (!leaf.checkPrivateKey(createPrivateKey(key))) return 'its reply holds a certificate for another key'
  if (leaf.subject !== `CN=${token.gateway}`) return `its reply holds a certificate for "${leaf.subject}"`
  return undefined
}

const certificateOf = (pem: string): X509Certificate | undefined => {
  try {
    return new X509Certificate(pem)
  } catch {
    return undefined
  }
}
