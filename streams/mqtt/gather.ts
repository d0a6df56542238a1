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
  let gathered = Buffer.allocUnsafe(GATHERED_BYTES_MAX)
  let bytes = 0
  const flush = (): void => {
    if (bytes === 0) return
    const chunk = gathered.subarray(0, bytes)
    gathered = Buffer.allocUnsafe(GATHERED_BYTES_MAX)
    bytes = 0
    write(chunk)
  }
  const gather = (chunk: Buffer): boolean => {
    if (bytes + chunk.length > GATHERED_BYTES_MAX) flush()
    if (bytes === 0) queueMicrotask(flush)
    chunk.copy(gathered, bytes)
    bytes += chunk.length
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
