// The registry on real LMDB, also from a second process at the same time.

import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { open } from 'lmdb'
import { defer, forkJoin, lastValueFrom, type Observable, of } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { evolve } from '../../../cloud/registry/gateway.ts'
import { type Issued, openRegistry, type Registry } from '../../../cloud/registry/registry.ts'
import { gatewayId } from '../../../schemas/ids.ts'
import type { GatewayRecord } from '../../../schemas/registry.ts'
import { type Clock, systemClock, systemRandom } from '../../../streams/run/clock.ts'
import { isFault } from '../../../streams/run/fault.ts'

const HOUR_MS = 60 * 60 * 1000
const random = systemRandom
const system = systemClock()
let aheadMs = 0
const clock: Clock = { ...system, nowMs: () => system.nowMs() + aheadMs }

const KEY_A = 'a'.repeat(64)
const KEY_B = 'b'.repeat(64)

const folder = mkdtempSync(join(tmpdir(), 'headgate-registry-'))
const opened: Registry[] = []
let files = 0
const freshFile = () => join(folder, `registry-${files++}.mdb`)
const fresh = (file = freshFile()): Registry => {
  const registry = openRegistry(file, { clock, random })
  opened.push(registry)
  return registry
}
test.before.each(() => {
  aheadMs = 0
})
test.after(async () => {
  for (const registry of opened) await lastValueFrom(registry.close(), { defaultValue: undefined })
  rmSync(folder, { recursive: true, force: true })
})

const run = <T>(source: Observable<T>): Promise<T> => lastValueFrom(source)
const refusalOf = async (source: Observable<unknown>): Promise<string> => {
  try {
    await run(source)
  } catch (thrown) {
    if (isFault(thrown)) return `${thrown.code}: ${thrown.message}`
    throw thrown
  }
  return 'no refusal'
}
let serials = 0
const sign = (): Issued => {
  const serial = (0x4000 + serials++).toString(16).toUpperCase()
  return { certificate: `certificate ${serial}`, serial, notAfterMs: clock.nowMs() + 30 * 24 * HOUR_MS }
}
const enrolWith = (registry: Registry, secret: string, publicKeyFingerprint: string) =>
  registry.enrol({ secret, publicKeyFingerprint, issue: () => defer(() => of(sign())) })

test('a gateway is added under the slug of its name, with two channels of its own', async () => {
  const registry = fresh()
  const added = await run(registry.add({ name: 'plant-7', labels: { site: 'north' } }))
  assert.is(added.id, 'plant-7')
  assert.is(added.state, 'registered')
  assert.is.not(added.controlChannel, added.dataChannel)
  assert.match(added.controlChannel, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  assert.equal(registry.get('plant-7'), added)
  assert.is((await run(registry.add({ name: '  Größe & Übermaß  ' }))).id, 'gro-e-uberma')
  assert.match((await run(registry.add({ name: 'Plant 7' }))).id, /^plant-7-[0-9a-f]{6}$/)
  assert.match((await run(registry.add({ name: '工場' }))).id, /^gateway-[0-9a-f]{6}$|^gateway$/)
  assert.match((await run(registry.add({ name: 'all' }))).id, /^all-[0-9a-f]{6}$/)
  assert.is((await run(registry.add({ name: 'x'.repeat(100) }))).id.length, 63)
  assert.is((await run(registry.add({ name: 'other', id: 'my-own' }))).id, 'my-own')
  assert.is(registry.list().length, 7)
  assert.equal(registry.find('Plant 7')?.name, 'Plant 7')
  assert.is(registry.find('no such'), undefined)
})

test('names and ids are unique, and what is not valid is refused without a trace', async () => {
  const registry = fresh()
  await run(registry.add({ name: 'plant-7' }))
  const before = registry.events(0).length
  assert.match(await refusalOf(registry.add({ name: 'Plant-7' })), /^gateway_exists: /)
  assert.match(await refusalOf(registry.add({ name: 'another', id: 'plant-7' })), /^gateway_exists: /)
  assert.match(
    await refusalOf(registry.add({ name: 'another', id: 'No Id' })),
    /^gateway_invalid: .*lower-case/,
  )
  assert.match(await refusalOf(registry.add({ name: 'another', id: 'all' })), /^gateway_invalid: .*reserved/)
  assert.match(await refusalOf(registry.add({ name: ' ' })), /^gateway_invalid: .*name/)
  assert.match(await refusalOf(registry.add({ name: 'a\nb' })), /^gateway_invalid: .*name/)
  assert.match(
    await refusalOf(registry.add({ name: 'another', labels: { 'Bad Key': 'x' } })),
    /^gateway_invalid: .*labels/,
  )
  assert.is(registry.events(0).length, before)
  assert.is((await run(registry.add({ name: 'another' }))).id, 'another')
})

test('two adds of one name at once give one gateway', async () => {
  const registry = fresh()
  const results = await Promise.all([1, 2, 3, 4].map(() => refusalOf(registry.add({ name: 'twin' }))))
  assert.is(results.filter(result => result === 'no refusal').length, 1)
  assert.is(registry.list().length, 1)
})

test('get takes any name that a certificate may bear', () => {
  const registry = fresh()
  for (const name of ['', 'x'.repeat(5_000), 'Plant', '\0', '../x', 'plant-8'])
    assert.is(registry.get(name), undefined)
})

test('a token enrols the first key that uses it, and gives that key the same certificate again', async () => {
  const registry = fresh()
  const { id } = await run(registry.add({ name: 'plant-7' }))
  const token = await run(registry.issueToken(id))
  assert.is(token.secret.length, 43)
  assert.is(token.expiresAtMs - clock.nowMs() > 23 * HOUR_MS, true)
  assert.not(JSON.stringify([registry.events(0), registry.list()]).includes(token.secret))
  const first = await run(enrolWith(registry, token.secret, KEY_A))
  assert.is(first.repeated, false)
  assert.is(first.gateway.state, 'enrolled')
  assert.is(first.certificate, `certificate ${first.gateway.serial}`)
  const again = await run(enrolWith(registry, token.secret, KEY_A))
  assert.equal([again.repeated, again.certificate, again.gateway], [true, first.certificate, first.gateway])
  assert.match(
    await refusalOf(enrolWith(registry, token.secret, KEY_B)),
    /^token_invalid: .*another key has used it already/,
  )
  assert.equal(registry.get(id), first.gateway)
})

test('of two keys that use a token at once the first to be recorded counts, and one key at once gets one certificate', async () => {
  const registry = fresh()
  const { id } = await run(registry.add({ name: 'plant-7' }))
  const token = await run(registry.issueToken(id))
  const results = await Promise.all(
    [KEY_A, KEY_B].map(key => refusalOf(enrolWith(registry, token.secret, key))),
  )
  assert.is(results.filter(result => result === 'no refusal').length, 1, results.join())
  const next = await run(registry.issueToken(id))
  const [one, two] = await run(
    forkJoin([enrolWith(registry, next.secret, KEY_A), enrolWith(registry, next.secret, KEY_A)]),
  )
  assert.is(one.certificate, two.certificate)
  assert.equal([one.repeated, two.repeated].sort(), [false, true])
})

test('an unknown, an expired and a replaced token are refused, and nothing is signed for them', async () => {
  const registry = fresh()
  const { id } = await run(registry.add({ name: 'plant-7' }))
  const old = await run(registry.issueToken(id))
  const token = await run(registry.issueToken(id))
  let signed = 0
  const use = (secret: string) =>
    refusalOf(
      registry.enrol({
        secret,
        publicKeyFingerprint: KEY_A,
        issue: () =>
          defer(() => {
            signed += 1
            return of(sign())
          }),
      }),
    )
  assert.match(await use(random.bytes(32).toString('base64url')), /^token_invalid: .*unknown/)
  assert.match(await use(old.secret), /^token_invalid: .*a newer one took its place/)
  aheadMs = 24 * HOUR_MS + 1
  assert.match(await use(token.secret), /^token_invalid: .*expired on 20\d\d-/)
  aheadMs = 0
  assert.is(signed, 0)
  assert.is(await use(token.secret), 'no refusal')
  assert.is(signed, 1)
  aheadMs = 24 * HOUR_MS + 1
  assert.match(await use(token.secret), /expired/, 'the same key, too late')
})

test('a suspended gateway gets no token and no certificate until it is resumed, a revoked one never', async () => {
  const registry = fresh()
  const { id } = await run(registry.add({ name: 'plant-7' }))
  const token = await run(registry.issueToken(id))
  await run(registry.suspend(id, 'stolen?'))
  assert.match(
    await refusalOf(enrolWith(registry, token.secret, KEY_A)),
    /^gateway_state: .*suspended: resume it first/,
  )
  assert.match(await refusalOf(registry.issueToken(id)), /^gateway_state/)
  assert.is((await run(registry.resume(id))).state, 'registered')
  assert.is((await run(enrolWith(registry, token.secret, KEY_A))).gateway.state, 'enrolled')
  assert.is((await run(registry.activate(id))).state, 'active')
  const count = registry.events(0).length
  assert.is((await run(registry.activate(id))).state, 'active')
  assert.is(registry.events(0).length, count, 'activated once')
  assert.is((await run(registry.revoke(id, 'stolen'))).state, 'revoked')
  for (const source of [
    registry.issueToken(id),
    registry.resume(id),
    registry.activate(id),
    registry.suspend(id, ''),
  ]) {
    assert.match(await refusalOf(source), /^gateway_state: .*revoked/)
  }
  assert.match(await refusalOf(registry.suspend(gatewayId('nobody'), '')), /^gateway_unknown/)
  assert.match(await refusalOf(registry.revoke(gatewayId('nobody'), 'x'.repeat(600))), /^gateway_unknown/)
  const next = await run(registry.add({ name: 'plant-8' }))
  assert.match(await refusalOf(registry.revoke(next.id, 'x'.repeat(600))), /^gateway_invalid: .*reason/)
})

test('every record is the fold of its events, which are numbered without a gap and survive a reopening', async () => {
  const file = freshFile()
  const first = openRegistry(file, { clock, random })
  for (const name of ['a', 'b', 'c']) {
    const { id } = await run(first.add({ name }))
    const token = await run(first.issueToken(id))
    await run(enrolWith(first, token.secret, KEY_A))
  }
  await run(first.activate(gatewayId('a')))
  await run(first.suspend(gatewayId('b'), 'why not'))
  const before = first.list()
  await lastValueFrom(first.close(), { defaultValue: undefined })
  const registry = fresh(file)
  assert.equal(registry.list(), before)
  const entries = registry.events(0)
  assert.equal(
    entries.map(({ seq }) => seq),
    entries.map((_, i) => i + 1),
  )
  assert.equal(registry.events(3), entries.slice(3))
  const folded = new Map<string, GatewayRecord>()
  for (const entry of entries) folded.set(entry.event.gateway, evolve(folded.get(entry.event.gateway), entry))
  assert.equal(
    [...folded.values()].sort((a, b) => (a.id < b.id ? -1 : 1)),
    before,
  )
})

const secondProcess = (file: string): string[] => [
  '--import',
  'tsx',
  new URL('./second-process.ts', import.meta.url).pathname,
  file,
]

test('a second process adds, issues and revokes while this one has the registry open, and each sees the other', async () => {
  const file = freshFile()
  const registry = fresh(file)
  const mine = await run(registry.add({ name: 'mine' }))
  const child = spawn(process.execPath, secondProcess(file), { stdio: ['ignore', 'pipe', 'inherit'] })
  const exit = new Promise<number | null>(done => child.on('exit', done))
  let said = ''
  child.stdout.on('data', piece => {
    said += piece
  })
  // Both write at the same time.
  for (let i = 0; i < 20; i++) await run(registry.add({ name: `mine-${i}` }))
  assert.is(await exit, 0)
  // Not a turn of the event loop later: the next read.
  assert.is(registry.get('mine')?.state, 'revoked')
  assert.is(registry.list().filter(({ name }) => name.startsWith('theirs-')).length, 20)
  const { secret, found } = JSON.parse(said)
  assert.is(found, mine.controlChannel)
  assert.is((await run(enrolWith(registry, secret, KEY_A))).gateway.id, 'theirs-0')
  const entries = registry.events(0)
  assert.equal(
    entries.map(({ seq }) => seq),
    entries.map((_, i) => i + 1),
  )
})

test('a read sees what another process committed since the last one, also within one turn of the event loop', async () => {
  const file = freshFile()
  const registry = fresh(file)
  await run(registry.add({ name: 'mine' }))
  assert.is(registry.get('mine')?.state, 'registered')
  execFileSync(process.execPath, secondProcess(file))
  assert.is(registry.get('mine')?.state, 'revoked')
})

test('when the disk takes no more each add says so, the process lives on, and nothing acknowledged is lost', () => {
  // A limit on file size stands in for a full disk: it needs no rights of its own.
  const script = new URL('./limited-process.ts', import.meta.url).pathname
  const limited = 'trap "" XFSZ; ulimit -f 400; exec "$@"'
  const args = ['-c', limited, 'sh', process.execPath, '--import', 'tsx', script, freshFile()]
  const report = JSON.parse(
    execFileSync('bash', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
  )
  for (const code of report.codes) assert.match(code, /^(?:commit_failed|disk_full)$/)
  assert.is(report.codes.length, 3)
  assert.ok(report.acknowledged > 10)
  assert.equal([report.kept, report.events], [report.acknowledged, report.acknowledged])
})

test('get is cheap: twenty thousand in well under a second', async () => {
  const registry = fresh()
  const { id } = await run(registry.add({ name: 'plant-7', labels: { site: 'north' } }))
  const from = process.hrtime.bigint()
  for (let i = 0; i < 20_000; i++) registry.get(id)
  const tookMs = Number(process.hrtime.bigint() - from) / 1e6
  assert.ok(tookMs < 2_000, `${tookMs} ms`)
})

test('a folder that cannot be written, a file that is no registry and one of another version are named', async () => {
  const asFile = join(folder, 'a-file')
  writeFileSync(asFile, 'x')
  const thrownBy = (file: string): string => {
    try {
      fresh(file)
    } catch (thrown) {
      if (isFault(thrown)) return `${thrown.code}: ${thrown.message}`
      throw thrown
    }
    return 'nothing'
  }
  assert.match(thrownBy(join(asFile, 'registry.mdb')), /^folder_unwritable: cannot write to .*a-file/)
  const garbled = join(folder, 'garbled.mdb')
  writeFileSync(garbled, Buffer.alloc(65_536, 7))
  assert.match(thrownBy(garbled), /^log_unreadable: /)
  const newer = freshFile()
  const db = open({ path: newer, noSubdir: true, maxDbs: 8 })
  await db.openDB({ name: 'meta', encoding: 'json' }).put('format', 9)
  await db.close()
  assert.match(thrownBy(newer), /^log_version: .*format 9/)
})

test.run()
