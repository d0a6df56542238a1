import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { firstValueFrom, lastValueFrom, toArray } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { sealFrame } from '../../../schemas/frame.ts'
import { CHAIN_ZERO, type Chain, epochOf, gatewayId, type Offset } from '../../../schemas/ids.ts'
import { noBallast } from '../../../streams/log/ballast.ts'
import type {
  CloudBody,
  CloudEntry,
  CloudReader,
  CloudWriter,
  LogClass,
  StoredMark,
} from '../../../streams/log/cloudlog.ts'
import { openCloudReader } from '../../../streams/log/cloudreader.ts'
import { openCloudWriter } from '../../../streams/log/cloudwriter.ts'
import { verifyCloudLog } from '../../../streams/log/verify-cloud.ts'
import type { Clock } from '../../../streams/run/clock.ts'
import { clock, DATA, grant, record } from '../../support/logs.ts'

const G = gatewayId('g')
const epoch = epochOf(Buffer.alloc(8, 3))
const DAY_MS = 86_400_000

const inFolder = async (body: (folder: string) => Promise<void>): Promise<void> => {
  const folder = mkdtempSync(join(tmpdir(), 'headgate-cloudlog-'))
  try {
    await body(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const withWriter = async <R>(
  folder: string,
  body: (log: CloudWriter) => Promise<R>,
  at: Clock = clock,
): Promise<R> => {
  let opened: CloudWriter | undefined
  const held = openCloudWriter({ folder, clock: at, ballast: noBallast, reserveBytes: 0 }).subscribe(log => {
    opened = log
  })
  try {
    return await body(opened!)
  } finally {
    held.unsubscribe()
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

const chain: Chain = CHAIN_ZERO
const frame = (first: number): CloudBody => {
  const sealed = sealFrame(
    [record(`r${first}`)],
    { stream: DATA, epoch, first: first as Offset, previous: chain },
    { wallMs: 1, monoMs: 1, bootId: clock.bootId, quality: 'synchronised' },
  )
  return { kind: 'frame', gateway: G, frame: sealed }
}
const mark = (offset: number): StoredMark => ({
  gateway: G,
  stream: DATA,
  epoch,
  offset: offset as Offset,
  chain: 'ab'.repeat(16) as Chain,
})
const event = (n: number): CloudBody => ({
  kind: 'event',
  event: { kind: 'cloud_started', run: `${n}`, version: '1' },
})
const read = (log: CloudReader, logClass: LogClass, after = 0): Promise<CloudEntry[]> =>
  lastValueFrom(
    log.replay({ class: logClass, after, atHead: 'complete', demand$: grant(1e6) }).pipe(toArray()),
  )

test('entries are numbered in the order of their commit, classes apart, and survive a restart with their marks', () =>
  inFolder(async folder => {
    await withWriter(folder, async log => {
      assert.equal(await firstValueFrom(log.append('data', [frame(1), frame(2)], [mark(2)])), {
        first: 1,
        last: 2,
      })
      assert.equal(await firstValueFrom(log.append('events', [event(1)], [])), { first: 1, last: 1 })
      const [a, b] = await Promise.all([
        firstValueFrom(log.append('data', [frame(3)], [mark(3)])),
        firstValueFrom(log.append('data', [frame(4)], [mark(4)])),
      ])
      assert.equal(
        [a, b],
        [
          { first: 3, last: 3 },
          { first: 4, last: 4 },
        ],
      )
    })
    await withWriter(folder, async log => {
      assert.is(log.head('data'), 4)
      assert.equal(log.marks(), [mark(4)])
      assert.equal(
        (await read(log, 'data')).map(entry => [entry.seq, entry.kind]),
        [
          [1, 'frame'],
          [2, 'frame'],
          [3, 'frame'],
          [4, 'frame'],
        ],
      )
      assert.equal(
        (await read(log, 'events')).map(entry => entry.kind === 'event' && entry.event),
        [{ kind: 'cloud_started', run: '1', version: '1' }],
      )
      assert.is(log.find({ gateway: G, stream: DATA, epoch, offset: 3 as Offset }), 3)
      assert.is(log.find({ gateway: gatewayId('h'), stream: DATA, epoch, offset: 3 as Offset }), undefined)
    })
  }))

test('a new day begins a segment that carries every mark, and reading goes across', () =>
  inFolder(async folder => {
    let nowMs = Date.UTC(2026, 0, 1, 23)
    const moving: Clock = { ...clock, nowMs: () => nowMs }
    await withWriter(
      folder,
      async log => {
        await firstValueFrom(log.append('data', [frame(1)], [mark(1)]))
        nowMs += DAY_MS
        await firstValueFrom(log.append('data', [frame(2)], []))
        nowMs -= 3 * DAY_MS // A clock that goes back begins no older segment.
        await firstValueFrom(log.append('data', [frame(3)], [mark(3)]))
        assert.equal(
          (await read(log, 'data', 1)).map(({ seq }) => seq),
          [2, 3],
        )
      },
      moving,
    )
    const files = readdirSync(join(folder, 'data')).filter(name => name.endsWith('.mdb'))
    assert.equal(files.toSorted(), ['000000000000001-2026-01-01.mdb', '000000000000002-2026-01-02.mdb'])
    rmSync(join(folder, 'data', '000000000000001-2026-01-01.mdb'))
    await withWriter(
      folder,
      async log => {
        assert.equal(log.marks(), [mark(3)])
        assert.is(log.tail('data'), 2)
        assert.equal(
          (await read(log, 'data')).map(({ seq }) => seq),
          [2, 3],
        )
      },
      moving,
    )
  }))

test('a segment whose first commit never came is taken away, and the one before goes on', () =>
  inFolder(async folder => {
    await withWriter(folder, log => firstValueFrom(log.append('data', [frame(1)], [mark(1)])))
    // As a crash between the making of the file and its first commit leaves it.
    await withWriter(join(folder, 'other'), async () => undefined)
    const [empty] = readdirSync(join(folder, 'other', 'data')).filter(name => name.endsWith('.mdb'))
    const { copyFileSync } = await import('node:fs')
    copyFileSync(
      join(folder, 'other', 'data', empty!),
      join(folder, 'data', '000000000000002-2099-01-01.mdb'),
    )
    await withWriter(folder, async log => {
      assert.equal(log.marks(), [mark(1)])
      assert.equal(await firstValueFrom(log.append('data', [frame(2)], [])), { first: 2, last: 2 })
    })
  }))

test('a reader in another thread follows what it is told of', () =>
  inFolder(async folder => {
    await withWriter(folder, async log => {
      await firstValueFrom(log.append('data', [frame(1)], []))
      const script = `
      const { workerData, parentPort } = await import('node:worker_threads')
      const { openCloudReader } = await import(workerData.reader)
      const { Subject } = await import('rxjs')
      const reader = openCloudReader({ folder: workerData.folder })
      const demand$ = new Subject()
      reader.replay({ class: 'data', after: 0, atHead: 'follow', demand$ }).subscribe(entry => parentPort.postMessage(entry.seq))
      demand$.next(1000)
      parentPort.on('message', head => { if (head === 0) reader.close().subscribe({ complete: () => process.exit(0) }); else reader.announce('data', head) })
    `
      writeFileSync(
        join(folder, 'worker.mjs'),
        `import { register } from '${import.meta.resolve('tsx/esm/api')}'\nregister()\n${script.replaceAll("import('rxjs')", `import('${import.meta.resolve('rxjs')}')`)}`,
      )
      const worker = new Worker(join(folder, 'worker.mjs'), {
        workerData: { folder, reader: import.meta.resolve('../../../streams/log/cloudreader.ts') },
      })
      const seen: number[] = []
      worker.on('message', (seq: number) => seen.push(seq))
      const saw = async (count: number) => {
        for (let i = 0; seen.length < count && i < 1_000; i++)
          await new Promise(resolve => setTimeout(resolve, 10))
      }
      await saw(1)
      const { last } = await firstValueFrom(log.append('data', [frame(2), frame(3)], []))
      const both = saw(3)
      worker.postMessage(last)
      await both
      assert.equal(seen, [1, 2, 3])
      // Told twice within a turn, a reader must not look for the second commit in a snapshot from before it.
      for (let i = 4; i <= 200; i++) {
        const added = await firstValueFrom(log.append('data', [frame(i)], []))
        worker.postMessage(added.last)
      }
      await saw(200)
      assert.equal(
        seen,
        Array.from({ length: 200 }, (_, i) => i + 1),
      )
      worker.postMessage(0)
      await new Promise(resolve => worker.on('exit', resolve))
    })
  }))

test('never emits more than was granted, and holds still at the head until more is durable', () =>
  inFolder(folder =>
    withWriter(folder, async log => {
      for (let i = 1; i <= 5; i++) await firstValueFrom(log.append('data', [frame(i)], []))
      const seen: number[] = []
      const { Subject } = await import('rxjs')
      const demand$ = new Subject<number>()
      const running = log
        .replay({ class: 'data', after: 0, atHead: 'follow', demand$ })
        .subscribe(({ seq }) => seen.push(seq))
      assert.equal(seen, [])
      demand$.next(3)
      assert.equal(seen, [1, 2, 3])
      demand$.next(10)
      await firstValueFrom(log.append('data', [frame(6)], []))
      assert.equal(seen, [1, 2, 3, 4, 5, 6])
      running.unsubscribe()
    }),
  ))

test('verify tells what is there, and names a frame whose bytes changed', () =>
  inFolder(async folder => {
    await withWriter(folder, async log => {
      await firstValueFrom(log.append('data', [frame(1), event(1)], []))
      const damaged = frame(2)
      if (damaged.kind === 'frame') damaged.frame[damaged.frame.length - 1]! ^= 1
      await firstValueFrom(log.append('data', [damaged], []))
    })
    const reports = await lastValueFrom(verifyCloudLog(folder).pipe(toArray()))
    const stream = reports.find(report => report.stream === 'g/data')!
    assert.is(stream.head, 2)
    assert.ok(stream.findings.some(({ at, problem }) => at.includes('2–2') && problem.includes('checksum')))
  }))

test('a reader opened on a folder that does not exist yet is empty', async () => {
  const reader = openCloudReader({ folder: join(tmpdir(), 'headgate-none') })
  assert.is(reader.head('data'), 0)
  assert.equal(await read(reader, 'data'), [])
  await lastValueFrom(reader.close(), { defaultValue: undefined })
})

test.run()
