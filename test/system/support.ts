// What the system tests share: an installation that is taken away whatever happens, the programs as a person starts
// them, and the questions that tests ask of both ends.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import {
  type EdgeStatus,
  type Gateway,
  type Installation,
  install,
  until,
} from '../../bench/harness/installation.ts'
import { PROJECT, type Started } from '../../bench/harness/process.ts'
import type { DeliveryRow, RefusedFrames } from '../../schemas/views.ts'

export const CLOUD = join(PROJECT, 'dist/cloud/main.js')
export const EDGE = join(PROJECT, 'dist/edge/main.js')

/** The edge's own samples every hour: a test then knows every record. */
export const QUIET = { EDGE_METRICS_INTERVAL_MS: '3600000' }

/** Of each program, when a test failed. */
const TOLD_LENGTH_MAX = 3_000

export const withInstallation = async (use: (installation: Installation) => Promise<void>): Promise<void> => {
  const installation = await install()
  try {
    await use(installation)
  } catch (thrown) {
    for (const { pid, said } of installation.started)
      process.stdout.write(`--- ${pid} said:\n${said().slice(-TOLD_LENGTH_MAX)}\n`)
    throw thrown
  } finally {
    await installation.close()
  }
}

export interface Ended {
  /** Exit code, or the name of the signal that ended it. */
  readonly code: number | string
  /** Standard output alone. */
  readonly out: string
  /** Standard error alone. */
  readonly err: string
}

/** Runs a program to its end, whatever that is; ends it after `withinMs`. */
export const ending = async (
  command: string,
  args: readonly string[],
  {
    env = {},
    stdin = '',
    withinMs = 20_000,
  }: { env?: Readonly<Record<string, string>>; stdin?: string | Buffer; withinMs?: number } = {},
): Promise<Ended> => {
  const child = spawn(command, [...args], {
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stdout.on('data', chunk => {
    out += String(chunk)
  })
  child.stderr.on('data', chunk => {
    err += String(chunk)
  })
  child.stdin.on('error', () => undefined)
  child.stdin.end(stdin)
  const limit = setTimeout(() => child.kill('SIGKILL'), withinMs)
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null]
  clearTimeout(limit)
  return { code: code ?? signal ?? '?', out, err }
}

export const node = (args: readonly string[], options: Parameters<typeof ending>[2] = {}): Promise<Ended> =>
  ending(process.execPath, args, options)

/** Kills a program that the test started, and waits until it is gone. */
export const killed = async (started: Started): Promise<void> => {
  started.kill('SIGKILL')
  await started.ended
}

/** Asks it to end; the exit code, and how long it took. */
export const stopped = async (started: Started): Promise<{ code: number | string; tookMs: number }> => {
  const askedAt = performance.now()
  started.kill('SIGTERM')
  const code = await started.ended
  return { code, tookMs: performance.now() - askedAt }
}

export interface Delivery {
  readonly streams: readonly (Omit<DeliveryRow, 'lastReceivedMs'> & { readonly summary: string })[]
  readonly refused: readonly RefusedFrames[]
}

export const json = async <T>(installation: Installation, path: string): Promise<T> => {
  const response = await installation.api(path)
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
  return (await response.json()) as T
}

export const deliveryOf = (installation: Installation, gateway: string): Promise<Delivery> =>
  json<Delivery>(installation, `/api/gateways/${gateway}/delivery`)

/** The rows of one stream, oldest epoch first. */
export const rowsOf = async (
  installation: Installation,
  gateway: string,
  stream = 'data',
): Promise<Delivery['streams']> =>
  (await deliveryOf(installation, gateway)).streams.filter(row => row.stream === stream)

/** The stream's one row, once its log holds everything through `last` and the view has seen it. */
export const delivered = (installation: Installation, gateway: string, last: number, withinMs = 30_000) =>
  until(
    `the view of ${gateway} has seen ${last} records`,
    async () => {
      const rows = await rowsOf(installation, gateway)
      return rows.find(row => row.last >= last)
    },
    withinMs,
  )

export const linkIs = (gateway: Gateway, wanted: 'up' | 'down', withinMs = 20_000) =>
  until(
    `the link is ${wanted}`,
    async () => ((await gateway.status()).link.startsWith(wanted) ? true : undefined),
    withinMs,
  )

export const streamOf = (status: EdgeStatus, name = 'data'): EdgeStatus['streams'][number] => {
  const found = status.streams.find(stream => stream.name === name)
  if (found === undefined) throw new Error(`no stream ${name} in ${JSON.stringify(status)}`)
  return found
}

/** Waits until nothing of `stream` waits for the cloud. */
export const drained = (gateway: Gateway, { head = 1, stream = 'data', withinMs = 30_000 } = {}) =>
  until(
    `${stream} is marked through ${head}`,
    async () => {
      const { head: now, marked } = streamOf(await gateway.status(), stream)
      return now >= head && marked === now ? now : undefined
    },
    withinMs,
  )

export interface Line {
  readonly epoch?: string
  readonly offset?: number
  readonly topic?: string
  readonly qos?: number
  readonly payload?: unknown
  readonly skip?: { readonly first: number; readonly count: number; readonly cause: string }
}

/** Everything that the cloud's log holds of a stream. For tests with few records. */
export const linesOf = async (
  installation: Installation,
  gateway: string,
  stream = 'data',
): Promise<Line[]> => {
  const response = await installation.api(`/api/records?gateway=${gateway}&stream=${stream}&limit=1000000`)
  if (!response.ok) throw new Error(`records: ${response.status}`)
  return (await response.text())
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line) as Line)
}

/** Of both ends: exit code 0 and no problem. The programs may run. */
export const verified = async (installation: Installation, gateways: readonly Gateway[]): Promise<void> => {
  const checks = [
    node([CLOUD, 'log', 'verify', '--data', installation.cloudFolder]),
    ...gateways.map(({ folder }) => node([EDGE, 'log', 'verify', '--data', folder])),
  ]
  for (const { code, out, err } of await Promise.all(checks)) {
    if (code !== 0 || /[1-9]\d* problems/.test(out))
      throw new Error(`log verify exited ${code}: ${out}${err}`)
  }
}
