// One cloud and its gateways on this machine: real processes, their default configuration but for ports and folders.

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePorts } from './ports.ts'
import { atEnd, isProfiled, PROJECT, program, run, type Started, start } from './process.ts'

const CLOUD = join(PROJECT, 'cloud/headgate-cloud.js')
const EDGE = join(PROJECT, 'edge/headgate-edge.js')

export interface EdgeStatus {
  readonly link: string
  readonly diskBytes: number
  readonly streams: readonly {
    readonly name: string
    readonly head: number
    readonly marked: number
    readonly tail: number
    readonly epoch: string
  }[]
}

export interface Gateway {
  readonly id: string
  readonly folder: string
  readonly localPort: number
  start(env?: Readonly<Record<string, string>>): Promise<Started>
  status(): Promise<EdgeStatus>
}

export interface Installation {
  readonly folder: string
  readonly cloudFolder: string
  readonly apiPort: number
  readonly gatewaysPort: number
  readonly northPort: number
  startCloud(env?: Readonly<Record<string, string>>): Promise<Started>
  /** Registers and enrols one; the cloud has to run. `address`: where it finds the cloud, if not directly. */
  enrol(name: string, options?: { readonly address?: string }): Promise<Gateway>
  api(path: string): Promise<Response>
  /** Every program that was started, in that order: what they said helps when a test failed. */
  readonly started: readonly Started[]
  /** Ends every process that is still there, and removes the folders. */
  close(): Promise<void>
}

export const install = async (under: string = tmpdir()): Promise<Installation> => {
  const folder = mkdtempSync(join(under, 'headgate-'))
  const removed = atEnd(() => rmSync(folder, { recursive: true, force: true }))
  const cloudFolder = join(folder, 'cloud')
  const [gatewaysPort = 0, northPort = 0, enrolmentPort = 0, apiPort = 0] = await freePorts(4)
  const cloudEnv = {
    CLOUD_GATEWAYS_PORT: String(gatewaysPort),
    CLOUD_NORTH_PORT: String(northPort),
    CLOUD_ENROLMENT_PORT: String(enrolmentPort),
    CLOUD_API_PORT: String(apiPort),
  }
  const processes: Started[] = []
  const keep = (started: Started): Started => {
    processes.push(started)
    return started
  }
  await run({ command: process.execPath, args: [CLOUD, 'init', '--data', cloudFolder] }).catch(
    (thrown: unknown) => {
      rmSync(folder, { recursive: true, force: true })
      throw thrown
    },
  )

  const enrol: Installation['enrol'] = async (name, { address } = {}) => {
    const gatewayFolder = join(folder, name)
    mkdirSync(gatewayFolder)
    const added = spawnSync(process.execPath, [CLOUD, 'gateway', 'add', name, '--data', cloudFolder], {
      encoding: 'utf8',
      env: { ...process.env, ...cloudEnv },
    })
    if (added.status !== 0) throw new Error(added.stderr)
    await run({
      command: process.execPath,
      args: [EDGE, 'enroll', '-', '--data', gatewayFolder],
      stdin: added.stdout,
    })
    const [localPort = 0, metricsPort = 0] = await freePorts(2)
    return {
      id: name,
      folder: gatewayFolder,
      localPort,
      start: async (env = {}) => {
        const edge = program(EDGE)
        const started = keep(
          start({
            command: edge.command,
            args: [...edge.args, 'run', '--data', gatewayFolder],
            env: {
              EDGE_LOCAL_PORT: String(localPort),
              EDGE_METRICS_PORT: String(metricsPort),
              ...(address === undefined ? {} : { EDGE_CLOUD_ADDRESS: address }),
              ...env,
            },
          }),
        )
        await started.saying(/"concern":"ingest".*"msg":"(listening|subscribed)"/)
        return started
      },
      status: async () =>
        JSON.parse(await fetchSocket(join(gatewayFolder, 'status.sock'), '/status')) as EdgeStatus,
    }
  }

  return {
    folder,
    cloudFolder,
    apiPort,
    gatewaysPort,
    northPort,
    enrol,
    started: processes,
    startCloud: async (env = {}) => {
      const cloud = program(CLOUD)
      const started = keep(
        start({
          command: cloud.command,
          args: [...cloud.args, 'run', '--data', cloudFolder],
          env: { ...cloudEnv, ...env },
        }),
      )
      await started.saying(/"concern":"broker".*"msg":"listening"/)
      await started.saying(/"concern":"api".*"msg":"listening"/)
      return started
    },
    api: path => fetch(`http://127.0.0.1:${apiPort}${path}`),
    close: async () => {
      // A profile is written at an orderly end.
      for (const started of processes) started.kill(isProfiled() ? 'SIGTERM' : 'SIGKILL')
      await Promise.all(processes.map(started => started.ended))
      rmSync(folder, { recursive: true, force: true })
      removed()
    },
  }
}

export const fetchSocket = (socketPath: string, path: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const asked = request({ socketPath, path }, response => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () => resolve(text))
    })
    asked.on('error', reject)
    asked.end()
  })

/** Asks until `read` gives something; throws after `withinMs`. */
export const until = async <T>(
  what: string,
  read: () => Promise<T | undefined>,
  withinMs = 30_000,
  everyMs = 20,
): Promise<T> => {
  const end = performance.now() + withinMs
  for (;;) {
    const found = await read().catch(() => undefined)
    if (found !== undefined) return found
    if (performance.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`)
    await sleep(everyMs)
  }
}
