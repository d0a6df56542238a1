// Which channels somebody listens to, so that frames of the others are never decoded.
//
// Errs on the side of interest: an unsubscription is not seen, and a client that comes back may have kept its
// session, so that its filters are remembered while it is away.

import type { ChannelId } from '../../schemas/ids.ts'
import { channelTopic } from '../../schemas/topics.ts'

/** Client ids whose filters are remembered; a forgotten one that kept its session subscribes again to be heard. */
export const AWAY_MAX = 1_000
/** Filters of one client: the broker allows as many subscriptions. */
export const FILTERS_MAX = 100

export interface Interest {
  subscribed(clientId: string, filter: string): void
  connected(clientId: string): void
  disconnected(clientId: string): void
  isWanted(channel: ChannelId): boolean
}

export const openInterest = (): Interest => {
  const filters = new Map<string, Set<string>>()
  const away = new Set<string>()
  const judged = new Map<ChannelId, boolean>()

  const judge = (channel: ChannelId): boolean => {
    for (const [clientId, wanted] of filters) {
      if (away.has(clientId)) continue
      for (const filter of wanted) if (mayMatch(filter, channel)) return true
    }
    return false
  }
  return {
    subscribed: (clientId, filter) => {
      const own = filters.get(clientId) ?? new Set()
      if (own.size >= FILTERS_MAX) own.clear()
      filters.set(clientId, own.add(filter))
      judged.clear()
    },
    connected: clientId => {
      away.delete(clientId)
      judged.clear()
    },
    disconnected: clientId => {
      if (!filters.has(clientId)) return
      away.add(clientId)
      judged.clear()
      const [oldest] = away
      if (away.size <= AWAY_MAX || oldest === undefined) return
      away.delete(oldest)
      filters.delete(oldest)
    },
    isWanted: channel => {
      const known = judged.get(channel)
      if (known !== undefined) return known
      const wanted = judge(channel)
      judged.set(channel, wanted)
      return wanted
    },
  }
}

/** Whether a filter can take any topic of the channel: only the levels that all of them share are compared. */
export const mayMatch = (filter: string, channel: ChannelId): boolean => {
  const shared = channelTopic(channel, '').split('/')
  const wanted = filter.split('/')
  for (const [i, level] of shared.entries()) {
    if (wanted[i] === '#') return true
    if (wanted[i] !== '+' && wanted[i] !== level) return false
  }
  return true
}
