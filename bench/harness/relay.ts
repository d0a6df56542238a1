// A TCP relay between a gateway and its cloud: cut, restore, count. When cut it refuses, as a closed port does.

import { connect, createServer, type Server, type Socket } from 'node:net'

export interface Relay {
  readonly port: number
  cut(): Promise<void>
  restore(): Promise<void>
  /** Bytes from the gateway, and to it. */
  readonly up: () => number
  readonly down: () => number
  close(): Promise<void>
}

export const openRelay = async (targetPort: number): Promise<Relay> => {
  const sockets = new Set<Socket>()
  let up = 0
  let down = 0
  let server: Server | undefined
  const serve = (socket: Socket): void => {
    const target = connect({ host: '127.0.0.1', port: targetPort, noDelay: true })
    socket.setNoDelay(true)
    for (const each of [socket, target]) {
      sockets.add(each)
      each.on('error', () => undefined)
      each.on('close', () => {
        sockets.delete(each)
        socket.destroy()
        target.destroy()
      })
    }
    socket.on('data', chunk => {
      up += chunk.length
    })
    target.on('data', chunk => {
      down += chunk.length
    })
    socket.pipe(target)
    target.pipe(socket)
  }
  const listen = (port: number): Promise<number> =>
    new Promise((resolve, reject) => {
      server = createServer(serve)
      server.once('error', reject)
      server.listen(port, '127.0.0.1', () => {
        const bound = server?.address()
        resolve(bound === null || bound === undefined || typeof bound === 'string' ? port : bound.port)
      })
    })
  const port = await listen(0)
  const cut = async (): Promise<void> => {
    const closing = server
    server = undefined
    for (const socket of sockets) socket.destroy()
    if (closing !== undefined) await new Promise(resolve => closing.close(resolve))
  }
  return {
    port,
    cut,
    restore: async () => {
      await listen(port)
    },
    up: () => up,
    down: () => down,
    close: cut,
  }
}
