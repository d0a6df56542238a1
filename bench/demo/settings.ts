// Where the demo keeps its data and which ports its programs take: as those programs themselves will read it, from the
// configuration in the folder and the environment over it.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { type CloudSettings, cloudSchema, type EdgeSettings, edgeSchema } from '../../schemas/config.ts'
import { loadSettings } from '../../streams/run/settings.ts'

export interface Program<S> {
  readonly folder: string
  readonly configFile: string
  readonly logFile: string
  readonly settings: S
}

export interface Demo {
  readonly cloud: Program<CloudSettings>
  readonly edge: Program<EdgeSettings>
}

type Environment = Readonly<Record<string, string | undefined>>

/** The cloud's configuration is there: `headgate-cloud init` wrote it. Throws config_invalid. */
export const readDemo = (folder: string, environment: Environment): Demo => {
  const cloudFolder = cloudFolderIn(folder)
  const edgeFolder = join(folder, 'edge')
  mkdirSync(edgeFolder, { recursive: true, mode: 0o700 })
  const cloudFile = join(cloudFolder, 'headgate-cloud.toml')
  const edgeFile = join(edgeFolder, 'headgate-edge.toml')
  // Without a file of its own the edge would take /etc/headgate/edge.toml, which is a real gateway's.
  if (!existsSync(edgeFile))
    writeFileSync(edgeFile, `# Configuration of the demo's gateway.\ndata = ${JSON.stringify(edgeFolder)}\n`)
  const cloud = loadSettings({
    file: cloudFile,
    text: readFileSync(cloudFile, 'utf8'),
    environment,
    prefix: 'CLOUD',
    schema: cloudSchema,
    reserved: ['CLOUD_CONFIG'],
  })
  const edge = loadSettings({
    file: edgeFile,
    text: readFileSync(edgeFile, 'utf8'),
    environment,
    prefix: 'EDGE',
    schema: edgeSchema,
    reserved: ['EDGE_CONFIG'],
  })
  return {
    cloud: {
      folder: cloudFolder,
      configFile: cloudFile,
      logFile: join(folder, 'cloud.log'),
      settings: cloud,
    },
    edge: { folder: edgeFolder, configFile: edgeFile, logFile: join(folder, 'edge.log'), settings: edge },
  }
}

export const cloudFolderIn = (folder: string): string => join(folder, 'cloud')

interface Port {
  readonly port: number
  readonly variable: string
  readonly isFor: string
}

const portsOf = ({ cloud, edge }: Demo): Port[] => [
  {
    port: cloud.settings.gateways.port,
    variable: 'CLOUD_GATEWAYS_PORT',
    isFor: 'gateways, MQTT over mutual TLS',
  },
  { port: cloud.settings.north.port, variable: 'CLOUD_NORTH_PORT', isFor: 'programs, MQTT' },
  { port: cloud.settings.enrolment.port, variable: 'CLOUD_ENROLMENT_PORT', isFor: 'enrolment' },
  { port: cloud.settings.api.port, variable: 'CLOUD_API_PORT', isFor: 'the API' },
  { port: edge.settings.local.port, variable: 'EDGE_LOCAL_PORT', isFor: 'devices, local MQTT' },
  { port: edge.settings.metrics.port, variable: 'EDGE_METRICS_PORT', isFor: "the gateway's metrics" },
]

const ABOVE = 10_000
const PORT_MAX = 65_535

/** What to say when ports are taken; undefined when none is. */
export const takenPorts = async (demo: Demo): Promise<string | undefined> => {
  const ports = portsOf(demo)
  const free = await Promise.all(ports.map(({ port }) => isFree(port)))
  const taken = ports.filter((_, i) => free[i] === false)
  if (taken.length === 0) return undefined
  const lines = taken.map(
    ({ port, variable, isFor }) =>
      `Port ${port} (${isFor}) is taken by another program: stop that one, or set ${variable} to another port.`,
  )
  const example = taken
    .map(({ port, variable }) => `${variable}=${port + ABOVE > PORT_MAX ? port - ABOVE : port + ABOVE}`)
    .join(' ')
  return [...lines, `For example: ${example} npm start`].join('\n')
}

const isFree = (port: number): Promise<boolean> =>
  new Promise(resolve => {
    const probe = createServer()
    // Any other error is for the program itself to explain: it knows what the port was for.
    probe.once('error', thrown => resolve(!('code' in thrown && thrown.code === 'EADDRINUSE')))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
