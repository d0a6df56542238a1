// Which stream a local topic goes to: the first route that matches, else the default.

import { STREAM_DATA, type StreamName } from '../../schemas/ids.ts'
import { filterMatches, isReservedLocal } from '../../schemas/topics.ts'

export interface Route {
  readonly filter: string
  /** `none`: the message is acknowledged and counted, not kept. */
  readonly stream: StreamName | 'none'
}

/** Topics seen lately, so that a route is looked up once a topic and not once a message. */
const REMEMBERED_MAX = 10_000

/** Undefined: no route takes the topic. */
export const openRoutes = (routes: readonly Route[]): ((topic: string) => StreamName | undefined) => {
  const remembered = new Map<string, StreamName | undefined>()
  return topic => {
    if (remembered.has(topic)) return remembered.get(topic)
    const found = routeOf(routes, topic)
    if (remembered.size >= REMEMBERED_MAX) remembered.clear()
    remembered.set(topic, found)
    return found
  }
}

const routeOf = (routes: readonly Route[], topic: string): StreamName | undefined => {
  if (isReservedLocal(topic)) return undefined
  const route = routes.find(({ filter }) => filterMatches(filter, topic))
  if (route === undefined) return STREAM_DATA
  return route.stream === 'none' ? undefined : route.stream
}
