// headgate-edge: enrol a gateway, run it, see how it is, check its log. The only file of the edge that knows the
// process that it runs in.

import { existsSync, readFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import Table from 'cli-table3'
import { Command } from 'commander'
import { fromEvent, lastValueFrom, merge, ReplaySubject, take } from 'rxjs'
import { type EdgeSettings, edgeSchema, streamsOf } from '../schemas/config.ts'
import { type BootId, bootIdOf } from '../schemas/ids.ts'
import { VERSION } from '../schemas/version.ts'
import { openLmdb } from '../streams/log/lmdb.ts'
import { verifyStreams } from '../streams/log/verify.ts'
import { systemClock, systemRandom } from '../streams/run/clock.ts'
import { fault } from '../streams/run/fault.ts'
import { readIfThere } from '../streams/run/files.ts'
import { claimFolder } from '../streams/run/folder.ts'
import { openLogger } from '../streams/run/logger.ts'
import { ended, lastWords } from '../streams/run/program.ts'
import { loadSettings } from '../streams/run/settings.ts'
import { settingsHelp } from '../streams/run/settings-help.ts'
import { openTelemetry } from '../streams/run/telemetry.ts'
import { enrol } from './bootstrap/enrol.ts'
import { loadIdentity } from './bootstrap/identity.ts'
import { LOG_FILE, runEdge, STATUS_SOCKET } from './compose.ts'
import { statusSchema } from './status.ts'

const DEFAULT_CONFIG = '/etc/headgate/edge.toml'

interface Options {
  readonly config?: string
  readonly data?: string
}

/** As the kernel gives it; monotonic times count from there. */
const kernelBootId = (): BootId | undefined => {
  try {
    return bootIdOf(
      Buffer.from(
        readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').replaceAll('-', '').slice(0, 16),
        'hex',
      ),
    )
  } catch {
    return undefined
  }
}

const clock = systemClock(kernelBootId())
const random = systemRandom

const settingsOf = ({ config, data }: Options): EdgeSettings => {
  const named = config ?? process.env['EDGE_CONFIG']
  const file = named ?? DEFAULT_CONFIG
  const text = readIfThere(file)
  if (named !== undefined && text === undefined)
    throw fault('config_missing', { file, mend: 'give --config another file' })
  const settings = loadSettings({
    file,
    text,
    environment: process.env,
    prefix: 'EDGE',
    schema: edgeSchema,
    reserved: ['EDGE_CONFIG'],
  })
  requireStreams(file, settings)
  return data === undefined ? settings : { ...settings, data }
}

/** A route to nowhere would otherwise show only when its concern starts, again and again. */
const requireStreams = (file: string, settings: EdgeSettings): void => {
  const declared = new Set<string>(['none', ...streamsOf(settings, []).keys()])
  const missing = settings.routes.find(({ stream }) => !declared.has(stream))?.stream
  if (missing === undefined) return
  const because = `"routes": no stream is named "${missing}": declare [streams.${missing}], or name another`
  throw fault('config_invalid', { file, because })
}

const identityFolder = (settings: EdgeSettings): string => join(settings.data, 'identity')

const runProgram = async (options: Options): Promise<void> => {
  const settings = settingsOf(options)
  const claimed = claimFolder(settings.data, process.pid)
  try {
    const identity = loadIdentity(identityFolder(settings), clock)
    const log = openLogger({
      name: 'headgate-edge',
      level: settings.log.level,
      isTerminal: process.stderr.isTTY,
    })
    for (const warning of identity.warnings) log.warn(warning)
    const telemetry = openTelemetry({ program: 'edge', log, monoMs: clock.monoMs })
    const stop$ = new ReplaySubject<unknown>(1)
    merge(fromEvent(process, 'SIGTERM'), fromEvent(process, 'SIGINT')).pipe(take(1)).subscribe(stop$)
    log.info({ gateway: identity.gateway, data: settings.data, version: VERSION }, 'starting')
    await ended(
      runEdge({ settings, identity, version: VERSION, clock, random, registry: telemetry.registry, stop$ }),
      life => telemetry.tell(life),
    )
    log.info('stopped')
  } finally {
    claimed.release()
  }
}

const enrolGateway = async (
  token: string,
  { force = false, ...options }: Options & { force?: boolean },
): Promise<void> => {
  const settings = settingsOf(options)
  // A token on the command line shows in the list of processes: `-` reads it from standard input.
  const text = token === '-' ? readFileSync(0, 'utf8').trim() : token
  const enrolled = await lastValueFrom(enrol({ token: text, folder: identityFolder(settings), clock, force }))
  const { gateway, address } = enrolled.identity
  process.stdout.write(
    enrolled.kind === 'enrolled'
      ? `Enrolled as ${gateway}. Start it: headgate-edge run --data ${settings.data}\n`
      : `Already enrolled as ${gateway} at ${address}; nothing was changed. Use --force to enrol anew.\n`,
  )
}

const showStatus = async ({ json = false, ...options }: Options & { json?: boolean }): Promise<void> => {
  const socket = join(settingsOf(options).data, STATUS_SOCKET)
  const text = await fetchFrom(socket, '/status')
  if (json) return void process.stdout.write(`${text}\n`)
  const status = statusSchema.parse(JSON.parse(text))
  process.stdout.write(`${status.gateway} · ${status.link} · last mark ${status.lastMarkAt ?? 'none yet'}\n`)
  const table = new Table({
    head: ['stream', 'kept', 'durable in the cloud', 'waiting', 'time to drain', 'disk'],
    style: { head: [], border: [] },
  })
  for (const { name, tail, head, marked, waitingRecords, bytes } of status.streams) {
    const waitingBytes = bytes * (waitingRecords / Math.max(1, head - tail + 1))
    const seconds = status.bytesPerSecond > 0 ? `${Math.ceil(waitingBytes / status.bytesPerSecond)} s` : '?'
    table.push([
      name,
      head < tail ? 'nothing' : `${tail}…${head}`,
      `1…${marked}`,
      waitingRecords,
      waitingRecords === 0 ? '–' : seconds,
      `${Math.round(bytes / 1024)} KB`,
    ])
  }
  process.stdout.write(`${table.toString()}\n`)
}

const fetchFrom = (socketPath: string, path: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const asked = request({ socketPath, path }, response => {
      response.setEncoding('utf8')
      let text = ''
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () => resolve(text))
    })
    asked.on('error', thrown =>
      reject(
        fault('link_unreachable', {
          address: socketPath,
          because: `${thrown.message}; is headgate-edge running with this data folder?`,
        }),
      ),
    )
    asked.end()
  })

const verifyLog = (options: Options): void => {
  const file = join(settingsOf(options).data, LOG_FILE)
  if (!existsSync(file)) throw fault('log_unreadable', { file, because: 'there is no such file' })
  const reports = verifyStreams(openLmdb({ file, tables: [], access: 'read' }))
  for (const { stream, epoch, tail, head, records, skipped, bytes, findings, findingCount } of reports) {
    process.stdout.write(
      `${stream}  epoch ${epoch}  ${tail}…${head}: ${records} records, ${skipped} skipped, ${bytes} bytes, ${findingCount} problems\n`,
    )
    for (const { at, problem } of findings) process.stdout.write(`  ${at}: ${problem}\n`)
  }
  if (reports.some(({ findingCount }) => findingCount > 0)) process.exitCode = 1
}

const command = new Command('headgate-edge')
  .description(
    'Takes device data on a gateway, keeps it on disk, and brings it to the cloud in order, losing nothing.',
  )
  .version(VERSION)

const withFolders = (each: Command): Command =>
  each
    .option('--config <file>', `configuration (${DEFAULT_CONFIG}, or EDGE_CONFIG)`)
    .option('--data <folder>', 'data folder, over the configuration')

withFolders(command.command('enroll'))
  .description('make a key on this machine and get a certificate for it')
  .argument('<token>', 'from "headgate-cloud gateway add"; "-" reads it from standard input')
  .option('--force', 'replace an identity that is there')
  .action(enrolGateway)
withFolders(command.command('run'))
  .description('run the gateway until SIGTERM')
  .addHelpText('after', () => settingsHelp(edgeSchema, 'EDGE'))
  .action(runProgram)
withFolders(command.command('status'))
  .description('how the running gateway is')
  .option('--json', 'as JSON')
  .action(showStatus)
const log = command.command('log').description('the log on this machine')
withFolders(log.command('verify'))
  .description('read it from end to end and say what is wrong')
  .action(verifyLog)

// Whoever reads our answers may stop early, as `head` does.
process.stdout.on('error', () => process.exit(0))

command.parseAsync().catch((thrown: unknown) => {
  process.stderr.write(`${lastWords('headgate-edge', thrown)}\n`)
  process.exit(1)
})
