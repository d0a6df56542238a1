// headgate-cloud: set up, run, add gateways, check the log. The only file of the cloud that knows the process that it
// runs in.

import 'reflect-metadata'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import Table from 'cli-table3'
import { Command } from 'commander'
import { fromEvent, lastValueFrom, merge, ReplaySubject, take } from 'rxjs'
import { type CloudSettings, cloudSchema } from '../schemas/config.ts'
import { formatToken } from '../schemas/enrolment.ts'
import type { GatewayId } from '../schemas/ids.ts'
import { VERSION } from '../schemas/version.ts'
import { verifyCloudLog } from '../streams/log/verify-cloud.ts'
import { systemClock, systemRandom } from '../streams/run/clock.ts'
import { fault } from '../streams/run/fault.ts'
import { readIfThere } from '../streams/run/files.ts'
import { claimFolder } from '../streams/run/folder.ts'
import { openLogger } from '../streams/run/logger.ts'
import { ended, lastWords } from '../streams/run/program.ts'
import { loadSettings } from '../streams/run/settings.ts'
import { settingsHelp } from '../streams/run/settings-help.ts'
import { openTelemetry } from '../streams/run/telemetry.ts'
import { LOG_FOLDER, publicHost, runCloud } from './compose.ts'
import { CONFIG_FILE, initCloud } from './pki/init.ts'
import { openPki } from './pki/pki.ts'
import { openRegistry, type Registry } from './registry/registry.ts'

const DEFAULT_DATA = '/var/lib/headgate-cloud'

interface Options {
  readonly config?: string
  readonly data?: string
}

const clock = systemClock()
const random = systemRandom

const settingsOf = ({ config, data }: Options): CloudSettings => {
  const named = config ?? process.env['CLOUD_CONFIG']
  const file = named ?? join(data ?? process.env['CLOUD_DATA'] ?? DEFAULT_DATA, CONFIG_FILE)
  const text = readIfThere(file)
  if (text === undefined)
    throw fault('config_missing', {
      file,
      mend: named === undefined ? 'run "headgate-cloud init" first' : 'give --config another file',
    })
  const settings = loadSettings({
    file,
    text,
    environment: process.env,
    prefix: 'CLOUD',
    schema: cloudSchema,
    reserved: ['CLOUD_CONFIG'],
  })
  return data === undefined ? settings : { ...settings, data }
}

const say = (text: string): void => void process.stdout.write(`${text}\n`)

const init = async ({ data, host = [] }: { data?: string; host?: string[] }): Promise<void> => {
  const folder = data ?? process.env['CLOUD_DATA'] ?? DEFAULT_DATA
  const made = await lastValueFrom(initCloud({ data: folder, hosts: host, clock, random }))
  const what = {
    created: 'New CA and server certificate',
    server_reissued: 'New server certificate',
    unchanged: 'Nothing to do: all is there',
  }[made.kind]
  say(`${what} in ${folder}`)
  say(`CA fingerprint ${made.fingerprint}`)
  const names = [...made.names.dns, ...made.names.ips]
  say(`Names ${names.join(', ')}`)
  const { file, kind } = made.configuration
  say(`Configuration ${file} (${kind})`)
  // A file that a person has changed is theirs: what the listeners and tokens go by has to be changed there.
  if (kind === 'kept')
    say(`It was changed by hand and is left alone. See that it says: hosts = ${JSON.stringify(names)}`)
  const where = data === undefined ? '' : ` --data ${data}`
  say(`Next: headgate-cloud run${where}, then headgate-cloud gateway add NAME${where}`)
}

const runProgram = async (options: Options): Promise<void> => {
  const settings = settingsOf(options)
  const claimed = claimFolder(settings.data, process.pid)
  const log = openLogger({
    name: 'headgate-cloud',
    level: settings.log.level,
    isTerminal: process.stderr.isTTY,
  })
  const telemetry = openTelemetry({ program: 'cloud', log, monoMs: clock.monoMs })
  try {
    const pki = openPki(join(settings.data, 'pki'), { clock, random })
    for (const warning of pki.warnings) log.warn(warning)
    const registry = registryOf(settings)
    const stop$ = new ReplaySubject<unknown>(1)
    merge(fromEvent(process, 'SIGTERM'), fromEvent(process, 'SIGINT')).pipe(take(1)).subscribe(stop$)
    log.info({ data: settings.data, version: VERSION }, 'starting')
    await ended(
      runCloud({
        settings,
        version: VERSION,
        clock,
        random,
        pki,
        registry,
        metrics: telemetry.registry,
        stop$,
      }),
      life => telemetry.tell(life),
    )
    await lastValueFrom(registry.close(), { defaultValue: undefined })
    log.info('stopped')
  } finally {
    claimed.release()
  }
}

const registryOf = (settings: CloudSettings): Registry =>
  openRegistry(join(settings.data, 'registry.mdb'), { clock, random })

const withRegistry = async (
  options: Options,
  use: (registry: Registry, settings: CloudSettings) => Promise<void>,
): Promise<void> => {
  const settings = settingsOf(options)
  const registry = registryOf(settings)
  try {
    await use(registry, settings)
  } finally {
    await lastValueFrom(registry.close(), { defaultValue: undefined })
  }
}

const printToken = async (registry: Registry, settings: CloudSettings, id: GatewayId): Promise<void> => {
  const pki = openPki(join(settings.data, 'pki'), { clock, random })
  const { secret, expiresAtMs } = await lastValueFrom(registry.issueToken(id))
  const address = `${publicHost(settings.hosts)}:${settings.enrolment.port}`
  const until = new Date(expiresAtMs).toISOString()
  process.stderr.write(`Gateway ${id}. On it, until ${until}: headgate-edge enroll TOKEN\n`)
  say(formatToken({ address, ca: pki.ca.fingerprint, gateway: id, secret }))
}

/** In the place of one that was lost or used. */
const newToken = (idOrName: string, options: Options): Promise<void> =>
  withRegistry(options, (registry, settings) => {
    const gateway = registry.find(idOrName)
    if (gateway === undefined) throw fault('gateway_unknown', { gateway: idOrName })
    return printToken(registry, settings, gateway.id)
  })

const addGateway = (name: string, options: Options & { label?: string[] }): Promise<void> =>
  withRegistry(options, async (registry, settings) => {
    const labels = Object.fromEntries(
      (options.label ?? []).map(pair => {
        const at = pair.indexOf('=')
        return at < 0 ? [pair, ''] : [pair.slice(0, at), pair.slice(at + 1)]
      }),
    )
    const gateway = await lastValueFrom(registry.add({ name, labels }))
    await printToken(registry, settings, gateway.id)
  })

const listGateways = (options: Options & { json?: boolean }): Promise<void> =>
  withRegistry(options, async registry => {
    const gateways = registry.list()
    if (options.json === true) return say(JSON.stringify(gateways.map(({ token: _, ...rest }) => rest)))
    const table = new Table({
      head: ['id', 'name', 'state', 'labels', 'certificate until'],
      style: { head: [], border: [] },
    })
    for (const { id, name, state, labels, certificateNotAfterMs } of gateways) {
      const until = certificateNotAfterMs === undefined ? '–' : new Date(certificateNotAfterMs).toISOString()
      table.push([
        id,
        name,
        state,
        Object.entries(labels)
          .map(([key, value]) => `${key}=${value}`)
          .join(' '),
        until,
      ])
    }
    say(table.toString())
  })

const showGateway = (idOrName: string, options: Options & { json?: boolean }): Promise<void> =>
  withRegistry(options, async (registry, settings) => {
    const gateway = registry.find(idOrName)
    if (gateway === undefined) throw fault('gateway_unknown', { gateway: idOrName })
    const { token: _, ...shown } = gateway
    const delivery = await askApi(settings, `/api/gateways/${gateway.id}/delivery`)
    say(
      JSON.stringify(
        { ...shown, delivery: delivery ?? 'headgate-cloud is not running: no views to ask' },
        null,
        2,
      ),
    )
  })

/** The running cloud on this machine; undefined when there is none. */
const askApi = async ({ api }: CloudSettings, path: string): Promise<unknown> => {
  try {
    return await (await fetch(`http://127.0.0.1:${api.port}${path}`)).json()
  } catch {
    return undefined
  }
}

const verifyLog = async (options: Options): Promise<void> => {
  const { data } = settingsOf(options)
  const folder = join(data, LOG_FOLDER)
  if (!existsSync(folder)) throw fault('log_unreadable', { file: folder, because: 'there is no such folder' })
  await ended(verifyCloudLog(folder), report => {
    const { stream, epoch, tail, head, records, skipped, bytes, findings, findingCount } = report
    say(
      `${stream}  epoch ${epoch}  ${tail}…${head}: ${records} records, ${skipped} skipped, ${bytes} bytes, ${findingCount} problems`,
    )
    for (const { at, problem } of findings) say(`  ${at}: ${problem}`)
    if (findingCount > 0) process.exitCode = 1
  })
}

const command = new Command('headgate-cloud')
  .description('Receives what gateways send, keeps it in order, and answers what became of it.')
  .version(VERSION)

const withFolders = (each: Command): Command =>
  each
    .option('--config <file>', `configuration (${CONFIG_FILE} in the data folder, or CLOUD_CONFIG)`)
    .option('--data <folder>', `data folder (${DEFAULT_DATA}, or CLOUD_DATA)`)

command
  .command('init')
  .description('make the CA, the server certificate and a configuration')
  .option('--data <folder>', `data folder (${DEFAULT_DATA}, or CLOUD_DATA)`)
  .option('--host <name...>', 'names or addresses by which gateways reach this machine')
  .action(init)
withFolders(command.command('run'))
  .description('run the cloud until SIGTERM')
  .addHelpText('after', () => settingsHelp(cloudSchema, 'CLOUD'))
  .action(runProgram)
const gateway = command.command('gateway').description('the gateways of this cloud')
withFolders(gateway.command('add'))
  .description('register one; prints a one-time token for it')
  .argument('<name>')
  .option('--label <key=value...>', 'labels')
  .action(addGateway)
withFolders(gateway.command('token'))
  .description('a new one-time token, in the place of one that was lost or used')
  .argument('<gateway>', 'id or name')
  .action(newToken)
withFolders(gateway.command('list'))
  .description('all of them')
  .option('--json', 'as JSON')
  .action(listGateways)
withFolders(gateway.command('show'))
  .description('one, with what was delivered')
  .argument('<gateway>', 'id or name')
  .action(showGateway)
const log = command.command('log').description('the log of this cloud')
withFolders(log.command('verify'))
  .description('read it from end to end and say what is wrong')
  .action(verifyLog)

// Whoever reads our answers may stop early, as `head` does.
process.stdout.on('error', () => process.exit(0))

command.parseAsync().catch((thrown: unknown) => {
  process.stderr.write(`${lastWords('headgate-cloud', thrown)}\n`)
  process.exit(1)
})
