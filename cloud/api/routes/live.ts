// The WebSocket of live events and values, for the console and for programs.

import { lastValueFrom } from 'rxjs'
import { z } from 'zod'
import { isFault, reasonOf } from '../../../streams/run/fault.ts'
import { serveLive } from '../live.ts'
import type { RouteContext, Scope } from '../scope.ts'
import { eventsAfter } from './events.ts'

/** Each may hold a megabyte. */
export const LIVE_SOCKETS_MAX = 100
const CLOSE_POLICY = 1008
const CLOSE_TRY_LATER = 1013
const CLOSE_ERROR = 1011

export const liveRoutes = (scope: Scope, context: RouteContext): void => {
  let open = 0
  scope.get(
    '/live',
    {
      websocket: true,
      schema: {
        summary: 'WebSocket: {type: start | event | latest | behind, cursor, …}; goes on behind ?after=',
        querystring: z.object({ after: z.string().optional() }),
      },
    },
    (socket, { query: { after } }) => {
      const { reader } = context
      if (open >= LIVE_SOCKETS_MAX)
        return socket.close(CLOSE_TRY_LATER, `${LIVE_SOCKETS_MAX} live sockets are open`)
      let from: number
      try {
        from = after === undefined ? reader.head('events') : eventsAfter(reader, after)
      } catch (thrown) {
        // A close frame holds 123 bytes of reason (RFC 6455, section 5.5).
        return socket.close(isFault(thrown) ? CLOSE_POLICY : CLOSE_ERROR, reasonOf(thrown).slice(0, 120))
      }
      open += 1
      lastValueFrom(serveLive({ socket, after: from, context }), { defaultValue: undefined })
        .catch(() => socket.close(CLOSE_ERROR))
        .finally(() => {
          open -= 1
        })
    },
  )
}
