// Small writes of one turn as one: mqtt-packet writes a PUBACK as three buffers, and each of them costs a stream more
// than its bytes do. Order stays: a larger write goes behind what was gathered before it.

import type { Socket } from 'node:net'

/** Larger ones cost more to copy than to write. */
const SMALL_BYTES_MAX = 64
/** A thousand PUBACKs. */
const GATHERED_BYTES_MAX = 4_096

/** From now on. What is gathered is written in a microtask, or before the socket ends. */
export const gatherWrites = (socket: Socket): void => {
  const write = socket.write.bind(socket)
  const end = socket.end.bind(socket)
  let gathered: Buffer[] = []
  let bytes = 0
  const flush = (): void => {
    const [first] = gathered
    if (first === undefined) return
    const chunk = gathered.length === 1 ? first : Buffer.concat(gathered, bytes)
    gathered = []
    bytes = 0
    write(chunk)
  }
  const gather = (chunk: Buffer): boolean => {
    if (gathered.length === 0) queueMicrotask(flush)
    gathered.push(chunk)
    bytes += chunk.length
    if (bytes >= GATHERED_BYTES_MAX) flush()
    return !socket.writableNeedDrain
  }
  Object.assign(socket, {
    write: (...args: Parameters<typeof write>): boolean => {
      const [chunk] = args
      if (args.length === 1 && Buffer.isBuffer(chunk) && chunk.length <= SMALL_BYTES_MAX && socket.writable)
        return gather(chunk)
      flush()
      return write(...args)
    },
    end: (...args: Parameters<typeof end>): Socket => {
      flush()
      return end(...args)
    },
  })
}
