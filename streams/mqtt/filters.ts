// Who subscribed to what, as a tree of levels: a topic finds its clients without a look at every filter.

import type { Qos } from '../../schemas/records.ts'

export interface Filters {
  add(filter: string, clientId: string, qos: Qos): void
  remove(filter: string, clientId: string): void
  /** Each client once, with the highest QoS that it was granted. MQTT 3.1.1 section 4.7. */
  match(topic: string): ReadonlyMap<string, Qos>
  isEmpty(): boolean
}

interface Level {
  readonly below: Map<string, Level>
  readonly clients: Map<string, Qos>
}

const emptyLevel = (): Level => ({ below: new Map(), clients: new Map() })
const NOBODY: ReadonlyMap<string, Qos> = new Map()

export const openFilters = (): Filters => {
  const root = emptyLevel()

  const remove = (level: Level, names: readonly string[], clientId: string): void => {
    const [name, ...rest] = names
    if (name === undefined) {
      level.clients.delete(clientId)
      return
    }
    const next = level.below.get(name)
    if (next === undefined) return
    remove(next, rest, clientId)
    if (next.below.size === 0 && next.clients.size === 0) level.below.delete(name)
  }

  return {
    add: (filter, clientId, qos) => {
      let level = root
      for (const name of filter.split('/')) {
        const next = level.below.get(name) ?? emptyLevel()
        level.below.set(name, next)
        level = next
      }
      level.clients.set(clientId, qos)
    },
    remove: (filter, clientId) => remove(root, filter.split('/'), clientId),
    match: topic => {
      if (root.below.size === 0) return NOBODY
      const found = new Map<string, Qos>()
      const names = topic.split('/')
      const gather = (level: Level | undefined): void => {
        for (const [clientId, qos] of level?.clients ?? [])
          if (qos >= (found.get(clientId) ?? 0)) found.set(clientId, qos)
      }
      const descend = (level: Level, depth: number): void => {
        // Topics of `$` are for those who name them.
        const takesWildcards = depth > 0 || !topic.startsWith('$')
        if (takesWildcards) gather(level.below.get('#'))
        const name = names[depth]
        if (name === undefined) return gather(level)
        const named = level.below.get(name)
        if (named !== undefined) descend(named, depth + 1)
        const any = takesWildcards ? level.below.get('+') : undefined
        if (any !== undefined) descend(any, depth + 1)
      }
      descend(root, 0)
      return found
    },
    isEmpty: () => root.below.size === 0,
  }
}
