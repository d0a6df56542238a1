// The embedded broker's limits. Each outcome at a limit is a state or a counter of the broker.

import { TOPIC_LEVELS_MAX } from '../../schemas/topics.ts'
import { ADMISSION_LIMITS, type AdmissionLimits } from './admission.ts'
import { LANE_LIMITS, type LaneLimits } from './scheduler.ts'
import { SESSION_LIMITS, type SessionLimits } from './session.ts'

export interface BrokerLimits {
  readonly connectionsMax: number
  readonly packetBytesMax: number
  readonly topicLevelsMax: number
  /** From the connection (for TLS: the end of its handshake) to the CONNACK. */
  readonly unauthenticatedMsMax: number
  /** For one client. */
  readonly subscriptionsMax: number
  /** Names in a store's keys are made of them, and LMDB's keys end at 1,978 bytes. */
  readonly clientIdBytesMax: number
  readonly sessions: SessionLimits
  readonly admission: AdmissionLimits
  readonly lanes: LaneLimits
}

export const BROKER_LIMITS: BrokerLimits = {
  connectionsMax: 10_000,
  packetBytesMax: 2 * 1_024 * 1_024,
  topicLevelsMax: TOPIC_LEVELS_MAX,
  unauthenticatedMsMax: 10_000,
  subscriptionsMax: 100,
  clientIdBytesMax: 1_024,
  sessions: SESSION_LIMITS,
  admission: ADMISSION_LIMITS,
  lanes: LANE_LIMITS,
}
