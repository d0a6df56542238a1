// `npm start`: the whole system on this machine, with real input. Brings up the cloud, makes this machine a gateway, and
// replays sensors as devices on its local broker. A second start goes on with the data of the first.
//
// What it starts ends before it does: first the replay, then the gateway, then the cloud.

import 'reflect-metadata'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command, InvalidArgumentError } from 'commander'
import { lastValueFrom } from 'rxjs'
import { initCloud } from '../../cloud/pki/init.ts'
import { systemClock, systemRandom } from '../../streams/run/clock.ts'
import { isFault, reasonOf } from '../../streams/run/fault.ts'
import { claimFolder } from '../../streams/run/folder.ts'
import { until } from '../harness/installation.ts'
import { PROJECT } from '../harness/process.ts'
import { type Enrolled, enrolThisMachine } from './enrol.ts'
import { type Program, RESTART_MS, runProgram } from './program.ts'
import { type Replay, replay } from './replay.ts'
import { openScreen, type Screen } from './screen.ts'
import { cloudFolderIn, type Demo, readDemo, takenPorts } from './settings.ts'
import { askState, stateLine, welcome } from './watch.ts'
import { devices } from './weather.ts'

const CLOUD = join(PROJECT, 'dist/cloud/main.js')
const EDGE = join(PROJECT, 'dist/edge/main.js')
const START_MS_MAX = 30_000
const ON_TERMINAL_MS = 2_000
const IN_FILE_MS = 10_000

const clock = systemClock()

/** Ended as asked, not by a fault. */
class Asked extends Error {}

const demo = async ({ data, pace }: { data: string; pace: number }): Promise<void> => {
  const screen = openScreen(process.stdout)
  const claimed = claimFolder(data, process.pid)
  const stages: Stoppable[] = []
  let halt = (_: Error): void => undefined
  const halted = new Promise<never>((_, reject) => {
    halt = reject
  })
  halted.catch(() => undefined)
  // npm hands a terminal's Ctrl-C on as well: the second one must not cut short what the first began.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => halt(new Asked(signal)))
  const unlessHalted = <T>(work: Promise<T>): Promise<T> => Promise.race([halted, work])
  const launch = (options: Launch): Program => {
    const program = runProgram({
      ...options,
      onKilled: () =>
        screen.say(
          `The ${options.name} was killed; it starts again in ${RESTART_MS / 1_000} s. Watch what waits.`,
        ),
      onStartedAgain: pid => screen.say(`The ${options.name} runs again (pid ${pid}).`),
    })
    stages.unshift(program)
    program.died.then(why => halt(new Error(why)), halt)
    return program
  }
  try {
    await unlessHalted(show(data, pace, screen, launch, stages, unlessHalted))
  } catch (thrown) {
    if (!(thrown instanceof Asked)) throw thrown
  } finally {
    screen.clear()
    if (stages.length > 0) screen.say('Stopping …')
    for (const stage of stages) {
      if ((await stage.stop()) === 'killed')
        screen.say(`The ${stage.name} did not end when asked, and was killed.`)
    }
    if (stages.length > 0) screen.say(`Stopped. The data stays in ${data}; the next start goes on with it.`)
    claimed.release()
  }
}

type Launch = Pick<Parameters<typeof runProgram>[0], 'name' | 'args' | 'env' | 'logFile'>
interface Stoppable {
  readonly name: string
  stop(): Promise<'clean' | 'killed'>
}

const show = async (
  data: string,
  rowsPerSecond: number,
  screen: Screen,
  launch: (what: Launch) => Program,
  stages: Stoppable[],
  unlessHalted: <T>(work: Promise<T>) => Promise<T>,
): Promise<void> => {
  // One that an earlier demo left behind is named with its pid, before its ports are.
  for (const folder of [cloudFolderIn(data), join(data, 'edge')]) claimFolder(folder, process.pid).release()
  const { fingerprint } = await lastValueFrom(
    initCloud({ data: cloudFolderIn(data), hosts: [], clock, random: systemRandom }),
  )
  const setting = readDemo(data, process.env)
  const taken = await takenPorts(setting)
  if (taken !== undefined) throw new Error(taken)

  screen.say('Starting the cloud …')
  const cloud = launch({ name: 'cloud', ...programOf(CLOUD, setting.cloud) })
  await unlessHalted(until('the cloud answers', () => answers(setting), START_MS_MAX, 50))
  const enrolled = await unlessHalted(enrolThisMachine(setting, fingerprint, clock))
  screen.say(`Starting gateway "${enrolled.gateway}" …`)
  const address = process.env['EDGE_CLOUD_ADDRESS'] ?? `localhost:${setting.cloud.settings.gateways.port}`
  const edge = launch({ name: 'gateway', ...programOf(EDGE, setting.edge, { EDGE_CLOUD_ADDRESS: address }) })
  await unlessHalted(until('the gateway is connected', () => isUp(setting, enrolled), START_MS_MAX, 50))

  const { host, port } = setting.edge.settings.local
  const replayed = replay({ host, port, devices: devices(), rowsPerSecond })
  stages.unshift(named('replay', replayed))
  screen.say(welcome(setting, enrolled, { cloud: cloud.pid() ?? 0, edge: edge.pid() ?? 0 }))
  await unlessHalted(tellState(setting, enrolled, replayed, screen))
}

const programOf = (
  script: string,
  { configFile, folder, logFile }: Demo['cloud' | 'edge'],
  env: Record<string, string> = {},
) => ({
  args: [script, 'run', '--config', configFile, '--data', folder],
  env: { ...process.env, ...env },
  logFile,
})

const named = (name: string, { stop }: Replay): Stoppable => ({
  name,
  stop: () => stop().then(() => 'clean'),
})

const answers = async ({ cloud }: Demo): Promise<true | undefined> =>
  (await fetch(`http://127.0.0.1:${cloud.settings.api.port}/api/health`)).ok ? true : undefined

const isUp = async (setting: Demo, { gateway }: Enrolled): Promise<true | undefined> =>
  (await askState(setting, gateway)).edge?.link === 'up' ? true : undefined

const tellState = async (
  setting: Demo,
  { gateway }: Enrolled,
  replayed: Replay,
  screen: Screen,
): Promise<never> => {
  for (;;) {
    screen.update(stateLine(await askState(setting, gateway), replayed.rows()))
    await sleep(screen.isTerminal ? ON_TERMINAL_MS : IN_FILE_MS)
  }
}

/** Beyond it a row takes longer than its turn. */
const PACE_MAX = 1_000
const paceOf = (text: string): number => {
  const pace = Number(text)
  if (!(pace > 0 && pace <= PACE_MAX))
    throw new InvalidArgumentError(`It must be above 0, and at most ${PACE_MAX}.`)
  return pace
}

const command = new Command('npm start --')
  .description(
    'Runs the whole of Headgate on this machine, with real input. CLOUD_… and EDGE_… variables are heard.',
  )
  .option('--data <folder>', 'where everything is kept', text => resolve(text), join(PROJECT, '.headgate'))
  .option('--pace <rows>', 'rows a second that the sensors replay', paceOf, 10)
  .action(demo)

// The programs are gone and everything is on disk: what still hangs on a timer or a socket need not be waited for.
command.parseAsync().then(
  () => process.exit(0),
  (thrown: unknown) => {
    const text = isFault(thrown) || thrown instanceof Error ? thrown.message : reasonOf(thrown)
    process.stderr.write(`${text}\n`)
    process.exit(1)
  },
)
