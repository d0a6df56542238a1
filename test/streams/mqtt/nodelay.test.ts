// No Nagle at either end: asked of the kernel, by strace on both.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { issue, makeCa } from '../../support/certificates.ts'

const folder = mkdtempSync(join(tmpdir(), 'headgate-nodelay-'))
const ca = await makeCa()
const CERTIFICATES = JSON.stringify({
  server: await issue(ca, { cn: 'cloud', server: {} }),
  gateway: await issue(ca, { cn: 'g1' }),
})

const traced = (
  role: string,
  ...more: string[]
): { child: ChildProcess; said: Promise<string>; calls: () => string } => {
  const file = join(folder, role)
  const script = new URL('nodelay.child.ts', import.meta.url).pathname
  const child = spawn(
    'strace',
    [
      '-f',
      '-o',
      file,
      '-e',
      'trace=connect,accept4,setsockopt',
      process.execPath,
      '--import',
      'tsx',
      script,
      role,
      ...more,
    ],
    { env: { ...process.env, CERTIFICATES }, stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const said = new Promise<string>(resolve => {
    child.stdout?.once('data', (text: Buffer) => resolve(text.toString().trim()))
    child.once('exit', () => resolve('nothing'))
  })
  return { child, said, calls: () => readFileSync(file, 'utf8') }
}

/** The descriptors on which Nagle was turned off. */
const noDelayOn = (calls: string) =>
  [...calls.matchAll(/setsockopt\((\d+), SOL_TCP, TCP_NODELAY, \[1\]/g)].map(found => found[1])

test('both ends set TCP_NODELAY on the socket that carries the connection', async () => {
  const broker = traced('broker')
  const brokerEnded = once(broker.child, 'exit')
  const port = await broker.said
  assert.match(port, /^\d+$/)
  const link = traced('link', port)
  const linkEnded = once(link.child, 'exit')
  assert.is(await link.said, 'done')
  await Promise.all([brokerEnded, linkEnded])

  const connected = new RegExp(`connect\\((\\d+), \\{sa_family=AF_INET, sin_port=htons\\(${port}\\)`).exec(
    link.calls(),
  )?.[1]
  assert.ok(connected !== undefined && noDelayOn(link.calls()).includes(connected), 'the link')
  const accepted = /accept4\(.*\) = (\d+)\n/.exec(broker.calls())?.[1]
  assert.ok(accepted !== undefined && noDelayOn(broker.calls()).includes(accepted), 'the broker')
})

test.after(() => rmSync(folder, { recursive: true }))

test.run()
