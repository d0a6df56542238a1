// What is wrong before the first message: a configuration, a port, a folder, a file. Each gets an error that names it
// and the mend, exit code 1 and no stack trace; nothing that was acknowledged is touched.

import { randomBytes } from 'node:crypto'
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { open } from 'lmdb'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Gateway, Installation } from '../../bench/harness/installation.ts'
import { freePorts } from '../../bench/harness/ports.ts'
import { connected, publish } from './raw.ts'
import {
  CLOUD,
  drained,
  EDGE,
  type Ended,
  ending,
  linesOf,
  linkIs,
  node,
  QUIET,
  stopped,
  verified,
  withInstallation,
} from './support.ts'

const NOBODY = '65534'

const refused = (ended: Ended, ...patterns: RegExp[]): void => {
  const text = `${ended.out}${ended.err}`
  assert.is(ended.code, 1, text)
  for (const pattern of patterns) assert.match(text, pattern)
  assert.not.match(text, /^\s+at /m, 'no stack trace')
}

const runEdge = (
  gateway: Gateway,
  env: Readonly<Record<string, string>> = {},
  args: readonly string[] = [],
): Promise<Ended> =>
  node([EDGE, 'run', '--data', gateway.folder, ...args], {
    env: { EDGE_LOCAL_PORT: '0', EDGE_METRICS_PORT: '0', ...env },
  })
const runCloud = (installation: Installation, env: Readonly<Record<string, string>> = {}): Promise<Ended> =>
  node([CLOUD, 'run', '--data', installation.cloudFolder], {
    env: {
      CLOUD_GATEWAYS_PORT: '0',
      CLOUD_NORTH_PORT: '0',
      CLOUD_ENROLMENT_PORT: '0',
      CLOUD_API_PORT: '0',
      ...env,
    },
  })

/** Ten records, delivered; both programs ended. What stands here must stand after whatever follows. */
const withDelivered = (use: (installation: Installation, gateway: Gateway) => Promise<void>): Promise<void> =>
  withInstallation(async installation => {
    const cloud = await installation.startCloud()
    const gateway = await installation.enrol('sound')
    const edge = await gateway.start(QUIET)
    const device = await connected(gateway.localPort, { clientId: 'device' })
    for (let id = 1; id <= 10; id++) device.send(publish('sound', 1, id, `record ${id}`))
    await device.packet('puback', 10)
    device.close()
    await drained(gateway, { head: 10 })
    assert.is((await stopped(edge)).code, 0)
    assert.is((await stopped(cloud)).code, 0)
    await use(installation, gateway)
    await verified(installation, [gateway])
    await installation.startCloud()
    await gateway.start(QUIET)
    const after = await connected(gateway.localPort, { clientId: 'device' })
    after.send(publish('sound', 1, 1, 'record 11'))
    await after.packet('puback')
    after.close()
    await drained(gateway, { head: 11 })
    assert.equal(
      (await linesOf(installation, 'sound')).map(({ offset: at, payload }) => [at, payload]),
      Array.from({ length: 11 }, (_, i) => [i + 1, `record ${i + 1}`]),
    )
  })

test('a configuration with a wrong key names the file, the line, the key and what was meant', async () => {
  await withDelivered(async (installation, gateway) => {
    const config = join(gateway.folder, 'wrong.toml')
    writeFileSync(config, '[seal]\nwaitMsMax = 100\n\n[local]\nprot = 1884\n')
    refused(
      await runEdge(gateway, {}, ['--config', config]),
      /wrong\.toml/,
      /line 5/,
      /"local\.prot"/,
      /did you mean port\?/,
    )
    writeFileSync(config, '[streams.data]\nmaxBytes = "a lot"\n')
    refused(
      await runEdge(gateway, {}, ['--config', config]),
      /wrong\.toml/,
      /line 2/,
      /"streams\.data\.maxBytes"/,
    )
    writeFileSync(config, '[local\n')
    refused(await runEdge(gateway, {}, ['--config', config]), /wrong\.toml/)
    writeFileSync(config, '[[routes]]\nfilter = "a/#"\nstream = "undeclared"\n')
    refused(await runEdge(gateway, {}, ['--config', config]), /undeclared/, /declare \[streams\.undeclared\]/)
    refused(await runEdge(gateway, {}, ['--config', join(gateway.folder, 'none.toml')]), /none\.toml/)
    refused(await runEdge(gateway, { EDGE_LOCAL_PROT: '1' }), /EDGE_LOCAL_PROT/, /EDGE_LOCAL_PORT/)
    rmSync(config)

    const cloudConfig = join(installation.cloudFolder, 'headgate-cloud.toml')
    const text = readFileSync(cloudConfig, 'utf8')
    appendFileSync(cloudConfig, '\n[gateway]\nport = 8883\n')
    refused(await runCloud(installation), /headgate-cloud\.toml/, /"gateway"/, /did you mean gateways\?/)
    writeFileSync(cloudConfig, text)
    refused(await runCloud(installation, { CLOUD_API_PORT: 'none' }), /CLOUD_API_PORT/)
  })
})

test('a port in use names the address and the setting', async () => {
  await withDelivered(async (installation, gateway) => {
    const taken = await new Promise<Server>(resolve => {
      const server = createServer(socket => socket.destroy())
      server.listen(0, '127.0.0.1', () => resolve(server))
    })
    const bound = taken.address()
    const port = bound === null || typeof bound === 'string' ? '' : String(bound.port)
    const inUse = (key: string): RegExp[] => [
      new RegExp(`127\\.0\\.0\\.1:${port} is in use`),
      new RegExp(key.replace('.', '\\.')),
    ]
    try {
      refused(await runEdge(gateway, { EDGE_LOCAL_PORT: port }), ...inUse('local.port'))
      refused(await runEdge(gateway, { EDGE_METRICS_PORT: port }), ...inUse('metrics.port'))
      for (const [variable, key] of [
        ['CLOUD_GATEWAYS_PORT', 'gateways.port'],
        ['CLOUD_NORTH_PORT', 'north.port'],
        ['CLOUD_ENROLMENT_PORT', 'enrolment.port'],
        ['CLOUD_API_PORT', 'api.port'],
      ] as const) {
        refused(await runCloud(installation, { [variable]: port }), ...inUse(key))
      }
    } finally {
      await new Promise(resolve => taken.close(resolve))
    }
  })
})

/** The format that a log file says it is of. */
const setFormat = async (file: string, format: number): Promise<void> => {
  const root = open<Buffer, Buffer>({
    path: file,
    noSubdir: true,
    maxDbs: 64,
    encoding: 'binary',
    keyEncoding: 'binary',
  })
  await root
    .openDB<Buffer, Buffer>({ name: 'meta', encoding: 'binary', keyEncoding: 'binary' })
    .put(Buffer.from('format'), Buffer.of(format))
  await root.close()
}

test('a data folder of another version is refused and left as it is', async () => {
  await withDelivered(async (installation, gateway) => {
    const edgeLog = join(gateway.folder, 'log.mdb')
    await setFormat(edgeLog, 9)
    refused(
      await runEdge(gateway),
      /log\.mdb was written by format 9, this program knows 1: run the program that wrote it, or move the folder away/,
    )
    refused(await node([EDGE, 'log', 'verify', '--data', gateway.folder]), /format 9/)
    await setFormat(edgeLog, 1)
    const folder = join(installation.cloudFolder, 'log/data')
    const [segment = ''] = readdirSync(folder).filter(name => name.endsWith('.mdb'))
    await setFormat(join(folder, segment), 9)
    refused(await runCloud(installation), /\.mdb was written by format 9, this program knows 1/)
    refused(await node([CLOUD, 'log', 'verify', '--data', installation.cloudFolder]), /format 9/)
    await setFormat(join(folder, segment), 1)
  })
})

test('a folder that cannot be written is named, whoever owns it', async () => {
  await withDelivered(async (installation, gateway) => {
    const asNobody = (args: readonly string[]): Promise<Ended> =>
      ending('setpriv', [
        `--reuid=${NOBODY}`,
        `--regid=${NOBODY}`,
        '--clear-groups',
        process.execPath,
        ...args,
      ])
    chmodSync(installation.folder, 0o755)
    chmodSync(gateway.folder, 0o755)
    refused(
      await asNobody([EDGE, 'run', '--data', gateway.folder]),
      /cannot write to/,
      new RegExp(gateway.folder),
      /give this user the right to write there/,
    )
    refused(
      await asNobody([EDGE, 'run', '--data', join(installation.folder, 'new')]),
      /cannot write to/,
      new RegExp(join(installation.folder, 'new')),
    )
    chmodSync(gateway.folder, 0o700)
    refused(
      await asNobody([EDGE, 'run', '--data', gateway.folder]),
      new RegExp(gateway.folder),
      /right|permission/i,
    )
    refused(
      await asNobody([CLOUD, 'run', '--data', installation.cloudFolder]),
      new RegExp(installation.cloudFolder),
      /right|permission/i,
    )
    refused(
      await asNobody([CLOUD, 'init', '--data', join(installation.folder, 'new')]),
      new RegExp(join(installation.folder, 'new')),
    )

    // A disk that was mounted read-only: root is refused as well.
    for (const [folder, run] of [
      [gateway.folder, () => runEdge(gateway)],
      [installation.cloudFolder, () => runCloud(installation)],
    ] as const) {
      assert.is((await ending('mount', ['--bind', folder, folder])).code, 0)
      try {
        assert.is((await ending('mount', ['-o', 'remount,bind,ro', folder])).code, 0)
        refused(await run(), /cannot write to/, new RegExp(folder), /read-only/)
      } finally {
        assert.is((await ending('umount', [folder])).code, 0)
      }
    }
  })
})

test('a folder in use names the process that has it', async () => {
  await withInstallation(async installation => {
    const cloud = await installation.startCloud()
    const gateway = await installation.enrol('busy')
    const edge = await gateway.start(QUIET)
    const [second, third] = await Promise.all([runEdge(gateway), runCloud(installation)])
    refused(second, new RegExp(gateway.folder), new RegExp(`pid ${edge.pid}`), /stop that one first/)
    refused(third, new RegExp(installation.cloudFolder), new RegExp(`pid ${cloud.pid}`))
    await linkIs(gateway, 'up')
    const device = await connected(gateway.localPort, { clientId: 'device' })
    device.send(publish('undisturbed', 1, 1))
    await device.packet('puback')
    device.close()
    await drained(gateway, { head: 1 })
    await verified(installation, [gateway])
  })
})

test('a log file that is none, was cut short or is damaged is named, not guessed at, and never ends in a crash', async () => {
  await withDelivered(async (installation, gateway) => {
    const segments = join(installation.cloudFolder, 'log/data')
    const segment = join(segments, readdirSync(segments).find(name => name.endsWith('.mdb')) ?? '')
    const cases = [
      {
        file: join(gateway.folder, 'log.mdb'),
        run: () => runEdge(gateway),
        verify: () => node([EDGE, 'log', 'verify', '--data', gateway.folder]),
      },
      {
        file: segment,
        run: () => runCloud(installation),
        verify: () => node([CLOUD, 'log', 'verify', '--data', installation.cloudFolder]),
      },
    ]
    for (const { file, run, verify } of cases) {
      const good = `${file}.good`
      copyFileSync(file, good)
      const spoils: readonly (readonly [string, (bytes: Buffer) => Buffer])[] = [
        ['random bytes', () => randomBytes(64 * 1024)],
        ['a head alone', bytes => bytes.subarray(0, 100)],
        ['two pages alone', bytes => bytes.subarray(0, 8_192)],
        ['zeros behind its head', bytes => Buffer.from(bytes).fill(0, 8_192)],
      ]
      for (const [what, spoil] of spoils) {
        writeFileSync(file, spoil(readFileSync(good)))
        for (const ended of await Promise.all([run(), verify()])) {
          if (ended.code !== 1) assert.unreachable(`${what}: exit ${ended.code} ${ended.err}`)
          refused(ended, new RegExp(file), /cannot be read as a log/, /restore the folder from a backup/)
        }
      }
      copyFileSync(good, file)
      rmSync(good)
    }
  })
})

test('commands that cannot work say why', async () => {
  await withInstallation(async installation => {
    const [apart = 0] = await freePorts(1)
    const folder = join(installation.folder, 'unenrolled')
    refused(await node([EDGE, 'run', '--data', folder]), /no identity in/, /headgate-edge enroll TOKEN/)
    refused(await node([EDGE, 'enroll', 'nonsense', '--data', folder]), /the token is not valid/)
    refused(await node([EDGE, 'status', '--data', folder]), /is headgate-edge running/)
    refused(await node([EDGE, 'log', 'verify', '--data', folder]), /there is no such file/)
    refused(
      await node([CLOUD, 'gateway', 'add', '', '--data', installation.cloudFolder]),
      /not a valid gateway/,
    )
    assert.is((await node([CLOUD, 'gateway', 'add', 'twice', '--data', installation.cloudFolder])).code, 0)
    refused(
      await node([CLOUD, 'gateway', 'add', 'twice', '--data', installation.cloudFolder]),
      /exists already/,
    )
    refused(
      await node([CLOUD, 'gateway', 'show', 'nobody', '--data', installation.cloudFolder]),
      /no gateway is named "nobody"/,
    )
    // The cloud is down: the token stays good, and the error says what cannot be reached.
    const added = await node([CLOUD, 'gateway', 'add', 'late', '--data', installation.cloudFolder], {
      env: { CLOUD_ENROLMENT_PORT: String(apart) },
    })
    refused(
      await node([EDGE, 'enroll', '-', '--data', folder], { stdin: added.out }),
      new RegExp(`localhost:${apart}`),
    )
  })
})

test.run()
