import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectAsync } from 'mqtt'
import { filter, firstValueFrom, lastValueFrom, NEVER, ReplaySubject, timeout } from 'rxjs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { northSide } from '../../../cloud/north/host.ts'
import { channelId } from '../../../schemas/ids.ts'
import { noBallast } from '../../../streams/log/ballast.ts'
import type { CloudWriter } from '../../../streams/log/cloudlog.ts'
import { openCloudWriter } from '../../../streams/log/cloudwriter.ts'
import { systemClock } from '../../../streams/run/clock.ts'
import type { Notice } from '../../../streams/run/supervise.ts'
import { gatewayFrames } from '../../support/gateway-frames.ts'

const clock = systemClock()

const withLog = async (body: (writer: CloudWriter, logFolder: string) => Promise<void>) => {
  const folder = mkdtempSync(join(tmpdir(), 'north-'))
  const logFolder = join(folder, 'log')
  let writer: CloudWriter | undefined
  const open = openCloudWriter({ folder: logFolder, clock, ballast: noBallast, reserveBytes: 0 }).subscribe(
    opened => {
      writer = opened
    },
  )
  try {
    await body(writer!, logFolder)
  } finally {
    open.unsubscribe()
    await new Promise(resolve => setTimeout(resolve, 250))
    rmSync(folder, { recursive: true, force: true })
  }
}

const options = (writer: CloudWriter, logFolder: string, port = 0) => ({
  host: '127.0.0.1',
  port,
  reader: writer,
  logFolder,
  clock,
  channelOf: () => channelId('chan-1'),
  arrived$: NEVER,
})

test('what the writer made durable reaches a subscriber from a thread of its own', () =>
  withLog(async (writer, logFolder) => {
    const notices$ = new ReplaySubject<Notice>()
    const running = northSide(options(writer, logFolder)).subscribe(notices$)
    const listening = await firstValueFrom(
      notices$.pipe(
        filter(notice => notice.kind === 'state' && notice.what === 'listening'),
        timeout(20_000),
      ),
    )
    assert.is(listening.kind, 'state')
    const address = listening.kind === 'state' ? listening.facts['address'] : ''
    const client = await connectAsync(`mqtt://${address}`, { reconnectPeriod: 0 })
    await client.subscribeAsync('channels/chan-1/messages/#', { qos: 1 })
    const arrived = new Promise<string>(resolve =>
      client.once('message', (topic, payload) => resolve(`${topic} ${payload}`)),
    )
    const frame = gatewayFrames('g1').seal([{ topic: 'a', payload: 'hello' }], { wallMs: clock.nowMs() })
    await firstValueFrom(writer.append('data', [frame], []))
    assert.is(await arrived, 'channels/chan-1/messages/a hello')
    await client.endAsync()
    running.unsubscribe()
  }))

test('a port in use and an open address end it with a coded fault', () =>
  withLog(async (writer, logFolder) => {
    const taken = createServer().listen(0, '127.0.0.1')
    await new Promise(resolve => taken.once('listening', resolve))
    const { port } = taken.address() as AddressInfo
    const code = (host: string) =>
      lastValueFrom(northSide({ ...options(writer, logFolder, port), host })).then(
        () => 'none',
        thrown => thrown.code,
      )
    assert.is(await code('127.0.0.1'), 'port_in_use')
    assert.is(await code('0.0.0.0'), 'listen_failed')
    taken.close()
  }))

test.run()
