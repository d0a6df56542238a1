// Who may talk to the API while it has no login: programs of this machine, and pages that it served itself.
//
// A page of another site reaches 127.0.0.1 through the visitor's browser: by a name of its own that it points here
// (so Host is checked), or openly (so Origin is checked on every change and every WebSocket).

import type { FastifyReply, FastifyRequest } from 'fastify'
import { fault } from '../../streams/run/fault.ts'

const LOOPBACK_NAMES = new Set(['localhost', '127.0.0.1', '[::1]'])

const hostnameOf = (host: string): string => host.replace(/:\d+$/, '').toLowerCase()

/** Undefined when the request may go on. */
export const refuseRequest = (request: Pick<FastifyRequest, 'headers' | 'method'>): string | undefined => {
  const { host = '', origin, upgrade } = request.headers
  if (!LOOPBACK_NAMES.has(hostnameOf(host)))
    return `Host "${host}" is not this machine: ask for 127.0.0.1 or localhost`
  // By the header itself: whether it becomes a WebSocket is settled only after this hook.
  const changes = upgrade !== undefined || !['GET', 'HEAD', 'OPTIONS'].includes(request.method)
  if (!changes || origin === undefined) return undefined
  return origin === `http://${host}` || origin === `https://${host}`
    ? undefined
    : `Origin "${origin}" is another site than ${host}`
}

export const guard = async (request: FastifyRequest, _reply: FastifyReply): Promise<void> => {
  const because = refuseRequest(request)
  if (because !== undefined) throw fault('request_refused', { because })
}
