import { createServer, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { firstValueFrom } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { serveApi } from '../../../cloud/api/serve.ts'
import { gatewayId } from '../../../schemas/ids.ts'
import { gatewayFrames } from '../../support/gateway-frames.ts'
import { until, withApi } from './support.ts'

test('gateways come from the registry, with their presence, values and account of delivery', () =>
  withApi(async ({ append, get }) => {
    const frames = gatewayFrames('g1')
    await append('events', {
      kind: 'event',
      event: { kind: 'connected', gateway: gatewayId('g1'), connection: 'c', address: '10.1.1.1' },
    })
    await append(
      'data',
      frames.seal([{ topic: 'a', payload: '[{"n":"t","u":"Cel","v":21.5,"bt":1.75e9}]' }]),
      frames.skip(5, 'quota'),
    )
    await until(
      async () =>
        (await get('/api/gateways/g1/latest')).body.records === 1 &&
        (await get('/api/gateways/g1')).body.presence === 'online',
    )

    const { status, body } = await get('/api/gateways')
    assert.is(status, 200)
    assert.equal(
      body.gateways.map((g: { id: string; presence: string }) => [g.id, g.presence]),
      [
        ['g1', 'online'],
        ['g2', 'never'],
      ],
    )
    assert.equal(
      (await get('/api/gateways?label=site=south')).body.gateways.map((g: { id: string }) => g.id),
      ['g2'],
    )
    const page = (await get('/api/gateways?limit=1')).body
    assert.equal([page.gateways.length, page.after], [1, 'g1'])
    assert.equal(
      (await get(`/api/gateways?after=${page.after}`)).body.gateways.map((g: { id: string }) => g.id),
      ['g2'],
    )

    const [value] = (await get('/api/gateways/g1/latest')).body.values
    assert.equal(
      [value.name, value.value, value.unit, value.at],
      ['t', 21.5, 'Cel', '2025-06-15T15:06:40.000Z'],
    )
    const [stream] = (await get('/api/gateways/g1/delivery')).body.streams
    assert.equal([stream.first, stream.last, stream.summary], [1, 6, 'received 1…6, 0 gaps, 5 skipped'])
  }))

test('errors are JSON and say what to do', () =>
  withApi(async ({ get }) => {
    const unknown = await get('/api/gateways/nobody')
    assert.equal(
      [unknown.status, unknown.body],
      [404, { error: 'gateway_unknown', message: 'no gateway is named "nobody"' }],
    )
    const wrong = await get('/api/gateways?limit=0')
    assert.is(wrong.status, 400)
    assert.match(wrong.body.message, /limit/)
    const lost = await get('/api/nothing')
    assert.is(lost.status, 404)
    assert.match(lost.body.message, '/api/openapi.json')
  }))

test('without the views, what needs them says so, and the rest goes on', () =>
  withApi(
    async ({ get }) => {
      const { status, body, headers } = await get('/api/gateways')
      assert.equal([status, body.error, headers.get('retry-after')], [503, 'worker_lost', '1'])
      const health = await get('/api/health')
      assert.equal([health.status, health.body.live, health.body.ready], [503, true, false])
      assert.match(health.body.reasons[0], 'views do not answer')
      assert.is((await get('/api/health/live')).status, 200)
      assert.is((await get('/api/events')).status, 200)
    },
    { projections: false },
  ))

test('health, metrics and the description are there', () =>
  withApi(async ({ get }) => {
    assert.equal((await get('/api/health')).body, { live: true, ready: true, reasons: [], version: '0.1.0' })
    const metrics = await get('/metrics')
    assert.match(metrics.body, 'headgate_test_total 1')
    const { body } = await get('/api/openapi.json')
    assert.is(body.info.title, 'Headgate')
    for (const path of [
      '/api/gateways/{id}/delivery',
      '/api/records',
      '/api/cursors/{name}',
      '/api/events',
      '/api/health',
    ]) {
      assert.ok(body.paths[path], path)
    }
  }))

test('a page of another site can neither reach it by a name of its own nor change anything', () =>
  withApi(async ({ url, get }) => {
    const { port } = new URL(url)
    const asked = (headers: Record<string, string>, method = 'GET') =>
      new Promise<number | undefined>((resolve, reject) => {
        const request = httpRequest(
          { host: '127.0.0.1', port, path: '/api/cursors/x', method, headers },
          response => {
            response.resume()
            resolve(response.statusCode)
          },
        )
        request.on('error', reject)
        request.end(method === 'PUT' ? '{}' : undefined)
      })
    assert.is(await asked({ host: `evil.example:${port}` }), 403)
    assert.is(await asked({ host: `localhost:${port}` }), 404)
    assert.is(
      await asked(
        { host: `127.0.0.1:${port}`, origin: 'https://evil.example', 'content-type': 'application/json' },
        'PUT',
      ),
      403,
    )
    assert.is(
      await asked(
        { host: `127.0.0.1:${port}`, origin: `http://127.0.0.1:${port}`, 'content-type': 'application/json' },
        'PUT',
      ),
      400,
    )
    const { headers } = await get('/api/health')
    assert.match(headers.get('content-security-policy') ?? '', "default-src 'self'")
    assert.is(headers.get('strict-transport-security'), null)
    assert.is(headers.get('access-control-allow-origin'), null)
  }))

test('a port in use and an open address are refused with a clear fault', () =>
  withApi(
    async ({ options }) => {
      const taken = createServer().listen(0, '127.0.0.1')
      await new Promise(resolve => taken.once('listening', resolve))
      const { port } = taken.address() as AddressInfo
      const inUse = await firstValueFrom(serveApi({ ...options, port })).catch(thrown => thrown)
      assert.is(inUse.code, 'port_in_use')
      assert.match(inUse.message, /api\.port/)
      taken.close()
      const open = await firstValueFrom(serveApi({ ...options, host: '0.0.0.0' })).catch(thrown => thrown)
      assert.is(open.code, 'listen_failed')
      assert.match(open.message, 'loopback')
    },
    { projections: false },
  ))

test.run()
