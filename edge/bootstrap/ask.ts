// The one request of an enrolment, over TLS that is verified against the pinned root and nothing else.

import { request } from 'node:http'
import { connect } from 'node:tls'
import { Observable } from 'rxjs'
import { type Address, formatAddress } from '../../schemas/address.ts'
import {
  ENROL_PATH,
  ENROL_REPLY_BYTES_MAX,
  type EnrolReply,
  type EnrolRequest,
  enrolRefusalSchema,
  enrolReplySchema,
} from '../../schemas/enrolment.ts'
import { type Fault, fault, reasonOf } from '../../streams/run/fault.ts'
import { serverNameOf } from './trust.ts'

/** Cold. Errors: enrol_refused with the cloud's reason, cloud_untrusted, link_unreachable. */
export const askForCertificate = (address: Address, ca: string, body: EnrolRequest): Observable<EnrolReply> =>
  new Observable(subscriber => {
    const failed = (thrown: unknown): void => subscriber.error(connectionFault(address, thrown))
    const { host, port } = address
    const socket = connect({ host, port, ca, ...serverNameOf(address), minVersion: 'TLSv1.3' })
    socket.on('error', failed)
    // Not left to https.request: that queues the body while the handshake is still to be verified.
    socket.on('secureConnect', () => {
      const text = JSON.stringify(body)
      const headers = {
        host: formatAddress(address),
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(text),
      }
      const call = request({ method: 'POST', path: ENROL_PATH, createConnection: () => socket, headers })
      call.on('error', failed)
      call.on('response', response => {
        const pieces: Buffer[] = []
        let bytes = 0
        response.on('data', (piece: Buffer) => {
          bytes += piece.length
          if (bytes <= ENROL_REPLY_BYTES_MAX) pieces.push(piece)
          else call.destroy(new Error(`its reply is longer than ${ENROL_REPLY_BYTES_MAX} bytes`))
        })
        response.on('error', failed)
        response.on('end', () => {
          const answer = readAnswer(address, response.statusCode ?? 0, Buffer.concat(pieces).toString('utf8'))
          if (answer instanceof Error) return subscriber.error(answer)
          subscriber.next(answer)
          subscriber.complete()
        })
      })
      call.end(text)
    })
    return () => socket.destroy()
  })

const readAnswer = (address: Address, status: number, text: string): EnrolReply | Fault => {
  const at = formatAddress(address)
  const value = parseJson(text)
  if (status === 200) {
    const reply = enrolReplySchema.safeParse(value)
    return reply.success
      ? reply.data
      : fault('enrol_refused', {
          address: at,
          because: 'its reply is not one that this program knows: is one of the two older?',
        })
  }
  const refusal = enrolRefusalSchema.safeParse(value)
  const because = refusal.success ? refusal.data.because : `HTTP status ${status}`
  return fault('enrol_refused', {
    address: at,
    because,
    code: refusal.success ? refusal.data.code : undefined,
    status,
  })
}

const parseJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What OpenSSL and Node say when a certificate does not verify. */
const TRUST_CODES = /^(?:CERT_|ERR_TLS_CERT|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|INVALID_(?:CA|PURPOSE))/

const connectionFault = (address: Address, thrown: unknown): Fault => {
  const at = formatAddress(address)
  const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : ''
  if (!TRUST_CODES.test(code))
    return fault('link_unreachable', { address: at, because: reasonOf(thrown) }, thrown)
  const clock =
    code === 'CERT_NOT_YET_VALID' || code === 'CERT_HAS_EXPIRED'
      ? ', or the clock of this machine is wrong'
      : ''
  return fault('cloud_untrusted', { address: at, because: reasonOf(thrown) + clock }, thrown)
}
