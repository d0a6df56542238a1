// Configuration of both programs. Every key has a default with its reason; unknown keys are refused.

import { z } from 'zod'
import { addressSchema } from './address.ts'
import { CODECS } from './frame.ts'
import { type StreamName, streamName, streamNameSchema } from './ids.ts'
import { isFilter } from './topics.ts'

const MB = 1024 * 1024

const port = z.int().min(0).max(65_535)
const host = z.string().min(1)
const logSettings = z.strictObject({
  level: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
})

/** What is not given is as the stream's defaults say. */
const streamSettings = z.strictObject({
  /** Bytes of the log file that this stream may fill. */
  maxBytes: z.int().min(MB).optional(),
  /** Records older than this are dropped for a declared skip; 0 keeps them for ever. */
  maxAgeHours: z.number().min(0).optional(),
  /** refuse: publishers wait; dropOldest: the oldest go, declared. */
  onFull: z.enum(['refuse', 'dropOldest']).optional(),
  /** Higher is sent first. */
  priority: z.int().min(0).max(100).optional(),
})

const route = z.strictObject({
  filter: z.string().refine(isFilter, 'must be an MQTT topic filter'),
  /** A declared stream, or "none": acknowledged, counted, not kept. */
  stream: z.union([z.literal('none'), streamNameSchema]),
})

/** An MQTT broker that is there already, in the place of the embedded one. */
const southBroker = z.strictObject({
  address: addressSchema,
  username: z.string().optional(),
  /** The password's file: never the password itself. */
  passwordFile: z.string().optional(),
  clientId: z.string().min(1).max(64).default('headgate-edge'),
  /** What to take from it. */
  filters: z.array(z.string().refine(isFilter, 'must be an MQTT topic filter')).min(1).default(['#']),
  qos: z.union([z.literal(1), z.literal(2)]).default(1),
})

export const edgeSchema = z.strictObject({
  /** Log, identity and state. */
  data: z.string().min(1).default('/var/lib/headgate-edge'),
  cloud: z
    .strictObject({
      /** Overrides the address that enrolment gave. */
      address: addressSchema.optional(),
      /** A metered link: keep-alive of 300 s, metrics every 5 minutes. */
      metered: z.boolean().default(false),
    })
    .prefault({}),
  local: z
    .strictObject({
      enabled: z.boolean().default(true),
      host: host.default('127.0.0.1'),
      port: port.default(1883),
      /** Use this broker instead of the embedded one. */
      broker: southBroker.optional(),
      connectionsMax: z.int().min(1).default(1_000),
    })
    .prefault({}),
  streams: z.record(streamNameSchema, streamSettings).default({}),
  routes: z.array(route).default([]),
  seal: z
    .strictObject({
      /** How long QoS 0 and metrics wait for company after a pause: below what a person notices. */
      waitMsMax: z.int().min(1).max(60_000).default(250),
      /**
       * From one commit to the next where all is QoS 0: a record a second then writes 0.8 GB a day to the flash, not
       * 2.2. QoS 1 and 2 never wait, and 64 KB do not either.
       */
      spacingMs: z.int().min(0).max(60_000).default(3_000),
      compression: z.enum(CODECS).default('deflate'),
    })
    .prefault({}),
  disk: z
    .strictObject({
      /** Left for events and for what lets the log shrink again. */
      reserveBytes: z
        .int()
        .min(0)
        .default(16 * MB),
    })
    .prefault({}),
  metrics: z
    .strictObject({
      intervalMs: z.int().min(1_000).default(10_000),
      /** Prometheus; port 0 switches it off. */
      host: host.default('127.0.0.1'),
      port: port.default(9_464),
      disks: z.array(z.string()).default(['/']),
    })
    .prefault({}),
  log: logSettings.prefault({}),
  /** Time that work in flight has when the program is asked to stop. */
  stopMsMax: z.int().min(0).default(5_000),
})

export const cloudSchema = z.strictObject({
  /** Log, views, registry, certificates. */
  data: z.string().min(1).default('/var/lib/headgate-cloud'),
  /**
   * Names by which gateways and people reach this cloud; set by `init --host`. While all are this machine's own, the
   * listeners for gateways and enrolment stay on loopback.
   */
  hosts: z.array(host).min(1).default(['localhost']),
  gateways: z
    .strictObject({
      host: host.optional(),
      port: port.default(8_883),
      connectionsMax: z.int().min(1).default(10_000),
    })
    .prefault({}),
  north: z
    .strictObject({
      enabled: z.boolean().default(true),
      /** Plain MQTT: loopback only. */
      host: host.default('127.0.0.1'),
      port: port.default(8_884),
      /** Records older than a minute at receipt: skipped, or fanned out as well. */
      backlog: z.enum(['skip', 'also']).default('skip'),
    })
    .prefault({}),
  enrolment: z.strictObject({ host: host.optional(), port: port.default(8_444) }).prefault({}),
  api: z.strictObject({ host: host.default('127.0.0.1'), port: port.default(8_080) }).prefault({}),
  projections: z.strictObject({ enabled: z.boolean().default(true) }).prefault({}),
  credit: z
    .strictObject({
      /** Bytes of frames on their way to disk, for all gateways together. */
      budgetBytes: z
        .int()
        .min(MB)
        .default(64 * MB),
    })
    .prefault({}),
  disk: z
    .strictObject({
      reserveBytes: z
        .int()
        .min(0)
        .default(64 * MB),
    })
    .prefault({}),
  log: logSettings.prefault({}),
  stopMsMax: z.int().min(0).default(5_000),
})

export type EdgeSettings = z.output<typeof edgeSchema>
export type CloudSettings = z.output<typeof cloudSchema>

export interface StreamSettings {
  readonly maxBytes: number
  readonly maxAgeHours: number
  readonly onFull: 'refuse' | 'dropOldest'
  readonly priority: number
}

/** Of a stream that only configuration, or a log from an earlier one, names. */
const STREAM_DEFAULT: StreamSettings = { maxBytes: 1024 * MB, maxAgeHours: 0, onFull: 'refuse', priority: 50 }

/** What every gateway has. */
const STREAM_DEFAULTS: Readonly<Record<string, StreamSettings>> = {
  events: { maxBytes: 64 * MB, maxAgeHours: 0, onFull: 'refuse', priority: 100 },
  gateway: { maxBytes: 128 * MB, maxAgeHours: 0, onFull: 'dropOldest', priority: 75 },
  data: { maxBytes: 8 * 1024 * MB, maxAgeHours: 0, onFull: 'refuse', priority: 50 },
}

/** Every stream: the gateway's own, the configured, and those that the log still holds. Highest priority first. */
export const streamsOf = (
  { streams }: EdgeSettings,
  stored: readonly StreamName[],
): ReadonlyMap<StreamName, StreamSettings> => {
  const names = new Set([...Object.keys(STREAM_DEFAULTS), ...Object.keys(streams), ...stored].map(streamName))
  const settings = [...names].map(name => {
    const given = Object.entries(streams[name] ?? {}).filter(([, value]) => value !== undefined)
    return [name, { ...STREAM_DEFAULT, ...STREAM_DEFAULTS[name], ...Object.fromEntries(given) }] as const
  })
  return new Map(settings.toSorted(([, one], [, other]) => other.priority - one.priority))
}
