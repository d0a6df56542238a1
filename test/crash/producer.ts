// A device that does what MQTT asks of one: QoS 1, at most WINDOW unacknowledged, and after each loss of the connection a
// new one, on which everything unacknowledged is sent again, in order, with DUP.

import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connectRaw, publishPacket } from '../../bench/harness/generator.ts'
import { type Ledger, openLedger, payloadOf, TOPIC_ROOT } from './ledger.ts'

export interface Producer {
  readonly ledger: Ledger
  readonly reconnects: () => number
  /** Begins nothing new; resolves when all that was sent is acknowledged. */
  finish(): Promise<void>
  /** Goes on after a finish. */
  resume(): void
  close(): void
}

const WINDOW = 200
/** A few at a time: the load is to be there at every moment, not to be as high as it can. */
const BURST = 20
const EVERY_MS = 10
const RECONNECT_MS = 20
const IDS = 65_535

export const openProducer = (port: number, producer: number): Producer => {
  const ledger = openLedger(producer)
  const closing = new AbortController()
  let paused = false
  let reconnects = -1

  const packet = (sequence: number, dup: boolean): Buffer => {
    ledger.sends[sequence] = (ledger.sends[sequence] ?? 0) + 1
    return publishPacket(
      `${TOPIC_ROOT}/${producer}/sequence`,
      payloadOf(producer, sequence),
      (sequence % IDS) + 1,
      1,
      dup,
    )
  }
  const unacknowledged = (): number => ledger.sends.length - ledger.acknowledged

  const talk = async (socket: Socket): Promise<void> => {
    const lost = new Promise<void>(resolve => socket.once('close', () => resolve()))
    let isLost = false
    void lost.then(() => {
      isLost = true
    })
    socket.on('error', () => undefined)
    socket.on('data', pubacks(ledger, socket))
    const again = Array.from({ length: unacknowledged() }, (_, i) => packet(ledger.acknowledged + i, true))
    if (again.length > 0) socket.write(Buffer.concat(again))
    while (!isLost && !closing.signal.aborted) {
      const room = paused ? 0 : Math.min(BURST, WINDOW - unacknowledged())
      if (room > 0)
        socket.write(Buffer.concat(Array.from({ length: room }, () => packet(ledger.sends.length, false))))
      await Promise.race([lost, sleep(EVERY_MS)])
    }
    socket.destroy()
  }

  const live = async (): Promise<void> => {
    while (!closing.signal.aborted) {
      const socket = await connectOrNot(port, `crash-${producer}`)
      if (socket !== undefined) {
        reconnects += 1
        await talk(socket)
      }
      await sleep(RECONNECT_MS)
    }
  }
  const lived = live()
  return {
    ledger,
    reconnects: () => reconnects,
    finish: async () => {
      paused = true
      while (unacknowledged() > 0) await Promise.race([sleep(EVERY_MS), lived])
    },
    resume: () => {
      paused = false
    },
    close: () => closing.abort(),
  }
}

/** Undefined while nobody listens, or whoever listened is killed before it answers. */
const connectOrNot = async (port: number, clientId: string): Promise<Socket | undefined> => {
  try {
    return await Promise.race([connectRaw(port, clientId), sleep(2_000, undefined)])
  } catch {
    return undefined
  }
}

/** Counts PUBACKs; one that is out of turn is noted for the auditor, and ends the connection. */
const pubacks = (ledger: Ledger, socket: Socket): ((chunk: Buffer) => void) => {
  let rest: Buffer = Buffer.alloc(0)
  return chunk => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    for (; at + 4 <= bytes.length; at += 4) {
      const expected = (ledger.acknowledged % IDS) + 1
      const id = bytes.readUInt16BE(at + 2)
      if (bytes[at] !== 0x40 || id !== expected) {
        ledger.wrong.push(
          `producer ${ledger.producer} got packet ${bytes[at]} with id ${id}, PUBACK ${expected} is next`,
        )
        return void socket.destroy()
      }
      ledger.acknowledged += 1
    }
    rest = bytes.subarray(at)
  }
}
