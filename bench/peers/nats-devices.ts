// Devices of a NATS leaf: as the MQTT generator, with JetStream's acknowledgement in place of PUBACK.

import { type Produced, senmlPayload } from '../harness/generator.ts'
import { connectNats, publishLine } from './nats-wire.ts'
import { type Batch, CONNECTIONS, WINDOW } from './peer.ts'

/** A stream acknowledges the messages of one connection in their order. */
export const produceNats = async (port: number, batch: Batch): Promise<Produced> => {
  const { records, firstProducer, onProgress } = batch
  const latenciesMs: number[] = []
  let total = 0
  const onAcked = (): void => {
    total += 1
    if (total % 10_000 === 0) onProgress?.(total)
  }
  const startedMs = performance.now()
  const acknowledged = await Promise.all(
    Array.from({ length: CONNECTIONS }, (_, index) => {
      const count = Math.floor(records / CONNECTIONS) + (index < records % CONNECTIONS ? 1 : 0)
      return produceOne(port, firstProducer + index, count, latenciesMs, onAcked)
    }),
  )
  return { acknowledged, elapsedMs: performance.now() - startedMs, latenciesMs }
}

const produceOne = async (
  port: number,
  producer: number,
  count: number,
  latenciesMs: number[],
  onAcked: () => void,
): Promise<number> => {
  if (count === 0) return 0
  const inbox = `_INBOX.d${producer}`
  const sentAtMs = new Map<number, number>()
  let sent = 0
  let acked = 0
  let finish: () => void = () => undefined
  let fail: (cause: Error) => void = () => undefined
  const finished = new Promise<void>((resolve, reject) => {
    finish = resolve
    fail = reject
  })
  let planned = false
  const send = (): void => {
    planned = false
    const lines: Buffer[] = []
    while (sent < count && sent - acked < WINDOW) {
      if (sent % 100 === 0) sentAtMs.set(sent, performance.now())
      lines.push(publishLine(`bench.${producer}`, `${inbox} `, senmlPayload(producer, sent)))
      sent += 1
    }
    if (lines.length > 0) socket.write(Buffer.concat(lines))
  }
  const socket = await connectNats(
    port,
    ({ bytes, at, end }) => {
      // {"stream":…,"seq":…}, or {"error":…}
      if (bytes.toString('latin1', at, at + 9) !== '{"stream"')
        return fail(new Error(bytes.toString('utf8', at, end)))
      const sentMs = sentAtMs.get(acked)
      if (sentMs !== undefined) {
        latenciesMs.push(performance.now() - sentMs)
        sentAtMs.delete(acked)
      }
      acked += 1
      onAcked()
      if (acked === count) return finish()
      // Once for each chunk of acknowledgements, as the MQTT generator.
      if (!planned) queueMicrotask(send)
      planned = true
    },
    cause => fail(cause),
  )
  try {
    socket.write(`SUB ${inbox} acks\r\n`)
    send()
    await finished
    return acked
  } finally {
    socket.close()
  }
}
