// What goes back to gateways: marks with credit, and questions. No credit while the log cannot take frames.

import { encodeMark } from '../../schemas/hello.ts'
import type { GatewayId } from '../../schemas/ids.ts'
import type { Clock } from '../../streams/run/clock.ts'
import { isSettled, type Session } from './session.ts'

export interface AnswersPorts {
  readonly clock: Clock
  readonly creditOf: (gateway: GatewayId) => number
  readonly isBlocked: () => boolean
  readonly sendMark: (gateway: GatewayId, payload: Buffer) => void
  /** Asks one gateway for a hello. */
  readonly sendWho: (gateway: GatewayId) => void
}

export interface Answers {
  /** Not before the answer to a hello is due: when a commit that ran at its time has ended. */
  marks(session: Session): void
  ask(gateway: GatewayId): void
  forget(gateway: GatewayId): void
}

/** A gateway is asked for a hello at most this often. */
const WHO_MS_MIN = 1_000

export const openAnswers = ({ clock, creditOf, isBlocked, sendMark, sendWho }: AnswersPorts): Answers => {
  const askedAtMs = new Map<GatewayId, number>()
  return {
    marks: session => {
      const all = [...session.streams.values()]
      if (session.answers !== undefined && !all.every(isSettled)) return
      const answers = session.answers === undefined ? {} : { answers: session.answers }
      session.answers = undefined
      const streams = all.map(({ stream, epoch, durable }) => ({ name: stream, epoch, ...durable }))
      const creditBytes = isBlocked() ? 0 : creditOf(session.gateway)
      sendMark(session.gateway, encodeMark({ ...answers, streams, creditBytes }))
    },
    ask: gateway => {
      const nowMs = clock.monoMs()
      if (isBlocked() || nowMs - (askedAtMs.get(gateway) ?? Number.NEGATIVE_INFINITY) < WHO_MS_MIN) return
      askedAtMs.set(gateway, nowMs)
      sendWho(gateway)
    },
    forget: gateway => askedAtMs.delete(gateway),
  }
}
