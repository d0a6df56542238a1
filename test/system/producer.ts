// A device that never gives up: QoS 1 over raw packets, a window, and after a lost connection everything again that
// was not acknowledged, in order, with DUP. It remembers what was open at each loss: only that may arrive twice.

import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connectRaw, publishPacket } from '../../bench/harness/generator.ts'

export interface Producer {
  /** Messages 0…n−1 were acknowledged. */
  acknowledged(): number
  /** Messages that were sent and open when a connection was lost. */
  readonly atRisk: ReadonlySet<number>
  /** Sends nothing new; resolves when everything sent is acknowledged. */
  finish(): Promise<void>
}

export interface ProducerOptions {
  readonly port: number
  readonly name: string
  readonly window: number
  /** Messages each `BEAT_MS`, if the window allows. */
  readonly perBeat: number
  readonly message: (sequence: number) => { readonly topic: string; readonly payload: Buffer }
}

const BEAT_MS = 5
const RECONNECT_MS = 50
const IDS = 65_535

export const openProducer = ({ port, name, window, perBeat, message }: ProducerOptions): Producer => {
  const atRisk = new Set<number>()
  let acked = 0
  let sent = 0
  let everSent = 0
  let finishing = false

  /** Resolves when the connection is gone, or all is done. */
  const serve = (socket: Socket): Promise<void> =>
    new Promise(resolve => {
      let rest: Buffer = Buffer.alloc(0)
      sent = acked
      const send = (): void => {
        const packets: Buffer[] = []
        for (
          let left = perBeat;
          left > 0 && sent - acked < window && (!finishing || sent < everSent);
          left--
        ) {
          const { topic, payload } = message(sent)
          packets.push(publishPacket(topic, payload, (sent % IDS) + 1, 1, sent < everSent))
          sent += 1
          everSent = Math.max(everSent, sent)
        }
        if (packets.length > 0) socket.write(Buffer.concat(packets))
        if (finishing && acked === everSent) socket.end()
      }
      const beat = setInterval(send, BEAT_MS)
      socket.on('data', (chunk: Buffer) => {
        const bytes = Buffer.concat([rest, chunk])
        let at = 0
        for (; at + 4 <= bytes.length; at += 4) {
          const id = bytes.readUInt16BE(at + 2)
          if (bytes[at] !== 0x40 || id !== (acked % IDS) + 1)
            throw new Error(`${name}: packet ${bytes[at]} ${id}, PUBACK ${(acked % IDS) + 1} is due`)
          acked += 1
        }
        rest = bytes.subarray(at)
      })
      socket.on('error', () => undefined)
      socket.on('close', () => {
        clearInterval(beat)
        for (let open = acked; open < sent; open++) atRisk.add(open)
        resolve()
      })
    })

  const work = async (): Promise<void> => {
    while (!finishing || acked < everSent) {
      const socket = await connectRaw(port, name).catch(() => undefined)
      if (socket === undefined) await sleep(RECONNECT_MS)
      else await serve(socket)
    }
  }
  const done = work()
  return {
    acknowledged: () => acked,
    atRisk,
    finish: () => {
      finishing = true
      return done
    },
  }
}
