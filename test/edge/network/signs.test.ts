import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { take } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  localSigns$,
  type Sign,
  type SignOptions,
  WATCHED_INTERFACES_MAX,
} from '../../../edge/network/signs.ts'
import { timeline } from '../../streams/run/virtual.ts'

interface Machine {
  readonly root: string
  write(path: string, text: string): void
  remove(path: string): void
}

const HEADER = 'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n'
const route = (name: string, gateway: string, use = 0) =>
  `${name}\t00000000\t${gateway}\t0003\t0\t${use}\t0\t00000000\t0\t0\t0\n`
const lan = 'eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n'
const zeros = '0'.repeat(32)

/** Plays `steps` (ms → change) against a recorded machine in virtual time, polled each second. */
const signsOf = (
  steps: Readonly<Record<number, (machine: Machine) => void>>,
  extra: Partial<SignOptions> = {},
): readonly string[] => {
  const root = mkdtempSync(join(tmpdir(), 'signs-'))
  const machine: Machine = {
    root,
    write: (path, text) => {
      mkdirSync(dirname(join(root, path)), { recursive: true })
      writeFileSync(join(root, path), text)
    },
    remove: path => rmSync(join(root, path), { recursive: true, force: true }),
  }
  const seen = timeline(10_500, ({ clock }) => {
    for (const [atMs, change] of Object.entries(steps)) {
      if (atMs === '0') change(machine)
      else clock.scheduler.schedule(() => change(machine), Number(atMs))
    }
    return localSigns$({ clock, root, addresses: () => [], ...extra })
  })
  rmSync(root, { recursive: true })
  return seen.map(([atMs, sign]) => `${atMs} ${describe(sign, root)}`)
}
const describe = (sign: unknown, root: string): string => {
  const { kind, detail } = sign as Sign
  return `${kind} ${detail.replace(root, '')}`
}
const link =
  (state: string, carrier = '1', ups = '1') =>
  (machine: Machine) => {
    machine.write('sys/class/net/eth0/operstate', `${state}\n`)
    machine.write('sys/class/net/eth0/carrier', `${carrier}\n`)
    machine.write('sys/class/net/eth0/carrier_up_count', `${ups}\n`)
  }

test('what is there at the start is no sign, and neither is a machine without anything', () => {
  assert.equal(signsOf({}), [])
  const full = (machine: Machine) => {
    link('up')(machine)
    machine.write('proc/net/route', HEADER + route('eth0', '010200C0'))
    machine.write('etc/resolv.conf', 'nameserver 192.0.2.1\n')
  }
  assert.equal(signsOf({ 0: full }, { addresses: () => ['eth0 192.0.2.7'] }), [])
})

test('a carrier that comes up is a sign, its loss is not', () => {
  assert.equal(
    signsOf({ 0: link('down', '0'), 1500: link('up'), 3500: link('down', '0'), 5500: link('up', '1', '2') }),
    ['2000 carrier eth0', '6000 carrier eth0'],
  )
})

test('a carrier that was lost and found between two looks is a sign', () => {
  assert.equal(signsOf({ 0: link('up'), 1500: link('up', '1', '2') }), ['2000 carrier eth0'])
})

test('an interface that appears is a sign; a modem counts by its carrier, a dormant radio not, loopback never', () => {
  const appear = (name: string, state: string) => (machine: Machine) => {
    machine.write(`sys/class/net/${name}/operstate`, state)
    machine.write(`sys/class/net/${name}/carrier`, '1')
  }
  const steps = {
    1500: appear('wwan0', 'unknown'),
    2500: appear('wlan0', 'dormant'),
    3500: appear('lo', 'unknown'),
    4500: appear('wlan0', 'up'),
  }
  assert.equal(signsOf(steps), ['2000 carrier wwan0', '5000 carrier wlan0'])
})

test('a default route that appears or changes is a sign; its loss, its use and other routes are not', () => {
  const routes = (text: string) => (machine: Machine) => machine.write('proc/net/route', HEADER + text)
  const steps = {
    0: routes(lan),
    1500: routes(lan + route('eth0', '010200C0')),
    2500: routes(lan + route('eth0', '010200C0', 77)),
    3500: routes(route('wwan0', '00000000')),
    4500: routes(''),
    5500: routes(lan),
  }
  assert.equal(signsOf(steps), ['2000 route eth0 via 192.0.2.1', '4000 route wwan0'])
})

test('a default route of IPv6 counts likewise, but not the one that rejects', () => {
  const line = (gateway: string, flags: string, name: string) =>
    `${zeros} 00 ${zeros} 00 ${gateway} 00000400 00000001 00000000 ${flags} ${name}\n`
  const gateway = `fe80${'0'.repeat(27)}1`
  const steps = {
    0: (machine: Machine) => machine.write('proc/net/ipv6_route', line(zeros, '00200200', 'lo')),
    1500: (machine: Machine) => machine.write('proc/net/ipv6_route', line(gateway, '00000003', 'eth0')),
    2500: (machine: Machine) => machine.write('proc/net/ipv6_route', line(zeros, '00000201', 'eth1')),
  }
  assert.equal(signsOf(steps), ['2000 route eth0 via fe80:0000:0000:0000:0000:0000:0000:0001'])
})

test('an address that appears or changes is a sign, its loss is not', () => {
  const plans = [[], ['eth0 192.0.2.7'], ['eth0 192.0.2.7'], ['eth0 192.0.2.8'], [], ['eth0 192.0.2.8']]
  let look = 0
  assert.equal(signsOf({}, { addresses: () => plans[look++] ?? ['eth0 192.0.2.8'] }), [
    '1000 address eth0 192.0.2.7',
    '3000 address eth0 192.0.2.8',
    '5000 address eth0 192.0.2.8',
  ])
})

test('a resolver with other contents is a sign; a touched, emptied or removed one is not', () => {
  const resolver = (text: string) => (machine: Machine) => machine.write('etc/resolv.conf', text)
  const steps = {
    0: resolver('nameserver 192.0.2.1\n'),
    1500: (machine: Machine) => utimesSync(join(machine.root, 'etc/resolv.conf'), 1, 1),
    2500: resolver('nameserver 192.0.2.2\n'),
    3500: resolver(''),
    4500: (machine: Machine) => machine.remove('etc/resolv.conf'),
    5500: (machine: Machine) => {
      machine.write('run/stub.conf', 'nameserver 192.0.2.3\n')
      symlinkSync(join(machine.root, 'run/stub.conf'), join(machine.root, 'etc/resolv.conf'))
    },
  }
  assert.equal(signsOf(steps), ['3000 resolver /etc/resolv.conf', '6000 resolver /etc/resolv.conf'])
})

test('a host with hundreds of interfaces is watched within a limit', () => {
  const many = (count: number) => (machine: Machine) => {
    for (let i = 0; i < count; i++) machine.write(`sys/class/net/veth${i}/operstate`, 'up')
  }
  assert.is(signsOf({ 1500: many(200) }).length, WATCHED_INTERFACES_MAX)
})

test('the interval is the one that is asked for, and unsubscribing ends the looks', () => {
  let looks = 0
  const addresses = () => [`eth0 ${looks++}`]
  const { length } = timeline(2_050, ({ clock }) =>
    localSigns$({ clock, root: '/nowhere', intervalMs: 500, addresses }).pipe(take(3)),
  )
  assert.is(length, 4, 'three signs and the completion')
  assert.is(looks, 4)
})

test('a look at this machine takes less than a millisecond', () => {
  const looks = 200
  const startedAt = process.hrtime.bigint()
  timeline(looks * 1_000, ({ clock }) => localSigns$({ clock, root: '/' }))
  const lookMs = Number(process.hrtime.bigint() - startedAt) / 1e6 / looks
  assert.ok(lookMs < 1, `${lookMs} ms`)
})

// A real interface pair in a network namespace of its own.

const space = `headgate-signs-${process.pid}`
const ip = (...words: string[]) => execFileSync('ip', words, { stdio: 'pipe' })
const within = (...words: string[]) => ip('-n', space, ...words)

test('a real interface in a network namespace gives its signs', async () => {
  try {
    ip('netns', 'add', space)
  } catch (thrown) {
    console.log(
      `passed without running: "ip netns add" is not permitted here (${String(thrown).split('\n')[0]})`,
    )
    return
  }
  let child: ChildProcess | undefined
  try {
    within('link', 'add', 'veth0', 'type', 'veth', 'peer', 'name', 'veth1')
    const watcher = new URL('./watcher.ts', import.meta.url).pathname
    const running = spawn('ip', ['netns', 'exec', space, process.execPath, '--import', 'tsx', watcher], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    child = running
    const lines: string[] = []
    createInterface({ input: running.stdout }).on('line', line => lines.push(line))
    const until = async (wanted: string) => {
      for (let waitedMs = 0; waitedMs < 15_000 && !lines.includes(wanted); waitedMs += 20) await delay(20)
      assert.ok(lines.includes(wanted), `wanted "${wanted}", got ${JSON.stringify(lines)}`)
    }
    await until('watching')
    within('link', 'set', 'veth0', 'up')
    within('link', 'set', 'veth1', 'up')
    await until('carrier veth0')
    await until('carrier veth1')
    within('addr', 'add', '198.51.100.2/24', 'dev', 'veth0')
    await until('address veth0 198.51.100.2')
    within('route', 'add', 'default', 'via', '198.51.100.1', 'dev', 'veth0')
    await until('route veth0 via 198.51.100.1')

    const before = lines.length
    within('link', 'set', 'veth1', 'down')
    await delay(300)
    assert.equal(lines.slice(before), [], 'a loss is no sign')
    within('link', 'set', 'veth1', 'up')
    await delay(300)
    assert.ok(lines.slice(before).includes('carrier veth0'), JSON.stringify(lines.slice(before)))
  } finally {
    const gone = child === undefined ? undefined : new Promise(resolve => child?.once('exit', resolve))
    child?.kill('SIGKILL')
    await gone
    ip('netns', 'del', space)
  }
})

test.run()
