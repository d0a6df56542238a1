// Gateways at a closed port in virtual time: the edge's own link, whose waits cost nothing and whose connects are real.
//
// Virtual time stands still while a connect is on its way, so a try takes no virtual time: the waits alone set the pace.

import { type Subscription, VirtualTimeScheduler } from 'rxjs'
import { bootIdOf, type EpochMs } from '../../schemas/ids.ts'
import { openLink } from '../../streams/mqtt/client.ts'
import { type Clock, systemRandom } from '../../streams/run/clock.ts'

export interface Outage {
  readonly gateways: number
  readonly minutes: number
  /** Nothing listens there. */
  readonly port: number
  readonly onProgress: (done: number) => void
}

/** Of all gateways together; each try is one SYN. */
export interface Knocks {
  readonly gateways: number
  readonly perSecond: readonly number[]
  readonly perMinute: readonly number[]
}

/** They know nothing of each other; the scheduler sorts what is due at each step, so few at a time are faster. */
const GATEWAYS_AT_ONCE = 20
const CONNECT_MS_MAX = 10_000
const START_MS = Date.UTC(2026, 0, 1)

export const simulateOutage = async ({ gateways, minutes, port, onProgress }: Outage): Promise<Knocks> => {
  const perSecond = Array.from({ length: minutes * 60 }, () => 0)
  const tried = (atMs: number): void => {
    const second = Math.floor(atMs / 1_000)
    if (second < perSecond.length) perSecond[second] = (perSecond[second] ?? 0) + 1
  }
  for (let done = 0; done < gateways; done += GATEWAYS_AT_ONCE) {
    await world(Math.min(GATEWAYS_AT_ONCE, gateways - done), minutes * 60_000, port, tried)
    onProgress(Math.min(gateways, done + GATEWAYS_AT_ONCE))
  }
  const perMinute = Array.from({ length: minutes }, (_, minute) =>
    perSecond.slice(minute * 60, (minute + 1) * 60).reduce((total, count) => total + count, 0),
  )
  return { gateways, perSecond, perMinute }
}

const world = async (
  gateways: number,
  untilMs: number,
  port: number,
  tried: (atMs: number) => void,
): Promise<void> => {
  const scheduler = new VirtualTimeScheduler()
  const clock: Clock = {
    nowMs: () => (START_MS + scheduler.now()) as EpochMs,
    monoMs: () => scheduler.now(),
    bootId: bootIdOf(Buffer.alloc(8, 1)),
    quality: () => 'synchronised',
    scheduler,
  }
  let connecting = 0
  let settled: () => void = () => undefined
  const links: Subscription[] = []
  try {
    for (let gateway = 0; gateway < gateways; gateway++) {
      const link = openLink({
        address: { host: '127.0.0.1', port },
        tls: 'plain', // Never begun: a try is a bare TCP connect first.
        clientId: `gateway-${gateway}`,
        clock,
        random: systemRandom,
      })
      links.push(
        link.state$.subscribe(({ kind }) => {
          if (kind === 'up') throw new Error(`something listens on port ${port}`)
          if (kind === 'connecting') {
            tried(scheduler.now())
            connecting += 1
            return
          }
          connecting -= 1
          if (connecting === 0) settled()
        }),
      )
    }
    for (;;) {
      if (connecting > 0) await within(new Promise<void>(resolve => (settled = resolve)))
      const [next] = scheduler.actions
      if (next === undefined || next.delay > untilMs) return
      scheduler.maxFrames = next.delay
      scheduler.flush()
    }
  } finally {
    for (const link of links) link.unsubscribe()
  }
}

const within = async (done: Promise<void>): Promise<void> => {
  let limit: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    limit = setTimeout(
      () => reject(new Error(`a connect to a closed port took over ${CONNECT_MS_MAX} ms`)),
      CONNECT_MS_MAX,
    )
  })
  try {
    await Promise.race([done, late])
  } finally {
    clearTimeout(limit)
  }
}
