import { connect } from 'node:net'
import fc from 'fast-check'
import { firstValueFrom } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { parseCursor } from '../../../cloud/api/cursor.ts'
import { CURSORS_TABLE, NAMED_CURSORS_MAX, namedCursors } from '../../../cloud/api/named-cursors.ts'
import { readPage } from '../../../cloud/api/page.ts'
import { memoryStore } from '../../../streams/log/memory.ts'
import { gatewayFrames, type Sent, undecodable } from '../../support/gateway-frames.ts'
import { memoryCloudLog } from '../../support/memory-cloud-log.ts'
import { type Answer, linesOf, until, withApi } from './support.ts'

const texts = (count: number, from = 0): Sent[] =>
  Array.from({ length: count }, (_, i) => ({ topic: 'a/b', payload: `r${from + i}` }))

test('records come in order with their place, payloads by what they are', () =>
  withApi(
    async ({ append, get }) => {
      const frames = gatewayFrames('g1')
      const first = frames.seal([
        { topic: 'senml', payload: '[ {"n":"x", "v":1.50} ]', retain: true },
        { topic: 'pretty', payload: '[\n{"n":"x","v":1}]' },
        { topic: 'te"xt', payload: 'hello', qos: 0 },
        { topic: 'json', payload: '{"a":1}' },
        { topic: 'raw', payload: Buffer.from([0xff, 0]) },
      ])
      await append(
        'data',
        first,
        frames.skip(3, 'age'),
        undecodable(frames.seal(texts(2))),
        frames.seal(texts(1)),
      )
      const { status, body, headers } = await get('/api/records?gateway=g1')
      assert.equal([status, headers.get('content-type')], [200, 'application/x-ndjson'])
      assert.match(body, '"payload":[ {"n":"x", "v":1.50} ]')
      const lines = linesOf(body)
      const { cursor, ...line } = lines[0]
      assert.equal(line, {
        ...{ gateway: 'g1', epoch: '0707070707070707', stream: 'data', offset: 1, topic: 'senml' },
        ...{ receivedAt: '2025-06-15T15:06:40.000Z', qos: 1, retain: true, payload: [{ n: 'x', v: 1.5 }] },
      })
      assert.ok(parseCursor(cursor, 'data').ok)
      assert.equal(lines.map(({ payload, encoding }) => [payload, encoding]).slice(1, 5), [
        [[{ n: 'x', v: 1 }], undefined],
        ['hello', undefined],
        ['{"a":1}', undefined],
        ['/wA=', 'base64'],
      ])
      assert.equal(lines[5].skip, { first: 6, count: 3, cause: 'age' })
      assert.equal([lines[6].undecodable.first, lines[6].undecodable.count], [9, 2])
      assert.equal([lines[7].offset, lines[7].payload, lines.length], [11, 'r0', 8])
    },
    { projections: false },
  ))

test('from any line’s cursor reading goes on with the next line, whatever the pages', async () => {
  const log = memoryCloudLog()
  const mine = gatewayFrames('g1')
  const other = gatewayFrames('g2')
  for (const body of [
    mine.seal(texts(3)),
    other.seal(texts(2)),
    mine.skip(4, 'quota'),
    other.seal(texts(5)),
    mine.seal(texts(4, 3)),
    other.seal(texts(1)),
  ]) {
    await firstValueFrom(log.append('data', [body], []))
  }
  const head = log.head('data')
  const read = async (after: { class: 'data'; seq: number; index: number }, sizes: readonly number[]) => {
    const lines: Answer[] = []
    let cursor = after as Parameters<typeof readPage>[1]['after']
    for (let i = 0; ; i++) {
      const linesMax = sizes[i % sizes.length] ?? 1
      const page = await firstValueFrom(
        readPage(log, { after: cursor, gateway: 'g1', stream: undefined, linesMax, head }),
      )
      lines.push(...linesOf(Buffer.from(page.bytes).toString()))
      cursor = page.cursor
      if (page.atHead && page.lines === 0) return lines
      assert.ok(i < 100)
    }
  }
  const whole = await read({ class: 'data', seq: 0, index: 0 }, [1_000])
  assert.equal(
    whole.map(({ offset, skip }) => offset ?? skip.first),
    [1, 2, 3, 4, 8, 9, 10, 11],
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 }),
      fc.nat(whole.length - 1),
      async (sizes, at) => {
        assert.equal(await read({ class: 'data', seq: 0, index: 0 }, sizes), whole)
        const parsed = parseCursor(whole[at].cursor, 'data')
        assert.ok(parsed.ok)
        assert.equal(
          await read(parsed.value as { class: 'data'; seq: number; index: number }, sizes),
          whole.slice(at + 1),
        )
      },
    ),
    { numRuns: 60, seed: 2 },
  )
})

test('what retention took before it was read is told', async () => {
  const log = memoryCloudLog()
  const frames = gatewayFrames('g1')
  for (let i = 0; i < 5; i++) await firstValueFrom(log.append('data', [frames.seal(texts(1, i))], []))
  log.forget('data', 4)
  const read = async (seq: number) => {
    const page = await firstValueFrom(
      readPage(log, {
        after: { class: 'data', seq, index: seq },
        gateway: undefined,
        stream: undefined,
        linesMax: 9,
        head: 5,
      }),
    )
    return linesOf(Buffer.from(page.bytes).toString()).map(({ offset, expired }) => offset ?? expired)
  }
  assert.equal(await read(0), [4, 5])
  assert.equal(await read(1), [{ entries: 3 }, 4, 5])
})

test('following sends what arrives, and ends when the API stops', () =>
  withApi(
    async ({ append, url, stop }) => {
      const frames = gatewayFrames('g1')
      await append('data', frames.seal(texts(2)))
      const response = await fetch(`${url}/api/records?gateway=g1&follow=1&limit=1`)
      const got: string[] = []
      const reading = (async () => {
        const decoder = new TextDecoder()
        for await (const chunk of response.body!) got.push(decoder.decode(chunk))
      })()
      await until(async () => linesOf(got.join('')).length === 2)
      await append('data', gatewayFrames('g2').seal(texts(1)), frames.seal(texts(1, 2)))
      await until(async () => linesOf(got.join('')).length === 3)
      assert.equal(
        linesOf(got.join('')).map(({ payload }) => payload),
        ['r0', 'r1', 'r2'],
      )
      stop()
      await reading
    },
    { projections: false },
  ))

test('a reader that does not read is sent what sockets hold, and no page is made for it', () => {
  let pages = 0
  return withApi(
    async ({ append, url }) => {
      const frames = gatewayFrames('g1')
      const large = Array.from({ length: 40 }, (_, i) => ({ topic: 'a', payload: `${i}`.padEnd(1_500, 'x') }))
      for (let i = 0; i < 40; i++)
        await append('data', ...Array.from({ length: 20 }, () => frames.seal(large)))
      const { port } = new URL(url)
      const socket = connect(Number(port), '127.0.0.1')
      socket.write(
        `GET /api/records?limit=1000000 HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: close\r\n\r\n`,
      )
      await until(async () => pages > 3)
      await new Promise(resolve => setTimeout(resolve, 1_500))
      const whileWaiting = pages
      await new Promise(resolve => setTimeout(resolve, 500))
      assert.is(pages, whileWaiting)
      let read = 0
      socket.on('data', chunk => {
        read += chunk.length
      })
      await new Promise(resolve => socket.once('close', resolve))
      assert.ok(read > 800 * 40 * 1_500, `${read} bytes`)
      assert.ok(whileWaiting < pages / 3, `${whileWaiting} of ${pages} pages`)
    },
    {
      projections: false,
      onPage: () => {
        pages += 1
      },
    },
  )
})

test('cursors that are wrong are refused with the reason', () =>
  withApi(
    async ({ append, get }) => {
      await append('data', gatewayFrames('g1').seal(texts(1)))
      const cursor = linesOf((await get('/api/records')).body)[0].cursor
      for (const [query, because] of [
        ['after=nonsense', 'not one that this API gave'],
        [`after=${cursor}&stream=events`, 'data log'],
        ['after=AAAAAP-___8A', 'beyond the log'],
        [`after=${cursor}&cursor=x`, 'not both'],
      ]) {
        const { status, body } = await get(`/api/records?${query}`)
        assert.is(status, 400, query)
        assert.match(body.message, because!)
      }
      assert.equal((await get('/api/records?cursor=nobody')).body.error, 'cursor_unknown')
    },
    { projections: false },
  ))

test('a named cursor is where a program goes on', () =>
  withApi(
    async ({ append, get }) => {
      await append('data', gatewayFrames('g1').seal(texts(5)))
      const lines = linesOf((await get('/api/records')).body)
      const put = await get('/api/cursors/billing', {
        method: 'PUT',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ cursor: lines[2].cursor }),
      })
      assert.equal([put.status, put.body.cursor], [200, lines[2].cursor])
      assert.is((await get('/api/cursors/billing')).body.cursor, lines[2].cursor)
      const rest = linesOf((await get('/api/records?cursor=billing')).body)
      assert.equal(
        rest.map(({ payload }) => payload),
        ['r3', 'r4'],
      )
      assert.is((await get('/api/cursors')).body.cursors.length, 1)
      assert.is((await get('/api/cursors/billing', { method: 'DELETE' })).status, 204)
      assert.is((await get('/api/cursors/billing')).status, 404)
    },
    { projections: false },
  ))

test('named cursors outlive a restart, are bounded, and commit one at a time', async () => {
  const store = memoryStore()
  let running = 0
  const counted = {
    ...store,
    commit: (writes: Parameters<typeof store.commit>[0]) => {
      running += 1
      assert.is(running, 1)
      return new (store.commit(writes).constructor as typeof import('rxjs').Observable)<void>(subscriber => {
        const timer = setTimeout(() => {
          running -= 1
          store.commit(writes).subscribe(subscriber)
        }, 1)
        return () => clearTimeout(timer)
      })
    },
  }
  const named = namedCursors(counted)
  const put = (name: string) =>
    firstValueFrom(named.put({ name, cursor: 'AAAAAAAAAAAA', acknowledgedAtMs: 5 }))
  await Promise.all(['a', 'b', 'c', 'a'].map(put))
  assert.equal(store.scan(CURSORS_TABLE, { limit: 9 }).length, 3)
  assert.equal(namedCursors(store).get('b'), { name: 'b', cursor: 'AAAAAAAAAAAA', acknowledgedAtMs: 5 })

  const full = namedCursors(memoryStore())
  for (let i = 0; i < NAMED_CURSORS_MAX; i++)
    await firstValueFrom(full.put({ name: `c${i}`, cursor: 'x', acknowledgedAtMs: 0 }))
  const code = await firstValueFrom(full.put({ name: 'more', cursor: 'x', acknowledgedAtMs: 0 })).catch(
    thrown => thrown.code,
  )
  assert.is(code, 'limit_reached')
  await firstValueFrom(full.put({ name: 'c0', cursor: 'y', acknowledgedAtMs: 0 }))
})

test.run()
