import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fleet, fleetRows, gatewayRow } from '../../../cloud/projections/fleet.ts'
import type { CloudEvent } from '../../../schemas/events.ts'
import { gatewayId } from '../../../schemas/ids.ts'
import { gatewayFrames } from '../../support/gateway-frames.ts'
import { data, event, folded, type Given, START_MS } from './support.ts'

const LIMITS = { keepAliveMs: 60_000 }
const gateway = gatewayId('g1')
const connected = (connection: string): CloudEvent => ({
  kind: 'connected',
  gateway,
  connection,
  address: '10.0.0.1',
})
const disconnected = (connection: string): CloudEvent => ({
  kind: 'disconnected',
  gateway,
  connection,
  because: 'keep-alive',
})
const hello = (connection: string): CloudEvent => ({
  kind: 'hello',
  gateway,
  connection,
  version: '1.2.3',
  streams: [],
})
const started: CloudEvent = { kind: 'cloud_started', run: 'r', version: '0.1.0' }

const presence = (given: readonly Given[], afterMs = 0) =>
  gatewayRow(folded(fleet, given), 'g1', START_MS + afterMs, LIMITS)?.presence

test('a connection makes a gateway online, its close offline', () => {
  assert.is(presence([event(connected('a'))]), 'online')
  assert.is(presence([event(connected('a')), event(disconnected('a'))]), 'offline')
})

test('a close of an older connection counts for nothing', () => {
  assert.is(presence([event(connected('a')), event(connected('b')), event(disconnected('a'))]), 'online')
  assert.is(
    presence([event(connected('a')), event(hello('h')), event(connected('b')), event(disconnected('h'))]),
    'online',
  )
  assert.is(presence([event(connected('a')), event(connected('b')), event(disconnected('b'))]), 'offline')
})

test('behind a foreign broker, hello alone makes a gateway online and names its connection', () => {
  assert.is(presence([event(hello('a'))]), 'online')
  assert.is(presence([event(hello('a')), event(hello('b')), event(disconnected('a'))]), 'online')
  assert.is(presence([event(hello('a')), event(disconnected('a'))]), 'offline')
})

test('a starting cloud makes all unknown until hello, or until three keep-alives have passed', () => {
  const given = [event(connected('a')), event(started)]
  assert.is(presence(given), 'unknown')
  assert.is(presence(given, 180_000), 'unknown')
  assert.is(presence(given, 180_001), 'offline')
  assert.is(presence([...given, event(hello('b'))]), 'online')
  assert.is(presence([...given, event(disconnected('a'))], 1), 'unknown')
  assert.is(presence([event(hello('h')), event(started), event(disconnected('h'))], 1), 'unknown')
})

test('data alone does not make a gateway online: a backlog may be folded long after', () => {
  assert.is(presence([data(gatewayFrames('g1').seal([{ topic: 't', payload: 'x' }]))]), 'unknown')
})

test('a connected gateway is late after one and a half keep-alives without a word', () => {
  const given = [event(connected('a'))]
  assert.is(presence(given, 90_000), 'online')
  assert.is(presence(given, 90_001), 'late')
  assert.is(
    presence(
      [...given, data(gatewayFrames('g1').seal([{ topic: 't', payload: 'x' }]), START_MS + 60_000)],
      140_000,
    ),
    'online',
  )
})

test('a row tells address, version, clock quality, last seen and why it went', () => {
  const frame = gatewayFrames('g1').seal([{ topic: 't', payload: 'x' }], { quality: 'floor' })
  const view = folded(fleet, [
    event(connected('a')),
    event(hello('h'), START_MS + 1),
    data(frame, START_MS + 5),
    event(disconnected('a'), START_MS + 9),
  ])
  assert.equal(gatewayRow(view, 'g1', START_MS + 10, LIMITS), {
    gateway: 'g1',
    presence: 'offline',
    sinceMs: START_MS + 9,
    lastSeenMs: START_MS + 5,
    address: '10.0.0.1',
    version: '1.2.3',
    clock: 'floor',
    because: 'keep-alive',
    connects: 1,
  })
})

test('rows come by name, in pages', () => {
  const given = ['c', 'a', 'b'].map(name =>
    event({ kind: 'connected', gateway: gatewayId(name), connection: 'x', address: 'y' }),
  )
  const view = folded(fleet, given)
  const names = (args: { after?: string; limit: number }) =>
    fleetRows(view, args, START_MS, LIMITS).map(row => row.gateway)
  assert.equal(names({ limit: 2 }), ['a', 'b'])
  assert.equal(names({ after: 'b', limit: 2 }), ['c'])
})

test.run()
