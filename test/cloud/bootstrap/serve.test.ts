// The enrolment listener as a stranger sees it: real HTTPS, real registry.

import { X509Certificate } from 'node:crypto'
import { request } from 'node:https'
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net'
import { connect } from 'node:tls'
import { lastValueFrom, of, throwError } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { bucketOf } from '../../../cloud/bootstrap/limits.ts'
import { serveEnrolment } from '../../../cloud/bootstrap/serve.ts'
import { makeKey, requestCertificate } from '../../../edge/bootstrap/csr.ts'
import { enrolReplySchema, parseToken } from '../../../schemas/enrolment.ts'
import { gatewayId } from '../../../schemas/ids.ts'
import { systemClock } from '../../../streams/run/clock.ts'
import { fault, isFault } from '../../../streams/run/fault.ts'
import { type Installation, install } from './installation.ts'

interface Answer {
  readonly status: number
  readonly body: unknown
  readonly text: string
}

const call = (
  cloud: Installation,
  { method = 'POST', path = '/enrol', body = '', type = 'application/json' } = {},
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const headers = { 'content-type': type, 'content-length': Buffer.byteLength(body) }
    const asked = request(
      {
        method,
        path,
        host: '127.0.0.1',
        port: cloud.port,
        ca: cloud.pki.ca.certificate,
        agent: false,
        headers,
      },
      response => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', piece => {
          text += piece
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text, body: JSON.parse(text) }))
      },
    )
    asked.on('error', reject)
    asked.end(body)
  })

const secretOf = (token: string): string => {
  const parsed = parseToken(token)
  if (!parsed.ok) throw new Error(parsed.because)
  return parsed.value.secret
}
const csrFor = (key = makeKey()) => requestCertificate(key, gatewayId('plant-7'))
const enrolBody = async (token: string, key?: string) =>
  JSON.stringify({ secret: secretOf(token), csr: await csrFor(key) })

let cloud: Installation
test.before(async () => {
  cloud = await install()
})
test.after(() => cloud.stop())

test('a good token and request give certificate, root, channels, address and configuration', async () => {
  const token = await cloud.token('plant-7')
  const { status, body } = await call(cloud, { body: await enrolBody(token) })
  assert.is(status, 200)
  const reply = enrolReplySchema.parse(body)
  const record = cloud.registry.get('plant-7')
  assert.is(reply.gateway, 'plant-7')
  assert.is(reply.ca, cloud.pki.ca.certificate)
  assert.equal(reply.channels, { control: record?.controlChannel, data: record?.dataChannel })
  assert.equal([reply.cloud, reply.config], [{ address: '127.0.0.1:8883' }, { logs: { level: 'info' } }])
  assert.is(new X509Certificate(reply.certificate).serialNumber, record?.serial)
  const [notice] = cloud.notices.slice(-1)
  assert.equal(notice, {
    kind: 'enrolled',
    gateway: gatewayId('plant-7'),
    serial: record?.serial,
    from: '127.0.0.1',
    repeated: false,
  })
})

test('the same key is given the same certificate until the token ends; another key is told that it was used', async () => {
  const token = await cloud.token('plant-8')
  const key = makeKey()
  const first = await call(cloud, { body: await enrolBody(token, key) })
  const again = await call(cloud, { body: await enrolBody(token, key) })
  assert.is(again.text, first.text)
  const other = await call(cloud, { body: await enrolBody(token) })
  assert.is(other.status, 403)
  assert.match(other.text, /"code":"token_invalid".*another key has used it already/)
  cloud.aheadMs = 24 * 60 * 60 * 1000 + 1
  assert.match((await call(cloud, { body: await enrolBody(token, key) })).text, /it expired on /)
  cloud.aheadMs = 0
})

test('an unknown secret and a request that was tampered with are refused with the reason, and reported', async () => {
  const secret = Buffer.alloc(32).toString('base64url')
  const unknown = await call(cloud, { body: JSON.stringify({ secret, csr: await csrFor() }) })
  assert.is(unknown.status, 403)
  assert.match(unknown.text, /"code":"token_invalid".*unknown/)
  const token = await cloud.token('plant-9')
  const der = Buffer.from((await csrFor()).replace(/-----.*-----|\s/g, ''), 'base64')
  der.write('PLANT', der.indexOf('plant'))
  const csr = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64')}\n-----END CERTIFICATE REQUEST-----`
  const tampered = await call(cloud, { body: JSON.stringify({ secret: secretOf(token), csr }) })
  assert.is(tampered.status, 400)
  assert.match(tampered.text, /"code":"csr_invalid".*not by its own key/)
  assert.is(cloud.registry.get('plant-9')?.state, 'registered')
  const codes = cloud.notices.slice(-2).map(notice => (notice.kind === 'refused' ? notice.code : notice.kind))
  assert.equal(codes, ['token_invalid', 'csr_invalid'])
  assert.not(JSON.stringify(cloud.notices).includes(secretOf(token)))
})

test('whatever is not the one request is refused, and the listener goes on', async () => {
  assert.is((await call(cloud, { method: 'GET', path: '/' })).status, 404)
  assert.is((await call(cloud, { method: 'GET' })).status, 404)
  assert.is((await call(cloud, { path: '/api/gateways', body: '{}' })).status, 404)
  assert.is((await call(cloud, { body: 'rubbish' })).status, 400)
  assert.is((await call(cloud, { body: '{}' })).status, 400)
  assert.is((await call(cloud, { body: '[1]' })).status, 400)
  assert.is((await call(cloud, { body: JSON.stringify({ secret: 'short', csr: '' }) })).status, 400)
  assert.is((await call(cloud, { body: 'x', type: 'text/html' })).status, 415)
  assert.is((await call(cloud, { body: JSON.stringify({ secret: 'x'.repeat(17_000) }) })).status, 413)
  const token = await cloud.token('plant-10')
  assert.is((await call(cloud, { body: await enrolBody(token) })).status, 200)
})

test('TLS 1.2 and plain text get nothing', async () => {
  const reached = await new Promise(resolve => {
    const socket = connect(
      { host: '127.0.0.1', port: cloud.port, maxVersion: 'TLSv1.2', rejectUnauthorized: false },
      () => resolve('secure'),
    )
    socket.on('error', thrown => resolve('code' in thrown ? thrown.code : thrown.message))
  })
  assert.match(String(reached), /PROTOCOL_VERSION/)
  const plain = await new Promise(resolve => {
    const socket = connectTcp(cloud.port, '127.0.0.1', () => socket.write('POST /enrol HTTP/1.1\r\n\r\n'))
    let said = ''
    socket.on('data', piece => {
      said += piece.toString('latin1')
    })
    socket.on('error', () => undefined)
    socket.on('close', () => resolve(said))
  })
  assert.not.match(String(plain), 'HTTP/1.1 200')
})

test('an address that asks too often is told to wait, and counted; so is everybody together', async () => {
  const strict = await install({ requestsPerMinuteMaxOfAddress: 3, requestsPerMinuteMax: 1_000 })
  const statuses = []
  for (let i = 0; i < 5; i++) statuses.push((await call(strict, { body: '{}' })).status)
  assert.equal(statuses, [400, 400, 400, 429, 429])
  assert.is(strict.notices.filter(({ kind }) => kind === 'limited').length, 2)
  await strict.stop()
  const crowded = await install({ requestsPerMinuteMaxOfAddress: 1_000, requestsPerMinuteMax: 2 })
  const answers = []
  for (let i = 0; i < 3; i++) answers.push((await call(crowded, { body: '{}' })).status)
  assert.equal(answers, [400, 400, 429])
  assert.equal(crowded.notices.slice(-1), [{ kind: 'limited', from: '127.0.0.1', limit: 'all' }])
  await crowded.stop()
})

test('the bucket of all refills with time and never holds more than a minute', () => {
  let monoMs = 0
  const take = bucketOf(60, { ...systemClock(), monoMs: () => monoMs })
  const takes = (count: number) => Array.from({ length: count }, take).filter(Boolean).length
  assert.is(takes(100), 60)
  monoMs += 10_000
  assert.is(takes(100), 10)
  monoMs += 3_600_000
  assert.is(takes(100), 60)
})

test('a port in use is named with the key that moves it', async () => {
  const taken = createServer()
  await new Promise<void>(done => taken.listen(0, '127.0.0.1', done))
  const { port } = taken.address() as AddressInfo
  const source = serveEnrolment({
    ...cloud,
    listen: { host: '127.0.0.1', port },
    gatewayAddress: '127.0.0.1:8883',
  })
  const thrown = await lastValueFrom(source).catch((error: unknown) => error)
  assert.ok(isFault(thrown) && thrown.code === 'port_in_use')
  assert.match(
    String(thrown),
    `127.0.0.1:${port} is in use by another program: stop it, or set enrolment.port`,
  )
  await new Promise(done => taken.close(done))
})

test('unsubscribing closes the port', async () => {
  const brief = await install()
  await brief.stop()
  const outcome = await call(brief).catch((thrown: unknown) =>
    thrown instanceof Error && 'code' in thrown ? thrown.code : 'other',
  )
  assert.is(outcome, 'ECONNREFUSED')
})

test('a full disk is answered "later" without its details; a defect of ours ends the listener', async () => {
  const outcomes: unknown[] = []
  const serveWith = (error: unknown) =>
    new Promise<Answer>((resolve, reject) => {
      const subscription = serveEnrolment({
        listen: { host: '127.0.0.1', port: 0 },
        pki: { ...cloud.pki, keyOf: () => of('a'.repeat(64)) },
        registry: { enrol: () => throwError(() => error) },
        clock: cloud.clock,
        gatewayAddress: '127.0.0.1:8883',
      }).subscribe({
        next: notice => {
          if (notice.kind !== 'listening') return
          const body = JSON.stringify({ secret: 'x'.repeat(43), csr: '' })
          call({ ...cloud, port: notice.port }, { body })
            .then(resolve, reject)
            .finally(() => subscription.unsubscribe())
        },
        error: defect => outcomes.push(defect),
      })
    })
  const full = await serveWith(fault('disk_full', { file: '/secret/place' }))
  assert.is(full.status, 503)
  assert.not.match(full.text, '/secret/place')
  assert.equal(outcomes, [])
  const defect = new TypeError('ours')
  assert.is((await serveWith(defect)).status, 500)
  assert.equal(outcomes, [defect])
})

test.run()
