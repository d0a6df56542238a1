// A full disk on the gateway: it acknowledges nothing that it cannot keep, stays alive, and recovers by itself.

import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { audit } from '../../bench/harness/audit.ts'
import { connectRaw, publishPacket } from '../../bench/harness/generator.ts'
import { fetchSocket, type Gateway, install, until } from '../../bench/harness/installation.ts'

const DISK_MB = 24
const PAYLOAD_BYTES = 20_000
const WINDOW = 20
const STALLED_MS = 3_000

/** The gateway's folder becomes a small disk of its own. */
const onSmallDisk = (gateway: Gateway): (() => void) => {
  const aside = mkdtempSync(join(tmpdir(), 'headgate-aside-'))
  cpSync(gateway.folder, aside, { recursive: true })
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MB}m,mode=700`, 'tmpfs', gateway.folder])
  cpSync(aside, gateway.folder, { recursive: true })
  rmSync(aside, { recursive: true, force: true })
  return () => execFileSync('umount', ['-l', gateway.folder])
}

/** Publishes numbered messages with QoS 1 until `count` are acknowledged, or none is for a while. */
const publish = async (port: number, from: number, count: number): Promise<number> => {
  const socket = await connectRaw(port, `filler-${from}`)
  let acknowledged = 0
  let sent = 0
  let lastMs = performance.now()
  const send = () => {
    while (sent < count && sent - acknowledged < WINDOW) {
      const payload = Buffer.from(
        JSON.stringify({ n: from + sent, x: randomBytes(PAYLOAD_BYTES / 2).toString('hex') }),
      )
      socket.write(publishPacket('fill', payload, (sent % 65_535) + 1))
      sent += 1
    }
  }
  socket.on('error', () => undefined)
  socket.on('data', (chunk: Buffer) => {
    acknowledged += chunk.length / 4
    lastMs = performance.now()
    send()
  })
  send()
  await until(
    'all or a stall',
    async () => (acknowledged >= count || performance.now() - lastMs > STALLED_MS ? true : undefined),
    60_000,
  )
  socket.destroy()
  return acknowledged
}

const metric = async (gateway: Gateway, pattern: RegExp): Promise<number> =>
  Number(pattern.exec(await fetchSocket(join(gateway.folder, 'status.sock'), '/metrics'))?.[1] ?? 0)

test('a full disk refuses what it cannot keep, keeps what it acknowledged, and takes again after the drain', async () => {
  const installation = await install()
  let unmount: () => void = () => undefined
  try {
    let cloud = await installation.startCloud()
    const gateway = await installation.enrol('full')
    unmount = onSmallDisk(gateway)
    const edge = await gateway.start({
      EDGE_DISK_RESERVE_BYTES: '2000000',
      EDGE_METRICS_INTERVAL_MS: '600000',
    })
    await until('the link is up', async () => ((await gateway.status()).link === 'up' ? true : undefined))
    cloud.kill('SIGKILL')
    await cloud.ended

    const before = await publish(gateway.localPort, 0, 5_000)
    assert.ok(before > 300 && before < 3_000, `${before} of 5,000 fitted`)
    // QoS 0 is dropped and counted; status and metrics answer.
    execFileSync('mosquitto_pub', ['-p', String(gateway.localPort), '-t', 'q0', '-m', 'x'])
    const dropped = await until('the drop is counted', async () => {
      const count = await metric(
        gateway,
        /limit_reached_total\{concern="ingest",limit="dropped_full"\} (\d+)/,
      )
      return count > 0 ? count : undefined
    })
    assert.ok(dropped > 0)
    const { streams } = await gateway.status()
    assert.ok((streams.find(({ name }) => name === 'data')?.head ?? 0) >= before)

    cloud = await installation.startCloud()
    await until(
      'it drained',
      async () =>
        (await gateway.status()).streams.every(({ head, marked }) => head === marked) ? true : undefined,
      60_000,
    )
    await until(
      'it trimmed',
      async () => ((await publish(gateway.localPort, 10_000, 1)) === 1 ? true : undefined),
      60_000,
    )
    const after = await publish(gateway.localPort, 20_000, 100)
    assert.is(after, 100)
    await until('all arrived', async () =>
      (await gateway.status()).streams.every(({ head, marked }) => head === marked) ? true : undefined,
    )
    const ranges = [
      { from: 0, count: before },
      { from: 20_000, count: after },
    ]
    const result = await audit(
      installation,
      'full',
      ranges.map(({ count }) => count),
      line => {
        if (line.topic !== 'fill') return undefined
        const { n } = (typeof line.payload === 'string' ? JSON.parse(line.payload) : line.payload) as {
          n: number
        }
        const producer = n >= 20_000 ? 1 : 0
        return n >= 10_000 && n < 20_000
          ? undefined
          : { producer, sequence: n - (ranges[producer]?.from ?? 0) }
      },
    )
    assert.equal([result.lost, result.disordered], [0, 0])
    assert.is(edge.said().includes('"level":50'), false, 'it stayed alive')
  } finally {
    await installation.close().catch(() => undefined)
    unmount()
    rmSync(installation.folder, { recursive: true, force: true })
  }
})

test.run()
