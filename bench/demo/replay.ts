// Devices on the local broker: each replays its rows at a steady pace, for ever, with QoS 1.
//
// A device sends its next row when the one before was acknowledged, which is after the gateway's disk has it. While the
// gateway is away it waits, and mqtt.js sends the messages in flight again.

import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'mqtt'
import { type Device, packOf } from './weather.ts'

export interface ReplayOptions {
  readonly host: string
  readonly port: number
  readonly devices: readonly Device[]
  /** Of all devices together. */
  readonly rowsPerSecond: number
}

export interface Replay {
  /** Rows that were acknowledged. */
  rows(): number
  /** Ends after the rows under way, at most STOP_MS_MAX later. */
  stop(): Promise<void>
}

const RECONNECT_MS = 500
/** A gateway that is there acknowledges within milliseconds; one that is not is not waited for. */
const STOP_MS_MAX = 1_000

export const replay = ({ host, port, devices, rowsPerSecond }: ReplayOptions): Replay => {
  const stopping = new AbortController()
  let rows = 0
  const everyMs = (1_000 * devices.length) / rowsPerSecond

  const play = async (device: Device, turn: number): Promise<void> => {
    const client = connect({
      host,
      port,
      protocol: 'mqtt',
      clientId: `demo-${device.name}`,
      reconnectPeriod: RECONNECT_MS,
    })
    // It tries again by itself; the status line says when the gateway is away.
    client.on('error', () => undefined)
    const row = async (index: number): Promise<void> => {
      const messages = device.rows[index % device.rows.length] ?? []
      await Promise.all(
        messages.map(message => client.publishAsync(message.topic, packOf(message, Date.now()), { qos: 1 })),
      )
      rows += 1
    }
    const startedMs = performance.now() + (turn * everyMs) / devices.length
    try {
      for (let index = 0; !stopping.signal.aborted; index++) {
        // By the clock and not by pauses: otherwise the time of each publish would slow the pace.
        await sleep(Math.max(0, startedMs + index * everyMs - performance.now()), undefined, {
          signal: stopping.signal,
        })
        await row(index)
      }
    } catch (thrown) {
      if (!stopping.signal.aborted) throw thrown
    } finally {
      await client.endAsync(true)
    }
  }

  const played = Promise.all(devices.map(play)).then(() => undefined)
  // Whoever stops it hears what went wrong; until then nobody listens.
  played.catch(() => undefined)
  return {
    rows: () => rows,
    stop: async () => {
      stopping.abort()
      await Promise.race([played, sleep(STOP_MS_MAX, undefined, { ref: false })])
    },
  }
}
