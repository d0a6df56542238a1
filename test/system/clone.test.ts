// Two gateways with one certificate: the newer is refused while the older answers, and it is told.

import { cpSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fetchSocket, until } from '../../bench/harness/installation.ts'
import { freePorts } from '../../bench/harness/ports.ts'
import { start } from '../../bench/harness/process.ts'
import { EDGE, withInstallation } from './support.ts'

test('a clone is kept out while the gateway answers, and let in when it is gone', () =>
  withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('one')
    const edge = await gateway.start()
    await until('the link is up', async () => ((await gateway.status()).link === 'up' ? true : undefined))

    const folder = join(installation.folder, 'clone')
    cpSync(gateway.folder, folder, {
      recursive: true,
      filter: source => !/(lock|status\.sock)$/.test(source),
    })
    const [localPort = 0, metricsPort = 0] = await freePorts(2)
    const clone = start({
      command: process.execPath,
      args: [EDGE, 'run', '--data', folder],
      env: { EDGE_LOCAL_PORT: String(localPort), EDGE_METRICS_PORT: String(metricsPort) },
    })
    const linkOfClone = async (): Promise<string> =>
      (JSON.parse(await fetchSocket(join(folder, 'status.sock'), '/status')) as { link: string }).link
    try {
      await clone.saying(/server unavailable|"msg":"link_down"/)
      for (let i = 0; i < 6; i++) {
        await sleep(500)
        assert.is((await gateway.status()).link, 'up', 'the older one stays')
        assert.is.not(await linkOfClone(), 'up')
      }
      const events = await (await installation.api('/api/events?limit=500')).text()
      assert.match(events, /second_connection_refused/)

      edge.kill('SIGKILL')
      await edge.ended
      await until('the clone is in', async () => ((await linkOfClone()) === 'up' ? true : undefined), 30_000)
    } finally {
      clone.kill('SIGKILL')
      await clone.ended
      rmSync(folder, { recursive: true, force: true })
    }
  }))

test.run()
