// The rivals, and how ours compares with each.

import { rounded } from '../scenario.ts'
import { mosquitto } from './mosquitto.ts'
import { mqttjs } from './mqttjs.ts'
import { nats } from './nats.ts'
import type { Peer } from './peer.ts'

export const peers: readonly Peer[] = [mosquitto, nats, mqttjs]

/** Ours divided by theirs; a rival that is not installed has no ratio. */
export const ratiosOf = (
  ours: number,
  theirs: Readonly<Record<string, number | undefined>>,
): Record<string, number> =>
  Object.fromEntries(
    Object.entries(theirs).flatMap(([name, perSecond]) =>
      perSecond === undefined ? [] : [[name, rounded(ours / perSecond, 2)]],
    ),
  )
