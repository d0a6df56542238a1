// Enrolment end to end: the real edge side against the real cloud side, with relays and impostors in between.

import { X509Certificate } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer as createHttps } from 'node:https'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls, createServer as createTls } from 'node:tls'
import { lastValueFrom } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { namesOf } from '../../../cloud/pki/hosts.ts'
import { createCa, issueServer, makeKey } from '../../../cloud/pki/issue.ts'
import { admit } from '../../../cloud/registry/admit.ts'
import { type Enrol, enrol } from '../../../edge/bootstrap/enrol.ts'
import { loadIdentity } from '../../../edge/bootstrap/identity.ts'
import { formatToken, parseToken } from '../../../schemas/enrolment.ts'
import { type Clock, systemClock } from '../../../streams/run/clock.ts'
import { isFault } from '../../../streams/run/fault.ts'
import { type Installation, install, random } from '../../cloud/bootstrap/installation.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const clock = systemClock()

let cloud: Installation
const folders: string[] = []
const servers: Server[] = []
test.before(async () => {
  cloud = await install()
})
test.after(async () => {
  for (const server of servers) server.close()
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
  await cloud.stop()
})

const freshFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'headgate-edge-'))
  folders.push(folder)
  return join(folder, 'identity')
}
const run = (options: Omit<Enrol, 'clock'>) =>
  lastValueFrom(enrol({ clock, replyWaitMsMax: 5_000, ...options }))
const faultOf = async (action: () => unknown): Promise<string> => {
  try {
    await action()
  } catch (thrown) {
    if (isFault(thrown)) return `${thrown.code}: ${thrown.message}`
    throw thrown
  }
  return 'no fault'
}
const contents = (folder: string) =>
  readdirSync(folder)
    .sort()
    .map(name => [name, readFileSync(join(folder, name), 'utf8')])
const listening = async (server: Server): Promise<number> => {
  servers.push(server)
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  return (server.address() as AddressInfo).port
}
/** `route` gives the port for the nth connection; `spy` may cut what comes back. */
const relay = (
  route: (nth: number) => number,
  spy: (nth: number, reply: Buffer, client: Socket) => void = () => undefined,
) => {
  let count = 0
  return listening(
    createServer(client => {
      const nth = ++count
      const upstream = connect(route(nth), '127.0.0.1')
      client.on('data', piece => upstream.write(piece))
      upstream.on('data', piece => {
        spy(nth, piece, client)
        if (!client.destroyed) client.write(piece)
      })
      for (const [a, b] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        a.on('error', () => b.destroy())
        a.on('close', () => b.destroy())
      }
    }),
  )
}
/** HTTPS under another key; remembers everything that anybody told it. */
const impostor = async (chain: (own: { leaf: string; ca: string }) => string) => {
  const heard: string[] = []
  const ca = await createCa({ clock, random })
  const key = makeKey()
  const { certificate } = await issueServer({ ca, key, names: namesOf(['127.0.0.1']), clock, random })
  const server = createHttps(
    { key, cert: chain({ leaf: certificate, ca: ca.certificate }) },
    (request, response) => {
      heard.push(request.url ?? '')
      request.on('data', piece => heard.push(String(piece)))
      request.on('end', () => response.writeHead(200).end('{}'))
    },
  )
  server.on('tlsClientError', () => undefined)
  server.on('secureConnection', socket =>
    socket.on('data', (piece: Buffer) => heard.push(piece.toString('latin1'))),
  )
  return { port: await listening(server), heard }
}

test('a token makes an identity: key made here, certificate for it, and the cloud lets it in over mutual TLS', async () => {
  const folder = freshFolder()
  const outcome = await run({ token: `  ${await cloud.token('plant-7')}\n`, folder })
  assert.is(outcome.kind, 'enrolled')
  const { identity } = outcome
  const record = cloud.registry.get('plant-7')
  assert.equal(
    [identity.gateway, identity.address, identity.serial],
    ['plant-7', '127.0.0.1:8883', record?.serial],
  )
  assert.equal(identity.channels, { control: record?.controlChannel, data: record?.dataChannel })
  assert.equal(identity.config, { logs: { level: 'info' } })
  assert.equal(loadIdentity(folder, clock), identity)
  assert.equal(identity.warnings, [])
  assert.is(statSync(folder).mode & 0o777, 0o700)
  for (const name of readdirSync(folder).filter(each => each.endsWith('.key')))
    assert.is(statSync(join(folder, name)).mode & 0o777, 0o600)
  assert.not(existsSync(join(folder, 'pending.key')))

  const { pki, registry } = cloud
  const server = createTls({
    cert: pki.server.chain,
    key: pki.server.key,
    ca: pki.ca.certificate,
    requestCert: true,
    minVersion: 'TLSv1.3',
  })
  const port = await listening(server)
  const verdict = await new Promise((resolve, reject) => {
    server.on('tlsClientError', reject)
    server.on('secureConnection', socket => {
      const { subject, serialNumber, valid_to } = socket.getPeerCertificate()
      const certificate = {
        commonName: String(subject.CN),
        serial: serialNumber,
        notAfterMs: Date.parse(valid_to),
        resumed: false,
      }
      const peer = { clientId: 'plant-7', username: undefined, address: 'x', connection: 'x', certificate }
      resolve(admit(peer, registry.get(certificate.commonName), clock.nowMs()))
      socket.destroy()
    })
    const client = connectTls({
      host: '127.0.0.1',
      port,
      ca: identity.ca,
      cert: identity.cert,
      key: identity.key,
    })
    client.on('error', () => undefined)
  })
  assert.equal(verdict, { kind: 'allow' })
})

test('run again it says so and changes nothing; with force it makes a new key, and the old files go', async () => {
  const folder = freshFolder()
  const first = await run({ token: await cloud.token('again'), folder })
  const before = contents(folder)
  const next = await cloud.token('again')
  const second = await run({ token: next, folder })
  assert.equal([second.kind, second.identity], ['already_enrolled', first.identity])
  assert.equal(contents(folder), before)
  const forced = await run({ token: next, folder, force: true })
  assert.is(forced.kind, 'enrolled')
  assert.is.not(forced.identity.key, first.identity.key)
  assert.is(forced.identity.serial, cloud.registry.get('again')?.serial)
  assert.is(readdirSync(folder).length, 4)
})

test('a lost reply locks nobody out: the next try asks with the same key and gets the same certificate', async () => {
  const folder = freshFolder()
  let cuts = 0
  // The second connection carries the request: its reply is cut once the cloud has enrolled.
  const port = await relay(
    () => cloud.port,
    (nth, _, client) => {
      if (nth !== 2 || cloud.registry.get('lossy')?.state !== 'enrolled') return
      cuts += 1
      client.destroy()
    },
  )
  const token = await cloud.token('lossy', port)
  assert.match(await faultOf(() => run({ token, folder })), /^link_unreachable: /)
  assert.is(cuts, 1)
  const serial = cloud.registry.get('lossy')?.serial
  const key = readFileSync(join(folder, 'pending.key'), 'utf8')
  assert.is(statSync(join(folder, 'pending.key')).mode & 0o777, 0o600)
  const { identity } = await run({ token, folder })
  assert.equal([identity.serial, identity.key], [serial, key])
})

test('another machine cannot use a token that was used, and is told why', async () => {
  const token = await cloud.token('taken')
  await run({ token, folder: freshFolder() })
  const said = await faultOf(() => run({ token, folder: freshFolder() }))
  assert.match(
    said,
    /^enrol_refused: 127\.0\.0\.1:\d+ refused the enrolment: .*another key has used it already/,
  )
})

test('an expired and an unknown token are refused with the reason of the cloud', async () => {
  const token = await cloud.token('late')
  cloud.aheadMs = DAY_MS + 1
  assert.match(
    await faultOf(() => run({ token, folder: freshFolder() })),
    /^enrol_refused: .*it expired on 20/,
  )
  cloud.aheadMs = 0
  await cloud.token('late')
  assert.match(
    await faultOf(() => run({ token, folder: freshFolder() })),
    /^enrol_refused: .*unknown, or a newer one took its place/,
  )
})

test('text that is no token is refused before anything is made', async () => {
  const folder = freshFolder()
  const good = await cloud.token('garbled')
  for (const token of [
    '',
    'hello',
    'hg1.',
    'hg1.e30',
    good.slice(0, -20),
    good.replace('hg1', 'hg2'),
    `hg1.${'x'.repeat(5_000)}`,
  ]) {
    assert.match(await faultOf(() => run({ token, folder })), /^token_invalid: /, token.slice(0, 20))
  }
  assert.not(existsSync(folder))
})

test('a cloud with another CA never hears the secret', async () => {
  const { port, heard } = await impostor(({ leaf, ca }) => leaf + ca)
  const said = await faultOf(async () =>
    run({ token: await cloud.token('lured', port), folder: freshFolder() }),
  )
  assert.match(said, /^cloud_untrusted: .*not of the CA with the fingerprint in the token/)
  assert.equal(heard, [])
})

test('an impostor that presents the true root behind its own certificate never hears the secret', async () => {
  const { port, heard } = await impostor(({ leaf }) => leaf + cloud.pki.ca.certificate)
  const said = await faultOf(async () =>
    run({ token: await cloud.token('lured-2', port), folder: freshFolder() }),
  )
  assert.match(said, /^cloud_untrusted: /)
  assert.equal(heard, [])
})

test('an impostor that steps in after the root was fetched never hears the secret', async () => {
  for (const withRoot of [true, false]) {
    const { port: theirs, heard } = await impostor(
      ({ leaf, ca }) => leaf + (withRoot ? cloud.pki.ca.certificate : ca),
    )
    const port = await relay(nth => (nth === 1 ? cloud.port : theirs))
    const said = await faultOf(async () =>
      run({ token: await cloud.token('lured-3', port), folder: freshFolder() }),
    )
    assert.match(said, /^cloud_untrusted: /)
    assert.equal(heard, [])
  }
})

test('a certificate of the right CA for another host is refused, and says how to mend it', async () => {
  const folder = join(cloud.data, 'pki')
  const ca = { certificate: cloud.pki.ca.certificate, key: readFileSync(join(folder, 'ca.key'), 'utf8') }
  const key = makeKey()
  const { certificate } = await issueServer({ ca, key, names: namesOf(['other.example.org']), clock, random })
  const port = await listening(createTls({ key, cert: certificate + ca.certificate }))
  const said = await faultOf(async () =>
    run({ token: await cloud.token('elsewhere', port), folder: freshFolder() }),
  )
  assert.match(
    said,
    /^cloud_untrusted: .*not for "127\.0\.0\.1": run "headgate-cloud init --host 127\.0\.0\.1"/,
  )
})

test('nobody there, somebody silent and somebody who hangs up are told apart from a refusal', async () => {
  const free = await listening(createServer())
  servers.pop()?.close()
  const tokenFor = (port: number) => cloud.token('patient', port)
  assert.match(
    await faultOf(async () => run({ token: await tokenFor(free), folder: freshFolder() })),
    /^link_unreachable: .*ECONNREFUSED/,
  )
  const held: Socket[] = []
  const silent = await listening(createServer(socket => held.push(socket)))
  const said = await faultOf(async () =>
    run({ token: await tokenFor(silent), folder: freshFolder(), replyWaitMsMax: 200 }),
  )
  assert.match(said, /^link_unreachable: .*no answer within 200 ms/)
  for (const socket of held) socket.destroy()
  const rude = await listening(createServer(socket => socket.end('HTTP/1.1 200 OK\r\n\r\n')))
  assert.match(
    await faultOf(async () => run({ token: await tokenFor(rude), folder: freshFolder() })),
    /^link_unreachable: /,
  )
})

test('a folder that cannot be written is named before the token is used', async () => {
  const folder = freshFolder()
  writeFileSync(folder, 'a file in its place')
  const token = await cloud.token('blocked')
  assert.match(
    await faultOf(() => run({ token, folder: join(folder, 'identity') })),
    /^folder_unwritable: cannot write to /,
  )
  assert.is(cloud.registry.get('blocked')?.state, 'registered')
  assert.is((await run({ token, folder: freshFolder() })).kind, 'enrolled')
})

test('a reply that does not fit what was asked is not stored', async () => {
  const { pki } = cloud
  const other = await cloud.token('other-gateway')
  const reply = await (async () => {
    const folder = freshFolder()
    const { identity } = await run({ token: other, folder })
    return {
      gateway: 'other-gateway',
      certificate: identity.cert,
      ca: identity.ca,
      channels: identity.channels,
      cloud: { address: 'x:1' },
      config: {},
    }
  })()
  const answers: [object, RegExp][] = [
    [reply, /reply is for gateway "other-gateway"/],
    [{ ...reply, gateway: 'mixed-up' }, /a certificate for another key/],
    [
      { ...reply, gateway: 'mixed-up', ca: (await createCa({ clock, random })).certificate },
      /another CA than the token names/,
    ],
    [{ ok: true }, /not one that this program knows/],
  ]
  for (const [answer, expected] of answers) {
    const server = createHttps({ key: pki.server.key, cert: pki.server.chain }, (request, response) => {
      request.resume()
      request.on('end', () => response.writeHead(200, { connection: 'close' }).end(JSON.stringify(answer)))
    })
    const folder = freshFolder()
    const said = await faultOf(async () =>
      run({ token: await cloud.token('mixed-up', await listening(server)), folder }),
    )
    assert.match(said, /^enrol_refused: /)
    assert.match(said, expected)
    assert.equal(readdirSync(folder), ['pending.key'])
  }
})

test('a retry with a new token keeps the key; what is left of a crash after storing is not used again', async () => {
  const folder = freshFolder()
  const { identity } = await run({ token: await cloud.token('crashed'), folder })
  writeFileSync(join(folder, 'pending.key'), identity.key)
  const forced = await run({ token: await cloud.token('crashed'), folder, force: true })
  assert.is.not(forced.identity.key, identity.key)
})

test('loadIdentity names the file and the mend for each thing that can be wrong', async () => {
  assert.match(
    await faultOf(() => loadIdentity(freshFolder(), clock)),
    /^identity_missing: .*headgate-edge enroll TOKEN/,
  )
  const made = async () => {
    const folder = freshFolder()
    await run({ token: await cloud.token('loaded'), folder })
    const named = (end: RegExp) => join(folder, readdirSync(folder).find(name => end.test(name)) ?? '')
    return {
      folder,
      key: named(/\.key$/),
      certificate: named(/-[0-9a-f]+\.crt$/),
      ca: named(/\.ca\.crt$/),
      json: join(folder, 'identity.json'),
    }
  }
  type Made = Awaited<ReturnType<typeof made>>
  const expiry = new Date(clock.nowMs() + 30 * DAY_MS).toISOString().slice(0, 10)
  const cases: [string, (made: Made) => void, RegExp, Clock?][] = [
    [
      'expired',
      () => undefined,
      new RegExp(`\\.crt: expired on ${expiry}T.*enroll TOKEN --force`),
      { ...clock, nowMs: () => clock.nowMs() + 31 * DAY_MS },
    ],
    ['another key', ({ key }) => writeFileSync(key, makeKey()), /\.key: does not belong to gateway-.*\.crt/],
    ['no key', ({ key }) => rmSync(key), /\.key: is missing/],
    ['garbled key', ({ key }) => writeFileSync(key, 'x'), /\.key: is not a private key/],
    [
      'garbled certificate',
      ({ certificate }) => writeFileSync(certificate, 'x'),
      /\.crt: is not a certificate/,
    ],
    [
      'another root',
      ({ ca, certificate }) => writeFileSync(ca, readFileSync(certificate)),
      /\.crt: is not signed by/,
    ],
    ['cut json', ({ json }) => writeFileSync(json, '{"gateway"'), /identity\.json: is not JSON/],
    ['wrong json', ({ json }) => writeFileSync(json, '{}'), /identity\.json: /],
    [
      'a way out',
      ({ json }) => writeFileSync(json, readFileSync(json, 'utf8').replace(/"key": "/, '"key": "../')),
      /must be a file beside this one/,
    ],
  ]
  for (const [what, breakIt, expected, at] of cases) {
    const identity = await made()
    breakIt(identity)
    const said = await faultOf(() => loadIdentity(identity.folder, at ?? clock))
    assert.match(said, /^identity_invalid: /, what)
    assert.match(said, expected, what)
  }
  const { folder, key } = await made()
  chmodSync(key, 0o640)
  assert.match(loadIdentity(folder, clock).warnings.join(), /has mode 640: others can read the key/)
  // A gateway that boots in 1970 still knows who it is.
  assert.is(loadIdentity(folder, { ...clock, nowMs: () => 0 }).gateway, 'loaded')
})

test('a token survives line breaks, and tells nothing but what it carries', async () => {
  const token = await cloud.token('wrapped')
  const parsed = parseToken(token.replace(/(.{40})/g, '$1\n  '))
  assert.ok(parsed.ok)
  assert.is(formatToken(parsed.value), token)
  assert.is(
    parsed.value.ca,
    new X509Certificate(cloud.pki.ca.certificate).fingerprint256.replaceAll(':', '').toLowerCase(),
  )
})

test.run()
