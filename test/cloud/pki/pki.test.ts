// The certificate authority on a real disk, checked with Node's own X.509 and the openssl program.

import { execFileSync } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lastValueFrom } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { namesOf } from '../../../cloud/pki/hosts.ts'
import { initCloud } from '../../../cloud/pki/init.ts'
import { fingerprintOf } from '../../../cloud/pki/issue.ts'
import { coversNames, openPki } from '../../../cloud/pki/pki.ts'
import { gatewayId } from '../../../schemas/ids.ts'
import { type Clock, systemClock, systemRandom } from '../../../streams/run/clock.ts'
import { isFault } from '../../../streams/run/fault.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const random = systemRandom
const clock = systemClock()
const later = (days: number): Clock => ({ ...clock, nowMs: () => clock.nowMs() + days * DAY_MS })

const folders: string[] = []
const freshFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'headgate-pki-'))
  folders.push(folder)
  return folder
}
test.after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

const init = (data: string, hosts: string[] = [], at: Clock = clock) =>
  lastValueFrom(initCloud({ data, hosts, clock: at, random }))
const made = async () => {
  const data = freshFolder()
  await init(data)
  return { data, folder: join(data, 'pki') }
}
const faultOf = async (action: () => unknown): Promise<string> => {
  try {
    await action()
  } catch (thrown) {
    if (isFault(thrown)) return `${thrown.code}: ${thrown.message}`
    throw thrown
  }
  return 'no fault'
}
const csrOf = (folder: string, args = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']): string => {
  const file = join(folder, 'request.pem')
  execFileSync(
    'openssl',
    [
      'req',
      '-new',
      ...args,
      '-nodes',
      '-keyout',
      join(folder, 'request.key'),
      '-subj',
      '/CN=somebody-else',
      '-out',
      file,
    ],
    { stdio: 'pipe' },
  )
  return readFileSync(file, 'utf8')
}

test('init makes a root, a server certificate for this machine, secrets that only this user can read, and a configuration', async () => {
  const data = freshFolder()
  const result = await init(data)
  assert.is(result.kind, 'created')
  const folder = join(data, 'pki')
  assert.equal(readdirSync(folder).sort(), ['ca.crt', 'ca.key', 'server.crt', 'server.key', 'tickets.key'])
  for (const name of ['ca.key', 'server.key', 'tickets.key'])
    assert.is(statSync(join(folder, name)).mode & 0o777, 0o600, name)
  assert.is(statSync(folder).mode & 0o777, 0o700)
  assert.is(statSync(join(folder, 'tickets.key')).size, 48)
  const ca = new X509Certificate(readFileSync(join(folder, 'ca.crt')))
  assert.is(result.fingerprint, createHash('sha256').update(ca.raw).digest('hex'))
  assert.is(result.fingerprint, ca.fingerprint256.replaceAll(':', '').toLowerCase())
  const server = new X509Certificate(readFileSync(join(folder, 'server.crt')))
  assert.ok(server.checkHost('localhost'))
  assert.ok(server.checkIP('127.0.0.1'))
  assert.ok(server.checkIP('::1'))
  assert.match(
    readFileSync(join(data, 'headgate-cloud.toml'), 'utf8'),
    'hosts = ["localhost", "127.0.0.1", "::1"]',
  )
  const checked = execFileSync(
    'openssl',
    [
      'verify',
      '-x509_strict',
      '-purpose',
      'sslserver',
      '-CAfile',
      join(folder, 'ca.crt'),
      join(folder, 'server.crt'),
    ],
    { encoding: 'utf8' },
  )
  assert.match(checked, 'OK')
})

test('init run again changes nothing; with a new host it re-issues the server certificate alone and says so', async () => {
  const { data, folder } = await made()
  const before = readdirSync(folder).map(name => readFileSync(join(folder, name), 'hex'))
  assert.is((await init(data)).kind, 'unchanged')
  assert.equal(
    readdirSync(folder).map(name => readFileSync(join(folder, name), 'hex')),
    before,
  )
  const again = await init(data, ['gate.example.org', '[2001:DB8::0:1]'])
  assert.is(again.kind, 'server_reissued')
  assert.is(again.configuration.kind, 'written')
  const after = readdirSync(folder).map(name => readFileSync(join(folder, name), 'hex'))
  assert.equal(
    after.map((bytes, i) => bytes === before[i]),
    [true, true, false, true, true],
  )
  const server = new X509Certificate(readFileSync(join(folder, 'server.crt')))
  assert.ok(server.checkHost('gate.example.org'))
  assert.ok(server.checkIP('2001:db8::1'))
  // Names that were given once stay.
  assert.is((await init(data, ['10.0.0.5'])).names.dns.join(), 'gate.example.org,localhost')
  assert.ok(
    coversNames(
      openPki(folder, { clock, random }),
      namesOf(['localhost', '127.0.0.1', '::1', '2001:db8::1', '10.0.0.5', 'gate.example.org']),
    ),
  )
})

test('init keeps a configuration that a person has changed', async () => {
  const { data } = await made()
  const file = join(data, 'headgate-cloud.toml')
  writeFileSync(file, '# mine\n')
  assert.is((await init(data, ['other.example.org'])).configuration.kind, 'kept')
  assert.is(readFileSync(file, 'utf8'), '# mine\n')
})

test('init renews a server certificate that is about to end, and mends one that is garbled', async () => {
  const { data, folder } = await made()
  assert.is((await init(data, [], later(340))).kind, 'server_reissued')
  assert.is((await init(data, [], later(341))).kind, 'unchanged')
  writeFileSync(join(folder, 'server.crt'), 'rubbish')
  assert.is((await init(data)).kind, 'server_reissued')
})

test('init never replaces a root: a key without its certificate is refused by name', async () => {
  const { data, folder } = await made()
  const key = readFileSync(join(folder, 'ca.key'), 'utf8')
  rmSync(join(folder, 'ca.crt'))
  assert.match(await faultOf(() => init(data)), /identity_invalid: .*ca\.key: stands without ca\.crt/)
  assert.is(readFileSync(join(folder, 'ca.key'), 'utf8'), key)
})

test('init refuses what is no host name, and a folder that it cannot write, before it makes anything', async () => {
  const data = freshFolder()
  for (const host of ['https://gate.example.org', 'gate:8883', '', '300.1.1.1', 'a b']) {
    assert.match(
      await faultOf(() => init(join(data, 'x'), [host])),
      /config_invalid: .*is not a host name or an IP address/,
    )
  }
  assert.equal(readdirSync(data), [])
  writeFileSync(join(data, 'file'), '')
  assert.match(
    await faultOf(() => init(join(data, 'file', 'sub'))),
    /folder_unwritable: cannot write to .*ENOTDIR/,
  )
})

test('openPki names the file and the mend for each thing that can be wrong', async () => {
  const cases: [string, (folder: string) => void, RegExp, Clock?][] = [
    [
      'nothing there',
      folder => rmSync(folder, { recursive: true }),
      /identity_missing: .*headgate-cloud init/,
    ],
    ['no server key', folder => rmSync(join(folder, 'server.key')), /identity_missing/],
    [
      'garbled root',
      folder => writeFileSync(join(folder, 'ca.crt'), 'x'),
      /identity_invalid: .*ca\.crt: is not a certificate/,
    ],
    [
      'garbled key',
      folder => writeFileSync(join(folder, 'ca.key'), 'x'),
      /identity_invalid: .*ca\.key: is not a private key/,
    ],
    [
      'root key of another',
      folder => writeFileSync(join(folder, 'ca.key'), readFileSync(join(folder, 'server.key'))),
      /ca\.key: does not belong to ca\.crt/,
    ],
    [
      'server key of another',
      folder => writeFileSync(join(folder, 'server.key'), readFileSync(join(folder, 'ca.key'))),
      /server\.key: does not belong/,
    ],
    [
      'short ticket keys',
      folder => writeFileSync(join(folder, 'tickets.key'), 'x'),
      /tickets\.key: holds 1 bytes, not 48/,
    ],
    [
      'leaf as root',
      folder => writeFileSync(join(folder, 'ca.crt'), readFileSync(join(folder, 'server.crt'))),
      /ca\.crt: is not a root certificate/,
    ],
    ['expired server', () => undefined, /server\.crt: expired on 20\d\d-.*headgate-cloud init/, later(366)],
    ['expired root', () => undefined, /ca\.crt: expired on 20\d\d-/, later(3_651)],
  ]
  for (const [what, breakIt, expected, at] of cases) {
    const { folder } = await made()
    breakIt(folder)
    assert.match(await faultOf(() => openPki(folder, { clock: at ?? clock, random })), expected, what)
  }
  const { folder } = await made()
  const other = await made()
  writeFileSync(join(folder, 'server.crt'), readFileSync(join(other.folder, 'server.crt')))
  assert.match(
    await faultOf(() => openPki(folder, { clock, random })),
    /server\.crt: is not signed by ca\.crt/,
  )
})

test('a key that others can read is warned of, not refused', async () => {
  const { folder } = await made()
  assert.equal(openPki(folder, { clock, random }).warnings, [])
  chmodSync(join(folder, 'ca.key'), 0o644)
  assert.match(openPki(folder, { clock, random }).warnings.join(), /ca\.key has mode 644/)
})

test('a gateway certificate carries the key of the request and the name that the registry gives, for 30 days and from a day ago', async () => {
  const { folder } = await made()
  const pki = openPki(folder, { clock, random })
  const csr = csrOf(freshFolder())
  const issued = await lastValueFrom(pki.issueGateway({ csr, gateway: gatewayId('plant-7') }))
  const certificate = new X509Certificate(issued.certificate)
  assert.is(certificate.subject, 'CN=plant-7')
  assert.equal(certificate.keyUsage, ['1.3.6.1.5.5.7.3.2'])
  assert.not(certificate.ca)
  assert.is(certificate.serialNumber, issued.serial)
  const fingerprint = createHash('sha256')
    .update(certificate.publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex')
  assert.is(await lastValueFrom(pki.keyOf(csr)), fingerprint)
  assert.ok(Math.abs(issued.notAfterMs - clock.nowMs() - 30 * DAY_MS) < 5_000)
  assert.is(Date.parse(certificate.validTo), issued.notAfterMs)
  assert.is(issued.notAfterMs - Date.parse(certificate.validFrom), 31 * DAY_MS)
  const file = join(freshFolder(), 'gateway.crt')
  writeFileSync(file, issued.certificate)
  assert.match(
    execFileSync(
      'openssl',
      ['verify', '-x509_strict', '-purpose', 'sslclient', '-CAfile', join(folder, 'ca.crt'), file],
      { encoding: 'utf8' },
    ),
    'OK',
  )
  const second = await lastValueFrom(pki.issueGateway({ csr, gateway: gatewayId('plant-7') }))
  assert.is.not(second.serial, issued.serial)
  assert.is.not(fingerprintOf(second.certificate), fingerprintOf(issued.certificate))
})

test('a request that was tampered with, of another kind of key, or no request at all is refused', async () => {
  const { folder } = await made()
  const pki = openPki(folder, { clock, random })
  const refused = (csr: string) =>
    faultOf(() => lastValueFrom(pki.issueGateway({ csr, gateway: gatewayId('plant-7') })))
  const csr = csrOf(freshFolder())
  const der = Buffer.from(csr.replace(/-----.*-----|\s/g, ''), 'base64')
  const at = der.indexOf('somebody')
  der.write('S', at)
  const tampered = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
  assert.match(await refused(tampered), /csr_invalid: .*its signature is not by its own key/)
  assert.match(await refused(csrOf(freshFolder(), ['-newkey', 'rsa:2048'])), /csr_invalid: .*EC P-256/)
  assert.match(
    await refused(csrOf(freshFolder(), ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'])),
    /csr_invalid: .*EC P-256/,
  )
  assert.match(await refused('hello'), /csr_invalid: .*not PKCS #10/)
  assert.match(await refused(''), /csr_invalid/)
  assert.match(await refused(readFileSync(join(folder, 'ca.crt'), 'utf8')), /csr_invalid/)
})

test.run()
