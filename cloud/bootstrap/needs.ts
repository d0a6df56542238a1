// What enrolment asks of the registry and of the certificate authority, and what it reports.

import type { Observable } from 'rxjs'
import type { ChannelId, GatewayId } from '../../schemas/ids.ts'

export interface SignedCertificate {
  /** PEM. */
  readonly certificate: string
  readonly serial: string
  readonly notAfterMs: number
}

/** The part of `Pki` that is used here. */
export interface Authority {
  readonly ca: { readonly certificate: string }
  readonly server: { readonly chain: string; readonly key: string }
  /** Errors: csr_invalid. */
  keyOf(csr: string): Observable<string>
  /** Errors: csr_invalid. */
  issueGateway(request: { readonly csr: string; readonly gateway: GatewayId }): Observable<SignedCertificate>
}

export interface EnrolledGateway {
  readonly id: GatewayId
  readonly serial?: string | undefined
  readonly controlChannel: ChannelId
  readonly dataChannel: ChannelId
}

/** The part of `Registry` that is used here. */
export interface Tokens {
  /** Emits once durable. Errors: token_invalid, gateway_state, disk_full, commit_failed. */
  enrol(request: {
    readonly secret: string
    readonly publicKeyFingerprint: string
    readonly issue: (gateway: GatewayId) => Observable<SignedCertificate>
  }): Observable<{
    readonly gateway: EnrolledGateway
    readonly certificate: string
    readonly repeated: boolean
  }>
}

export type EnrolmentNotice =
  | { readonly kind: 'listening'; readonly host: string; readonly port: number }
  /** `repeated`: the same key asked again and got the same certificate. */
  | {
      readonly kind: 'enrolled'
      readonly gateway: GatewayId
      readonly serial: string | undefined
      readonly from: string
      readonly repeated: boolean
    }
  /** `code` is a fault's, or request_malformed. */
  | { readonly kind: 'refused'; readonly from: string; readonly code: string; readonly because: string }
  /** Told once for each request that a limit turned away. */
  | { readonly kind: 'limited'; readonly from: string; readonly limit: 'address' | 'all' | 'connections' }
