// Folders put back from an earlier copy, on either side: both histories are kept, what is missing is declared, and
// nothing is silent.

import { randomBytes } from 'node:crypto'
import { cpSync, rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Gateway, type Installation, until } from '../../bench/harness/installation.ts'
import { connected, publish } from './raw.ts'
import {
  type Delivery,
  drained,
  json,
  killed,
  type Line,
  linesOf,
  linkIs,
  QUIET,
  rowsOf,
  stopped,
  streamOf,
  verified,
  withInstallation,
} from './support.ts'

/** Trimming waits for 4 MB or 30 s. */
const TRIM_BYTES = 4 * 1024 * 1024
const LARGE_BYTES = 64 * 1024
/** Enough for one trim and something behind it. */
const LARGE_COUNT = Math.ceil((1.5 * TRIM_BYTES) / LARGE_BYTES)

const copyOf = (folder: string): string => {
  const copy = `${folder}.copy`
  // Sockets cannot be copied, nor does anybody miss them.
  cpSync(folder, copy, { recursive: true, filter: file => !file.endsWith('.sock') })
  return copy
}
const putBack = (folder: string): void => {
  rmSync(folder, { recursive: true })
  cpSync(`${folder}.copy`, folder, { recursive: true })
}

let named = 0
/** Publishes texts and waits for the last PUBACK. */
const give = async (gateway: Gateway, payloads: readonly (string | Buffer)[]): Promise<void> => {
  named += 1
  const device = await connected(gateway.localPort, { clientId: `giver-${named}` })
  for (const [i, payload] of payloads.entries()) device.send(publish('history', 1, i + 1, payload))
  await device.packet('puback', payloads.length)
  device.close()
}
const texts = (what: string, count: number): string[] =>
  Array.from({ length: count }, (_, i) => `${what} ${i + 1}`)
const large = (): Buffer[] => Array.from({ length: LARGE_COUNT }, () => randomBytes(LARGE_BYTES))

const payloadsOf = (lines: readonly Line[], epoch: string): unknown[] =>
  lines.filter(line => line.epoch === epoch && line.skip === undefined).map(({ payload }) => payload)

/** Every offset of every epoch is data once, or skipped; the view and the records agree. */
const nothingSilent = async (installation: Installation, gateway: Gateway): Promise<Delivery['streams']> => {
  const rows = await rowsOf(installation, gateway.id)
  const lines = await linesOf(installation, gateway.id)
  for (const { epoch, origin = 0, last, gaps, repeated, records, skips } of rows) {
    const offsets = lines
      .filter(line => line.epoch === epoch)
      .flatMap(({ offset = 0, skip }) =>
        skip === undefined ? [offset] : Array.from({ length: skip.count }, (_, i) => skip.first + i),
      )
    assert.equal(
      offsets,
      Array.from({ length: last === 0 ? 0 : last - origin }, (_, i) => origin + i + 1),
      `offsets of epoch ${epoch}`,
    )
    assert.equal(
      [gaps.count, repeated, records + skips.count],
      [0, 0, offsets.length],
      `the view of epoch ${epoch}`,
    )
  }
  return rows
}

test('an edge put back from an earlier copy forks: both histories are there, and new records arrive', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('returned')
    const first = await gateway.start(QUIET)
    await give(gateway, texts('common', 10))
    await drained(gateway, { head: 10 })
    assert.is((await stopped(first)).code, 0)
    copyOf(gateway.folder)
    const second = await gateway.start(QUIET)
    await give(gateway, texts('first history', 20))
    await drained(gateway, { head: 30 })
    await killed(second)

    putBack(gateway.folder)
    await gateway.start(QUIET)
    const parent = (await rowsOf(installation, 'returned'))[0]?.epoch ?? ''
    await until('it has forked', async () =>
      streamOf(await gateway.status()).epoch === parent ? undefined : true,
    )
    await give(gateway, texts('second history', 5))
    await drained(gateway, { head: 15 })
    const rows = await until('the view knows both', async () => {
      const now = await rowsOf(installation, 'returned')
      return now.length === 2 && now.every(({ last }) => last >= 15) ? now : undefined
    })

    await nothingSilent(installation, gateway)
    const old = rows.find(({ epoch }) => epoch === parent)
    const fresh = rows.find(({ epoch }) => epoch !== parent)
    assert.equal([old?.first, old?.last, old?.records], [1, 30, 30])
    assert.is(fresh?.parent, parent)
    assert.equal(
      fresh?.forks.map(({ parent: from, held }) => ({ from, held })),
      [{ from: parent, held: 30 }],
    )
    const lines = await linesOf(installation, 'returned')
    assert.equal(payloadsOf(lines, parent), [...texts('common', 10), ...texts('first history', 20)])
    assert.equal(payloadsOf(lines, fresh?.epoch ?? '').slice(-5), texts('second history', 5))
    // The gateway tells of it as well, in its own events.
    await drained(gateway, { stream: 'events' })
    const events = await until('the event', async () => {
      const found = (await linesOf(installation, 'returned', 'events')).filter(
        ({ topic }) => topic === 'events/forked',
      )
      return found.some(({ payload }) => JSON.stringify(payload).includes('data')) ? found : undefined
    })
    assert.match(JSON.stringify(events), /the cloud has 30, our log ends at 10/)
    await verified(installation, [gateway])
  })
})

test('an edge put back that has grown beyond the mark by then forks as well, and so does a second time', async () => {
  await withInstallation(async installation => {
    const cloud = await installation.startCloud()
    const gateway = await installation.enrol('overgrown')
    const first = await gateway.start(QUIET)
    await give(gateway, texts('common', 10))
    await drained(gateway, { head: 10 })
    assert.is((await stopped(first)).code, 0)
    copyOf(gateway.folder)
    const second = await gateway.start(QUIET)
    await give(gateway, texts('first history', 20))
    await drained(gateway, { head: 30 })
    await killed(second)
    await killed(cloud)

    putBack(gateway.folder)
    const third = await gateway.start(QUIET)
    await give(gateway, texts('second history', 40))
    await installation.startCloud()
    const parent = streamOf(await gateway.status()).epoch
    await until('it has forked', async () =>
      streamOf(await gateway.status()).epoch === parent ? undefined : true,
    )
    await drained(gateway, { head: 50 })
    await killed(third)

    putBack(gateway.folder)
    await gateway.start(QUIET)
    await until('it has forked again', async () =>
      streamOf(await gateway.status()).epoch === parent ? undefined : true,
    )
    await give(gateway, texts('third history', 3))
    await drained(gateway, { head: 13 })
    const rows = await until('the view knows all three', async () => {
      const now = await rowsOf(installation, 'overgrown')
      return now.length === 3 && now.every(({ last }) => last >= 13) ? now : undefined
    })
    assert.equal(
      rows.map(({ last }) => last).toSorted((a, b) => a - b),
      [13, 30, 50],
    )
    assert.equal(
      rows
        .filter(({ epoch }) => epoch !== parent)
        .map(row => row.forks.map(fork => [fork.parent, fork.held])),
      [[[parent, 30]], [[parent, 30]]],
    )
    await nothingSilent(installation, gateway)
    const lines = await linesOf(installation, 'overgrown')
    assert.is(lines.filter(({ payload }) => String(payload).startsWith('second history')).length, 40)
    assert.is(lines.filter(({ payload }) => String(payload).startsWith('third history')).length, 3)
    await verified(installation, [gateway])
  })
})

test('a cloud put back from an earlier copy gets what the gateway still has, and a declared skip for the rest', async () => {
  await withInstallation(async installation => {
    const before = await installation.startCloud()
    const gateway = await installation.enrol('trimmed')
    await gateway.start(QUIET)
    await give(gateway, texts('early', 10))
    await drained(gateway, { head: 10 })
    assert.is((await stopped(before)).code, 0)
    copyOf(installation.cloudFolder)
    const after = await installation.startCloud()
    await give(gateway, large())
    await give(gateway, texts('late', 10))
    const head = await drained(gateway, { head: 10 + LARGE_COUNT + 10 })
    await until('the gateway has trimmed', async () =>
      streamOf(await gateway.status()).tail > 11 ? true : undefined,
    )
    // A trim that was begun still ends.
    await sleep(500)
    const trimmed = streamOf(await gateway.status()).tail - 1
    assert.ok(trimmed < head - 10, `something is left to send again: trimmed through ${trimmed} of ${head}`)
    await killed(after)

    putBack(installation.cloudFolder)
    await installation.startCloud()
    await linkIs(gateway, 'up')
    await give(gateway, texts('after', 5))
    await until('everything is in the view again', async () =>
      (await rowsOf(installation, 'trimmed'))[0]?.last === head + 5 ? true : undefined,
    )

    const [row, ...others] = await nothingSilent(installation, gateway)
    assert.equal(others, [])
    assert.equal(row?.skips.list, [{ first: 11, last: trimmed, cause: 'trimmed_after_mark' }])
    assert.is(row?.records, head + 5 - (trimmed - 10))
    assert.is(row?.forks.length, 0)
    const lines = await linesOf(installation, 'trimmed')
    assert.equal(
      lines.slice(-15).map(({ payload }) => payload),
      [...texts('late', 10), ...texts('after', 5)],
    )
    const { events } = await json<{
      events: { event: { kind: string; mark?: number; tail?: number; stream?: string } }[]
    }>(installation, '/api/events?limit=1000')
    assert.equal(
      events
        .map(({ event }) => event)
        .filter(({ kind }) => kind === 'mark_behind_tail')
        .map(({ stream, mark, tail }) => [stream, mark, tail]),
      [['data', 10, trimmed + 1]],
    )
    await drained(gateway, { stream: 'events' })
    await until('the gateway tells of it', async () =>
      (await linesOf(installation, 'trimmed', 'events')).some(({ topic }) => topic === 'events/declared')
        ? true
        : undefined,
    )
    await verified(installation, [gateway])
  })
})

test('a cloud put back to a time before a fork does not pass over what it lost of the older epoch', async () => {
  await withInstallation(async installation => {
    const before = await installation.startCloud()
    const gateway = await installation.enrol('both')
    const first = await gateway.start(QUIET)
    await give(gateway, texts('early', 10))
    await drained(gateway, { head: 10 })
    assert.is((await stopped(before)).code, 0)
    copyOf(installation.cloudFolder)
    const after = await installation.startCloud()
    await give(gateway, large())
    await drained(gateway, { head: 10 + LARGE_COUNT })
    await until('the gateway has trimmed', async () =>
      streamOf(await gateway.status()).tail > 11 ? true : undefined,
    )
    assert.is((await stopped(first)).code, 0)
    copyOf(gateway.folder)
    const second = await gateway.start(QUIET)
    await give(gateway, texts('lost on the gateway', 10))
    await drained(gateway, { head: 20 + LARGE_COUNT })
    await killed(second)
    putBack(gateway.folder)
    await gateway.start(QUIET)
    const parent = streamOf(await gateway.status()).epoch
    const [known] = await rowsOf(installation, 'both')
    await until('it has forked', async () =>
      streamOf(await gateway.status()).epoch === known?.epoch ? undefined : true,
    )
    await drained(gateway)
    await killed(after)

    putBack(installation.cloudFolder)
    await installation.startCloud()
    await give(gateway, texts('after', 5))
    await drained(gateway, { head: 15 + LARGE_COUNT })
    const rows = await until('the view knows both epochs', async () => {
      const now = await rowsOf(installation, 'both')
      return now.length === 2 && now.some(({ last }) => last === 15 + LARGE_COUNT) ? now : undefined
    })
    const old = rows.find(({ epoch }) => epoch === known?.epoch)
    const fresh = rows.find(({ epoch }) => epoch !== known?.epoch)
    assert.is(old?.last, 10, `of ${parent}`)
    // What lies between the copy's end and the fork was acknowledged, delivered and trimmed: it is shown as missing.
    const { origin = 0 } = fresh ?? {}
    assert.ok(origin > 10)
    assert.equal(fresh?.gaps.list, [{ first: 11, last: origin }])
  })
})

test.run()
