// Who may connect on the north side and what they may do: listen to channels, and nothing else for now.

import { createHash, timingSafeEqual } from 'node:crypto'
import { of } from 'rxjs'
import { isFilter } from '../../schemas/topics.ts'
import type { BrokerRules, Verdict } from '../../streams/mqtt/broker.ts'
import type { Interest } from './interest.ts'

/** User name → token. Undefined: nobody needs one, which is for loopback only. */
export type NorthUsers = Readonly<Record<string, string>> | undefined

const digest = (text: string | Buffer): Buffer => createHash('sha256').update(text).digest()
/** Compared with when there is no such user, so that both take the same time. */
const NOBODY = digest('')

const verdictFor = (
  users: NorthUsers,
  username: string | undefined,
  password: Buffer | undefined,
): Verdict => {
  if (users === undefined) return { kind: 'allow' }
  const token = username !== undefined && Object.hasOwn(users, username) ? users[username] : undefined
  const matches = timingSafeEqual(
    token === undefined ? NOBODY : digest(token),
    digest(password ?? Buffer.of(0)),
  )
  if (matches && token !== undefined && token !== '') return { kind: 'allow' }
  return { kind: 'refuse', code: 'credentials', because: 'no such user, or the wrong token' }
}

export const northRules = (users: NorthUsers, interest: Interest): BrokerRules => ({
  routing: 'consume',
  connect: (peer, password) => of(verdictFor(users, peer.username, password)),
  refusePublish: () => 'the north side does not take messages yet: use the API',
  refuseSubscribe: (peer, filter) => {
    if (!isFilter(filter) || filter.startsWith('$')) return 'not a filter for channels'
    interest.subscribed(peer.clientId, filter)
    return undefined
  },
  take: (_, done) => done(new Error('refused')),
})
