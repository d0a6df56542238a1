// Mutual TLS 1.3 handshakes a second with EC P-256, full and resumed: the server in a process of its own, so that both
// ends have a core. A handshake counts when the server has taken the client's certificate.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect, createSecureContext, type SecureContext } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { createCa, issueGateway, issueServer, makeKey } from '../../cloud/pki/issue.ts'
import { requestCertificate } from '../../edge/bootstrap/csr.ts'
import { gatewayId } from '../../schemas/ids.ts'
import { systemClock, systemRandom } from '../../streams/run/clock.ts'
import { workerUrl } from '../../streams/run/worker.ts'

export interface Measured {
  readonly perSecond: number
  /** Of each, while `AT_ONCE` are under way. */
  readonly latenciesMs: readonly number[]
}

export interface Handshakes {
  readonly full: Measured
  readonly resumed: Measured | undefined
}

export interface Wish {
  /** Of each kind. */
  readonly forMs: number
  readonly resumed: boolean
}

/** Enough that neither end waits for the other. */
const AT_ONCE = 16
const HANDSHAKE_MS_MAX = 10_000
const LISTEN_MS_MAX = 10_000

export const measureHandshakes = async (wish: Wish): Promise<Handshakes> => {
  const { server, client } = await makeIdentities()
  // Runs as what this file runs as: TypeScript or a build. In a thread, both ends would share OpenSSL's locks: −20 %.
  const child = fork(fileURLToPath(workerUrl(import.meta.url, './bareserver')))
  try {
    child.send(server)
    const [address] = (await once(child, 'message', {
      signal: AbortSignal.timeout(LISTEN_MS_MAX),
    })) as [AddressInfo]
    return await measure(address.port, createSecureContext(client), wish)
  } finally {
    child.kill()
  }
}

/** PEM, all. */
interface Identity {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

const makeIdentities = async (): Promise<{ readonly server: Identity; readonly client: Identity }> => {
  const chance = { clock: systemClock(), random: systemRandom }
  const ca = await createCa(chance)
  const [key, clientKey] = [makeKey(), makeKey()]
  const gateway = gatewayId('bench')
  const names = { dns: ['localhost'], ips: ['127.0.0.1'] }
  const server = await issueServer({ ...chance, ca, key, names })
  const csr = await requestCertificate(clientKey, gateway)
  const client = await issueGateway({ ...chance, ca, csr, gateway })
  return {
    server: { ca: ca.certificate, cert: server.certificate, key },
    client: { ca: ca.certificate, cert: client.certificate, key: clientKey },
  }
}

const measure = async (
  port: number,
  context: SecureContext,
  { forMs, resumed }: Wish,
): Promise<Handshakes> => {
  const full = await many(forMs, () => handshake(port, context))
  if (!resumed) return { full, resumed: undefined }
  const ticket = await handshake(port, context)
  return { full, resumed: await many(forMs, () => handshake(port, context, ticket)) }
}

const many = async (forMs: number, one: () => Promise<unknown>): Promise<Measured> => {
  const startedMs = performance.now()
  const latenciesMs: number[] = []
  const lane = async (): Promise<void> => {
    for (let atMs = startedMs; atMs - startedMs < forMs; ) {
      await one()
      const doneMs = performance.now()
      latenciesMs.push(doneMs - atMs)
      atMs = doneMs
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, lane))
  return { perSecond: latenciesMs.length / ((performance.now() - startedMs) / 1_000), latenciesMs }
}

/** Resolves with the first ticket that the server gave. */
const handshake = (
  port: number,
  secureContext: SecureContext,
  ticket?: Buffer,
): Promise<Buffer | undefined> =>
  new Promise((resolve, reject) => {
    let given: Buffer | undefined
    const socket = connect({
      host: '127.0.0.1',
      port,
      secureContext,
      servername: 'localhost',
      minVersion: 'TLSv1.3',
      ...(ticket === undefined ? {} : { session: ticket }),
    })
    socket.setTimeout(HANDSHAKE_MS_MAX, () =>
      socket.destroy(new Error(`no handshake in ${HANDSHAKE_MS_MAX} ms`)),
    )
    socket.on('session', session => {
      given ??= session
    })
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('the connection ended before the handshake did')))
    socket.once('data', () => {
      const asked = ticket === undefined ? 'full' : 'resumed'
      const got = socket.isSessionReused() ? 'resumed' : 'full'
      if (got === asked) resolve(given)
      else reject(new Error(`a ${got} handshake, where a ${asked} one was asked for`))
      socket.destroy()
    })
  })
