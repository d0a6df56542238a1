// The only file that knows topics. Protocol topics stand apart from user topics, and a parser accepts
// nothing that a builder does not make.

import type { ChannelId, GatewayId, StreamName } from './ids.ts'
import { channelIdSchema, gatewayIdSchema, streamNameSchema } from './ids.ts'

const ROOT = 'headgate'

/** MQTT allows 65,535; deeper or longer than this is refused before any work is done for it. */
export const TOPIC_BYTES_MAX = 1_024
export const TOPIC_LEVELS_MAX = 32

export const up = {
  hello: (gateway: GatewayId) => `${ROOT}/${gateway}/up/hello`,
  export: (gateway: GatewayId, stream: StreamName) => `${ROOT}/${gateway}/up/export/${stream}`,
  session: (gateway: GatewayId) => `${ROOT}/${gateway}/up/session`,
  gone: (gateway: GatewayId) => `${ROOT}/${gateway}/up/gone`,
}

export const down = {
  mark: (gateway: GatewayId) => `${ROOT}/${gateway}/down/mark`,
  command: (gateway: GatewayId) => `${ROOT}/${gateway}/down/command`,
  session: (gateway: GatewayId) => `${ROOT}/${gateway}/down/session`,
  who: (gateway: GatewayId) => `${ROOT}/${gateway}/down/who`,
  /** Empty, QoS 1: its PUBACK says that the gateway is there. */
  alive: (gateway: GatewayId) => `${ROOT}/${gateway}/down/alive`,
  whoAll: () => `${ROOT}/all/down/who`,
  everything: (gateway: GatewayId) => `${ROOT}/${gateway}/down/#`,
}

/** What a cloud subscribes to behind a foreign broker. */
export const UP_FILTER = `${ROOT}/+/up/#`

export type UpTopic =
  | { readonly kind: 'hello' | 'session' | 'gone'; readonly gateway: GatewayId }
  | { readonly kind: 'export'; readonly gateway: GatewayId; readonly stream: StreamName }

/** Undefined for anything that is not exactly an uplink protocol topic. */
export const parseUp = (topic: string): UpTopic | undefined => {
  const [root, gatewayText, direction, kind, streamText, ...rest] = topic.split('/')
  if (root !== ROOT || direction !== 'up' || rest.length > 0) return undefined
  const gateway = gatewayIdSchema.safeParse(gatewayText)
  if (!gateway.success || gateway.data === 'all') return undefined
  switch (kind) {
    case 'hello':
    case 'session':
    case 'gone':
      return streamText === undefined ? { kind, gateway: gateway.data } : undefined
    case 'export': {
      const stream = streamNameSchema.safeParse(streamText)
      return stream.success ? { kind, gateway: gateway.data, stream: stream.data } : undefined
    }
    default:
      return undefined
  }
}

/** A gateway publishes under its own name only. */
export const mayGatewayPublish = (gateway: GatewayId, topic: string): boolean =>
  parseUp(topic)?.gateway === gateway

/** A gateway hears its own downlink and the call to all; no wildcard crosses into another's. */
export const mayGatewaySubscribe = (gateway: GatewayId, filter: string): boolean =>
  filter === down.whoAll() ||
  filter === down.everything(gateway) ||
  (filter.startsWith(`${ROOT}/${gateway}/down/`) && !/[+#]/.test(filter))

/** Topics on the edge's local broker that are never device data. */
const RESERVED_LOCAL = ['commands', 'heartbeat', ROOT]
export const isReservedLocal = (topic: string): boolean =>
  topic.startsWith('$') || RESERVED_LOCAL.some(root => topic === root || topic.startsWith(`${root}/`))
/** Counted in place: it is asked for every message. */
export const topicLevels = (topic: string): number => {
  let levels = 1
  for (let at = topic.indexOf('/'); at >= 0; at = topic.indexOf('/', at + 1)) levels += 1
  return levels
}

/** Only the agent publishes here. */
export const isAgentLocal = (topic: string): boolean => topic === 'commands' || topic.startsWith('commands/')

/** Mainflux channel topics: `channels/<id>/messages[/<subtopic>]`. */
export const channelTopic = (channel: ChannelId, subtopic: string): string =>
  subtopic === '' ? `channels/${channel}/messages` : `channels/${channel}/messages/${subtopic}`

export interface ChannelTopic {
  readonly channel: ChannelId
  readonly subtopic: string
}

export const parseChannel = (topic: string): ChannelTopic | undefined => {
  const [root, channelText, messages, ...rest] = topic.split('/')
  if (root !== 'channels' || messages !== 'messages') return undefined
  const channel = channelIdSchema.safeParse(channelText)
  return channel.success ? { channel: channel.data, subtopic: rest.join('/') } : undefined
}

/** Whether an MQTT 3.1.1 filter takes a topic (section 4.7; `$` topics never match a leading wildcard). */
export const filterMatches = (filter: string, topic: string): boolean => {
  if (topic.startsWith('$') && /^[+#]/.test(filter)) return false
  const wanted = filter.split('/')
  const given = topic.split('/')
  for (const [i, level] of wanted.entries()) {
    if (level === '#') return i === wanted.length - 1
    if ((level !== '+' && level !== given[i]) || given[i] === undefined) return false
  }
  return wanted.length === given.length
}

export const isFilter = (filter: string): boolean => {
  const levels = filter.split('/')
  return (
    filter !== '' &&
    filter.length <= TOPIC_BYTES_MAX &&
    !filter.includes('\0') &&
    levels.length <= TOPIC_LEVELS_MAX &&
    levels.every(
      (level, i) => level === '+' || (level === '#' && i === levels.length - 1) || !/[+#]/.test(level),
    )
  )
}
