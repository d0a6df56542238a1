// Decides what goes to a socket next: the only caller of a connection's write, at either end.
//
//   strict     a lane is served only while those before it are empty or held
//   shallow    what is written cannot be overtaken, so bulk waits here until the socket holds little
//   bounded    each lane holds at most its limit of bytes; beyond, `offer` says no and counts it

import { LANES, type Lane } from './link.ts'

export interface LaneLimits {
  /** Bytes that may wait for the socket, per lane. */
  readonly queuedBytesMax: Readonly<Record<Lane, number>>
  /**
   * A lane is served only while the socket holds at most this. 64 KB keeps a fast link busy between two `drain`
   * events; the quick lanes go at once unless the peer has stopped reading. Never below the socket's
   * highWaterMark: without a full socket there is no `drain`.
   */
  readonly socketBytesMax: Readonly<Record<Lane, number>>
}

const KB = 1_024
export const LANE_LIMITS: LaneLimits = {
  queuedBytesMax: { interactive: 1_024 * KB, live: 4_096 * KB, bulk: 4_096 * KB, backlog: 4_096 * KB },
  socketBytesMax: { interactive: 1_024 * KB, live: 256 * KB, bulk: 64 * KB, backlog: 64 * KB },
}

export interface LaneStats {
  readonly queuedBytes: Readonly<Record<Lane, number>>
  readonly queuedMessages: Readonly<Record<Lane, number>>
  readonly writtenMessages: Readonly<Record<Lane, number>>
  /** Times that a lane was full. */
  readonly refusedMessages: Readonly<Record<Lane, number>>
}

export interface Lanes<T> {
  /** Writes now or queues. False: the lane is full and nothing was kept. */
  offer(lane: Lane, bytes: number, message: T): boolean
  /** Forgets a message that is still queued. */
  withdraw(lane: Lane, message: T): void
  /** The socket has room again. */
  resume(): void
  /** Empties every lane; nothing is written from then on. */
  close(): T[]
  stats(): LaneStats
}

interface Queued<T> {
  readonly bytes: number
  readonly message: T
}

const perLane = (): Record<Lane, number> => ({ interactive: 0, live: 0, bulk: 0, backlog: 0 })

export const laneScheduler = <T>(
  socket: { readonly write: (message: T) => void; readonly writableLength: () => number },
  limits: LaneLimits = LANE_LIMITS,
): Lanes<T> => {
  const queues: Record<Lane, Queued<T>[]> = { interactive: [], live: [], bulk: [], backlog: [] }
  const queuedBytes = perLane()
  const written = perLane()
  const refused = perLane()
  let pumping = false
  let closed = false

  const next = (): T | undefined => {
    const held = socket.writableLength()
    for (const lane of LANES) {
      if (held > limits.socketBytesMax[lane]) continue
      const first = queues[lane].shift()
      if (first === undefined) continue
      queuedBytes[lane] -= first.bytes
      written[lane] += 1
      return first.message
    }
    return undefined
  }
  const pump = () => {
    if (pumping) return // A write completed a publisher, which offered its next message from inside.
    pumping = true
    try {
      for (let message = next(); message !== undefined && !closed; message = next()) socket.write(message)
    } finally {
      pumping = false
    }
  }

  return {
    offer: (lane, bytes, message) => {
      // An empty lane takes any one message: a limit below a message's size must not block it for ever.
      const full = queues[lane].length > 0 && queuedBytes[lane] + bytes > limits.queuedBytesMax[lane]
      if (closed || full) {
        refused[lane] += 1
        return false
      }
      queues[lane].push({ bytes, message })
      queuedBytes[lane] += bytes
      pump()
      return true
    },
    withdraw: (lane, message) => {
      const at = queues[lane].findIndex(queued => queued.message === message)
      const [gone] = at < 0 ? [] : queues[lane].splice(at, 1)
      queuedBytes[lane] -= gone?.bytes ?? 0
    },
    resume: pump,
    close: () => {
      closed = true
      return LANES.flatMap(lane => {
        queuedBytes[lane] = 0
        return queues[lane].splice(0).map(queued => queued.message)
      })
    },
    stats: () => ({
      queuedBytes: { ...queuedBytes },
      queuedMessages: {
        interactive: queues.interactive.length,
        live: queues.live.length,
        bulk: queues.bulk.length,
        backlog: queues.backlog.length,
      },
      writtenMessages: { ...written },
      refusedMessages: { ...refused },
    }),
  }
}
