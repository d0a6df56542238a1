// Is the machine at an address the cloud that the token names? Asked before anything secret is sent.
// The root is known by its fingerprint alone: it must be in the chain that the other side presents, have signed
// that chain, and the first certificate must name the host.

import { createHash, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { connect, type DetailedPeerCertificate } from 'node:tls'
import { Observable } from 'rxjs'
import { type Address, formatAddress } from '../../schemas/address.ts'
import { fault, reasonOf } from '../../streams/run/fault.ts'

/** Leaf, intermediates, root: no sane chain is longer. */
const CHAIN_LENGTH_MAX = 5

export const sha256Of = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** SNI carries names only. */
export const serverNameOf = ({ host }: Address): { servername?: string } =>
  isIP(host) === 0 ? { servername: host } : {}

/** Cold. Emits the root as PEM. Errors: link_unreachable, cloud_untrusted. */
export const fetchRoot = (address: Address, fingerprint: string): Observable<string> =>
  new Observable(subscriber => {
    const { host, port } = address
    // Nothing is sent on this connection, so that it verifies nothing yet costs nothing.
    const socket = connect(
      { host, port, ...serverNameOf(address), rejectUnauthorized: false, minVersion: 'TLSv1.3' },
      () => {
        try {
          const chain = certificatesOf(socket.getPeerCertificate(true))
          const because = distrust(chain, address, fingerprint)
          if (because !== undefined)
            throw fault('cloud_untrusted', { address: formatAddress(address), because })
          const root = chain.find(({ raw }) => sha256Of(raw) === fingerprint)
          subscriber.next(root?.toString() ?? '')
          subscriber.complete()
        } catch (thrown) {
          subscriber.error(thrown)
        }
      },
    )
    socket.on('error', thrown =>
      subscriber.error(
        fault('link_unreachable', { address: formatAddress(address), because: reasonOf(thrown) }, thrown),
      ),
    )
    socket.on('close', () =>
      subscriber.error(
        fault('link_unreachable', { address: formatAddress(address), because: 'it closed the connection' }),
      ),
    )
    return () => socket.destroy()
  })

/** As presented, from the leaf up. */
const certificatesOf = (leaf: DetailedPeerCertificate): X509Certificate[] => {
  const chain: X509Certificate[] = []
  let next: DetailedPeerCertificate | undefined = leaf
  while (next?.raw !== undefined && chain.length < CHAIN_LENGTH_MAX) {
    chain.push(new X509Certificate(next.raw))
    // A root is its own issuer.
    next = next.issuerCertificate === next ? undefined : next.issuerCertificate
  }
  return chain
}

/** Why a chain is not to be trusted for this address, if so. */
const distrust = (
  chain: readonly X509Certificate[],
  { host }: Address,
  fingerprint: string,
): string | undefined => {
  const rootAt = chain.findIndex(({ raw }) => sha256Of(raw) === fingerprint)
  const [leaf] = chain
  if (leaf === undefined) return 'it presented no certificate'
  if (rootAt < 0) return 'its certificates are not of the CA with the fingerprint in the token'
  for (const [i, certificate] of chain.slice(0, rootAt + 1).entries()) {
    const issuer = chain[Math.min(i + 1, rootAt)]
    if (
      issuer === undefined ||
      !issuer.ca ||
      !certificate.checkIssued(issuer) ||
      !certificate.verify(issuer.publicKey)
    ) {
      return 'its certificate is not signed by the CA in the token'
    }
  }
  const names = isIP(host) === 0 ? leaf.checkHost(host) : leaf.checkIP(host)
  return names === undefined
    ? `its certificate is not for "${host}": run "headgate-cloud init --host ${host}" there`
    : undefined
}
