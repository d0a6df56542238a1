// `npm start` as its user meets it: the built programs, real processes, real signals; only ports and folder are ours.

import { readFileSync, rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { until } from '../../bench/harness/installation.ts'
import { freePorts } from '../../bench/harness/ports.ts'
import { PROJECT, type Started, start } from '../../bench/harness/process.ts'

const VARIABLES = [
  'CLOUD_GATEWAYS_PORT',
  'CLOUD_NORTH_PORT',
  'CLOUD_ENROLMENT_PORT',
  'CLOUD_API_PORT',
  'EDGE_LOCAL_PORT',
  'EDGE_METRICS_PORT',
] as const
type Ports = Record<(typeof VARIABLES)[number], string>

const folder = await mkdtemp(join(tmpdir(), 'headgate-demo-'))
const drawn = await freePorts(VARIABLES.length)
const ports = Object.fromEntries(VARIABLES.map((name, i) => [name, String(drawn[i])])) as Ports
const demos: Started[] = []
const begin = (env: Ports = ports): Started => {
  const started = start({
    command: process.execPath,
    args: [join(PROJECT, 'dist/bench/demo/main.js'), '--data', folder],
    env,
  })
  demos.push(started)
  return started
}

interface Latest {
  readonly values: readonly {
    readonly name: string
    readonly value: unknown
    readonly unit?: string
    readonly at: string
  }[]
}
interface Delivery {
  readonly streams: readonly {
    readonly stream: string
    readonly records: number
    readonly epoch: string
    readonly gaps: { readonly count: number }
  }[]
}
const ask = async <T>(path: string): Promise<T> =>
  (await (await fetch(`http://127.0.0.1:${ports.CLOUD_API_PORT}/api${path}`)).json()) as T
const onlineGateway = () =>
  until('a gateway is online', async () => {
    const { gateways } = await ask<{ gateways: readonly { id: string; presence: string }[] }>('/gateways')
    return gateways.length === 1 && gateways[0]?.presence === 'online' ? gateways[0].id : undefined
  })
const dataOf = async (gateway: string) =>
  (await ask<Delivery>(`/gateways/${gateway}/delivery`)).streams.find(({ stream }) => stream === 'data')
const hasRecords = (gateway: string, atLeast: number) =>
  until(`${atLeast} records`, async () => {
    const data = await dataOf(gateway)
    return data !== undefined && data.records >= atLeast ? data : undefined
  })
/** Of the programs that a demo has said to run. */
const pidsIn = (said: string): number[] => [...said.matchAll(/\(pid (\d+)\)/g)].map(([, pid]) => Number(pid))
const isAlive = (pid: number): boolean => {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

let first: { readonly gateway: string; readonly records: number; readonly epoch: string } | undefined

test("the sensors' data and the machine's own metrics show up in the API, and SIGINT ends it with 0", async () => {
  const demo = begin()
  await demo.saying(/Three things to try/, 40_000)
  const gateway = await onlineGateway()
  const { records, epoch } = await hasRecords(gateway, 20)
  const { values } = await ask<Latest>(`/gateways/${gateway}/latest`)
  const named = (name: string) => values.find(value => value.name === name)
  for (const place of ['seattle', 'new-york']) {
    assert.is(named(`weather/${place}/temperature/max`)?.unit, 'Cel')
    assert.is(named(`weather/${place}/wind`)?.unit, 'm/s')
    assert.is(named(`weather/${place}/precipitation`)?.unit, 'mm')
    assert.match(String(named(`weather/${place}/date`)?.value), /^2012-01-\d\d$/)
  }
  assert.is(named('air/mauna-loa/co2')?.unit, 'ppm')
  assert.ok(
    Math.abs(Date.parse(named('air/mauna-loa/co2')?.at ?? '') - Date.now()) < 60_000,
    'replayed with the present time',
  )
  assert.is(named('memory/total')?.unit, 'B', "the gateway's own")
  assert.match(
    await (await fetch(`http://127.0.0.1:${ports.EDGE_METRICS_PORT}/metrics`)).text(),
    /headgate_edge_link_up 1/,
  )
  assert.match(demo.said(), /NOAA/)

  const pids = pidsIn(demo.said())
  assert.is(pids.length, 2)
  process.kill(demo.pid, 'SIGINT')
  // npm hands a terminal's Ctrl-C on as well.
  process.kill(demo.pid, 'SIGINT')
  assert.is(await demo.ended, 0, demo.said())
  assert.not.ok(pids.some(isAlive), 'nothing that it started is left')
  first = { gateway, records, epoch }
})

test('a second start enrols nothing and goes on with the log', async () => {
  assert.ok(first)
  const demo = begin()
  await demo.saying(/is still gateway/, 40_000)
  const gateway = await onlineGateway()
  assert.is(gateway, first.gateway)
  const { records, epoch, gaps } = await hasRecords(gateway, first.records + 20)
  assert.ok(records > first.records)
  assert.is(epoch, first.epoch)
  assert.is(gaps.count, 0)
  demo.kill('SIGTERM')
  assert.is(await demo.ended, 0, demo.said())
})

test('a killed cloud starts again and nothing is missing; one that ends by itself ends the demo with 1', async () => {
  assert.ok(first)
  const demo = begin()
  await demo.saying(/Three things to try/, 40_000)
  const { records: before } = await hasRecords(first.gateway, first.records)
  const [cloud = 0] = pidsIn(demo.said())
  process.kill(cloud, 'SIGKILL')
  await demo.saying(/The cloud was killed/)
  await demo.saying(/The cloud runs again \(pid \d+\)/)
  const { gaps } = await hasRecords(first.gateway, before + 100)
  assert.is(gaps.count, 0)

  const [gone = 0, edge = 0, again = 0] = pidsIn(demo.said())
  assert.is(gone, cloud)
  process.kill(again, 'SIGTERM')
  assert.is(await demo.ended, 1)
  assert.match(demo.said(), /The cloud ended by itself \(exit code 0\)\. Its last lines/)
  assert.not.ok(isAlive(edge), 'the gateway was stopped with it')
})

test('a port that is taken is named, with the setting that changes it', async () => {
  const occupied = createServer()
  await new Promise<void>(resolve => occupied.listen(Number(ports.EDGE_LOCAL_PORT), '127.0.0.1', resolve))
  try {
    const demo = begin()
    assert.is(await demo.ended, 1)
    assert.match(demo.said(), new RegExp(`Port ${ports.EDGE_LOCAL_PORT} .* is taken.*EDGE_LOCAL_PORT`))
    assert.not.match(demo.said(), /CLOUD_API_PORT/)
  } finally {
    occupied.close()
  }
})

test('a wrong variable is named', async () => {
  const demo = begin({ ...ports, CLOUD_API_PORT: 'http' })
  assert.is(await demo.ended, 1)
  assert.match(demo.said(), /CLOUD_API_PORT/)
})

test.after(async () => {
  // After a failure a demo may still run; asked to end, it ends what it started.
  for (const demo of demos) demo.kill('SIGTERM')
  await Promise.all(demos.map(({ ended }) => ended))
  rmSync(folder, { recursive: true, force: true })
})

test.run()
