import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { firstValueFrom, take, toArray } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { METRICS_TOPIC, metrics$ } from '../../../edge/metrics/metrics.ts'
import { readMetrics } from '../../../edge/metrics/read.ts'
import type { Sample } from '../../../edge/metrics/sample.ts'
import { INTERFACES_MAX, toSenml } from '../../../edge/metrics/senml.ts'
import { parseSenml, resolveSenml } from '../../../schemas/senml/resolve.ts'
import { type Clock, systemClock } from '../../../streams/run/clock.ts'

const tree = (files: Readonly<Record<string, string>>): string => {
  const root = mkdtempSync(join(tmpdir(), 'metrics-'))
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  return root
}

const at = (monoMs: number): Clock => ({
  ...systemClock(),
  nowMs: () => 1_700_000_000_000 + monoMs,
  monoMs: () => monoMs,
})

const sampled = async (files: Readonly<Record<string, string>>, monoMs: number): Promise<Sample> => {
  const root = tree(files)
  const sample = await readMetrics({ root, mounts: [] }, at(monoMs))
  rmSync(root, { recursive: true })
  return sample
}

/** name → [value, unit] */
const metricsOf = (payload: Uint8Array): Record<string, readonly [unknown, unknown]> => {
  const pack = parseSenml(payload, 'json')
  if (!pack.ok) throw new Error(pack.because)
  const resolved = resolveSenml(pack.value, 5_000_000_000_000)
  for (const { time } of resolved) assert.is(time, 5_000_000_000, 'of the moment of receipt')
  return Object.fromEntries(resolved.map(({ name, value, unit }) => [name, [value, unit] as const]))
}

const netDev = (received: number, sent: number) => `Inter-|   Receive                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0
  eth0:${received} 10 2 0 0 0 0 0 ${sent} 20 3 0 0 0 0 0
wl@n 0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0
`
const board = (step: number): Record<string, string> => ({
  'proc/stat': `cpu  ${100 + step * 30} 0 ${50 + step * 10} ${1_000 + step * 50} ${20 + step * 10} 0 0 0 0 0\ncpu0 1 2 3 4 5\n`,
  'proc/meminfo':
    'MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 250 kB\nBuffers: 1 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n',
  'proc/net/dev': netDev(1_000 + step * 1_250, 500),
  'proc/diskstats': [
    '   7 0 loop0 5 0 40 0 0 0 0 0 0 0 0',
    ` 179 0 mmcblk0 10 0 ${100 + step * 20} 5 20 0 ${200 + step * 200} 9 0 ${1_000 + step * 500} 77 0 0 0 0`,
    ' 179 1 mmcblk0p1 10 0 100 5 20 0 200 9 0 1000 77',
  ].join('\n'),
  'sys/block/mmcblk0/size': '1',
  'sys/block/loop0/size': '1',
  'proc/loadavg': '0.52 1.25 2.00 1/234 5678\n',
  'proc/uptime': '86400.25 170000.00\n',
  'proc/self/status':
    'Name:\tnode\nVmRSS:\t   90 kB\nRssAnon:\t   50 kB\nRssFile:\t   30 kB\nRssShmem:\t   10 kB\n',
  'sys/class/thermal/thermal_zone0/type': 'cpu-thermal\n',
  'sys/class/thermal/thermal_zone0/temp': '48250\n',
  'sys/class/thermal/thermal_zone1/type': 'cpu-thermal\n',
  'sys/class/thermal/thermal_zone1/temp': '-5000\n',
  'sys/class/thermal/cooling_device0/type': 'fan\n',
  'sys/class/hwmon/hwmon0/name': 'nvme\n',
  'sys/class/hwmon/hwmon0/temp1_input': '38850\n',
  'sys/class/hwmon/hwmon0/temp1_label': 'Composite 1\n',
  'sys/class/hwmon/hwmon0/temp2_input': '-274000\n',
})

test('two samples of a recorded board become the metrics that they tell', async () => {
  const [before, after] = [await sampled(board(0), 10_000), await sampled(board(1), 15_000)]
  const metrics = metricsOf(toSenml(before, after))
  const expected = {
    'cpu/utilisation': [0.4, '/'],
    'cpu/user': [0.3, '/'],
    'cpu/system': [0.1, '/'],
    'cpu/idle': [0.5, '/'],
    'cpu/iowait': [0.1, '/'],
    'memory/total': [1_024_000, 'B'],
    'memory/available': [256_000, 'B'],
    'memory/utilisation': [0.75, '/'],
    'memory/swap/free': [4_096, 'B'],
    'network/eth0/received': [2_250, 'B'],
    'network/eth0/sent': [500, 'B'],
    'network/eth0/receivedRate': [2_000, 'bit/s'],
    'network/eth0/sentRate': [0, 'bit/s'],
    'network/eth0/errors': [5, 'count'],
    'network/wl_n_0/received': [1, 'B'],
    'disk/mmcblk0/read': [120 * 512, 'B'],
    'disk/mmcblk0/written': [400 * 512, 'B'],
    'disk/mmcblk0/writtenRate': [163_840, 'bit/s'],
    'disk/mmcblk0/utilisation': [0.1, '/'],
    'load/1': [0.52, '/'],
    'load/15': [2, '/'],
    'temperature/cpu-thermal': [48.25, 'Cel'],
    'temperature/cpu-thermal-2': [-5, 'Cel'],
    'temperature/nvme-Composite_1': [38.85, 'Cel'],
    uptime: [86_400.25, 's'],
    'process/resident': [60 * 1_024, 'B'],
    'process/mapped': [30 * 1_024, 'B'],
  }
  for (const [name, value] of Object.entries(expected)) assert.equal(metrics[name], value, name)
  for (const absent of [
    'network/lo/received',
    'disk/loop0/read',
    'disk/mmcblk0p1/read',
    'temperature/nvme-temp2',
  ]) {
    assert.is(metrics[absent], undefined, absent)
  }
})

test('the first sample has totals and no rates', async () => {
  const metrics = metricsOf(toSenml(undefined, await sampled(board(0), 0)))
  assert.equal(metrics['network/eth0/received'], [1_000, 'B'])
  for (const name of Object.keys(metrics)) assert.not.match(name, /Rate$|^cpu|mmcblk0\/utilisation/)
})

test('counters that began anew, and interfaces that are new, give no rate', async () => {
  const before = await sampled({ 'proc/net/dev': netDev(5_000, 5_000) }, 0)
  const after = await sampled({ 'proc/net/dev': netDev(10, 6_000).replace('wl@n 0', 'wlan1') }, 1_000)
  const metrics = metricsOf(toSenml(before, after))
  assert.is(metrics['network/eth0/receivedRate'], undefined)
  assert.equal(metrics['network/eth0/sentRate'], [8_000, 'bit/s'])
  assert.is(metrics['network/wlan1/sentRate'], undefined)
})

test('a machine without anything gives an empty sample, not a fault', async () => {
  const sample = await sampled({ 'nothing/here': '' }, 0)
  assert.equal(sample.interfaces, [])
  assert.is(sample.cpu, undefined)
  assert.is(toSenml(sample, sample).toString(), '[]')
})

test('texts that are not as expected are left out', async () => {
  const nonsense = Object.fromEntries(Object.keys(board(0)).map(path => [path, 'x: y z\n\0\n17']))
  const sample = await sampled(nonsense, 0)
  assert.is(toSenml(sample, sample).toString(), '[]')
})

test('a base name stands before every name', async () => {
  const payload = toSenml(undefined, await sampled({ 'proc/loadavg': '1 2 3' }, 0), 'gw-1/')
  assert.equal(Object.keys(metricsOf(payload)), ['gw-1/load/1', 'gw-1/load/5', 'gw-1/load/15'])
})

test('interfaces beyond the limit are counted, not sent', async () => {
  const lines = Array.from(
    { length: INTERFACES_MAX + 5 },
    (_, i) => `veth${i}: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0`,
  )
  const metrics = metricsOf(toSenml(undefined, await sampled({ 'proc/net/dev': lines.join('\n') }, 0)))
  assert.equal(metrics['network/omitted'], [5, 'count'])
  assert.is(Object.keys(metrics).filter(name => name.endsWith('/received')).length, INTERFACES_MAX)
})

test('file systems of the given mounts are measured, missing ones left out', async () => {
  const sample = await readMetrics({ root: '/nowhere', mounts: ['/', '/not/there'] }, at(0))
  const metrics = metricsOf(toSenml(undefined, sample))
  assert.equal(
    sample.filesystems.map(({ mount }) => mount),
    ['/'],
  )
  const [total] = metrics['filesystem/root/total'] ?? []
  const [free] = metrics['filesystem/root/free'] ?? []
  assert.ok(typeof total === 'number' && typeof free === 'number' && total > free && free >= 0)
})

test('this machine is measured: a pack at once, then one each interval, with rates', async () => {
  const clock = systemClock()
  const options = { clock, intervalMs: 60, sources: { root: '/', mounts: ['/'] } }
  const [first, second] = await firstValueFrom(metrics$(options).pipe(take(2), toArray()))
  assert.ok(first && second)
  assert.is(first.topic, METRICS_TOPIC)
  assert.is(first.qos, 0)
  assert.ok(second.receivedMonoMs - first.receivedMonoMs >= 30)
  assert.is(metricsOf(first.payload)['cpu/utilisation'], undefined)
  const metrics = metricsOf(second.payload)
  const [share] = metrics['cpu/utilisation'] ?? []
  assert.ok(typeof share === 'number' && share >= 0 && share <= 1, String(share))
  for (const name of ['memory/total', 'uptime', 'load/1', 'process/resident']) assert.ok(metrics[name], name)
  const [resident] = metrics['process/resident'] ?? []
  assert.ok(typeof resident === 'number' && resident > 10e6 && resident < 2e9, String(resident))
})

test.run()
