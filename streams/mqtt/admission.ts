// The gate in front of TLS: a handshake costs a millisecond of CPU, so only a few run at a time, and a connection
// gets its turn only once its whole ClientHello is here.
//
//   no hostage   a peer that says nothing, or only half a hello, holds no slot
//   no corpse    a socket that ended while it waited is skipped
//   fair         at most a quarter of the slots for one address
//   bounded      the waiting list drops the oldest silent peer first; every refusal is counted

import type { Socket } from 'node:net'
import type { Subscription } from 'rxjs'
import type { Clock } from '../run/clock.ts'

export interface AdmissionLimits {
  readonly slotsMax: number
  readonly slotsPerAddressMax: number
  /** All that are ready are handled in one turn of the event loop, and everything else waits for its end. */
  readonly startsPerTurnMax: number
  readonly handshakeMsMax: number
  readonly helloWaitMsMax: number
  readonly waitingMax: number
  /** A peer that got no slot for so long has given up anyway. */
  readonly turnWaitMsMax: number
}

/** 32 at once leave no processor without one to go on with while gateways compute theirs, also if some peers hang. */
export const ADMISSION_LIMITS: AdmissionLimits = {
  slotsMax: 32,
  slotsPerAddressMax: 4,
  startsPerTurnMax: 6,
  handshakeMsMax: 5_000,
  helloWaitMsMax: 10_000,
  waitingMax: 4_096,
  turnWaitMsMax: 30_000,
}

export interface AdmissionStats {
  readonly waiting: number
  readonly handshakes: number
  readonly admitted: number
  readonly refused: Readonly<Record<AdmissionRefusal, number>>
}

export type AdmissionRefusal =
  | 'silent'
  | 'not_tls'
  | 'list_full'
  | 'turn_too_late'
  | 'handshake_too_slow'
  | 'ended'

export interface Admission {
  /** A socket that was accepted paused. */
  enter(socket: Socket): void
  /** The handshake of this socket is over. Closing it says so too. */
  release(socket: Socket): void
  close(): void
  stats(): AdmissionStats
}

/** First byte of a TLS handshake record; a record's header is 5 bytes and its body at most 2^14. */
const HANDSHAKE_RECORD = 22
const RECORD_HEADER_BYTES = 5
const HELLO_BYTES_MAX = RECORD_HEADER_BYTES + 2 ** 14

interface Waiting {
  readonly socket: Socket
  readonly address: string
  hello: Buffer
  isReady: boolean
  readonly leave: () => void
  limit: Subscription
}

export const admission = (
  clock: Clock,
  handlers: {
    readonly admit: (socket: Socket) => void
    readonly refused: (address: string, because: AdmissionRefusal) => void
  },
  limits: AdmissionLimits = ADMISSION_LIMITS,
): Admission => {
  const waiting = new Set<Waiting>()
  const handshakes = new Map<Socket, { readonly address: string; readonly limit: Subscription }>()
  const perAddress = new Map<string, number>()
  const refused: Record<AdmissionRefusal, number> = {
    silent: 0,
    not_tls: 0,
    list_full: 0,
    turn_too_late: 0,
    handshake_too_slow: 0,
    ended: 0,
  }
  let admitted = 0
  let turn: Subscription | undefined

  const refuse = (one: { readonly socket: Socket; readonly address: string }, because: AdmissionRefusal) => {
    refused[because] += 1
    one.socket.destroy()
    handlers.refused(one.address, because)
  }
  const drop = (one: Waiting, because: AdmissionRefusal) => {
    one.leave()
    refuse(one, because)
  }
  const after = (waitMs: number, act: () => void) => clock.scheduler.schedule(act, waitMs)

  let starts = 0
  const nextTurn = () => {
    starts = 0
    admitNext()
  }
  const admitNext = () => {
    for (const one of waiting) {
      if (handshakes.size >= limits.slotsMax || starts >= limits.startsPerTurnMax) return
      if (!one.isReady || (perAddress.get(one.address) ?? 0) >= limits.slotsPerAddressMax) continue
      one.leave()
      start(one)
    }
  }
  const start = ({ socket, address, hello }: Waiting) => {
    admitted += 1
    starts += 1
    if (starts === 1) turn = after(0, nextTurn)
    perAddress.set(address, (perAddress.get(address) ?? 0) + 1)
    const limit = after(limits.handshakeMsMax, () => {
      release(socket)
      refuse({ socket, address }, 'handshake_too_slow')
    })
    handshakes.set(socket, { address, limit })
    socket.once('close', () => release(socket))
    socket.unshift(hello) // The TLS layer reads what is buffered before it reads the socket.
    handlers.admit(socket)
  }
  const release = (socket: Socket) => {
    const held = handshakes.get(socket)
    if (held === undefined) return
    held.limit.unsubscribe()
    handshakes.delete(socket)
    const left = (perAddress.get(held.address) ?? 1) - 1
    if (left === 0) perAddress.delete(held.address)
    else perAddress.set(held.address, left)
    admitNext()
  }

  const take = (one: Waiting) => {
    for (let chunk = readChunk(one.socket); chunk !== undefined; chunk = readChunk(one.socket))
      one.hello = Buffer.concat([one.hello, chunk])
    const { hello } = one
    if (hello.length > 0 && hello[0] !== HANDSHAKE_RECORD) return drop(one, 'not_tls')
    if (hello.length > HELLO_BYTES_MAX) return drop(one, 'not_tls')
    if (one.isReady || hello.length < RECORD_HEADER_BYTES) return
    if (hello.length < RECORD_HEADER_BYTES + hello.readUInt16BE(3)) return
    one.isReady = true
    one.limit.unsubscribe()
    one.limit = after(limits.turnWaitMsMax, () => drop(one, 'turn_too_late'))
    admitNext()
  }

  return {
    enter: socket => {
      if (waiting.size >= limits.waitingMax) {
        const oldestSilent = [...waiting].find(one => !one.isReady)
        if (oldestSilent === undefined) return refuse({ socket, address: addressOf(socket) }, 'list_full')
        drop(oldestSilent, 'list_full')
      }
      const onReadable = () => take(one)
      const onGone = () => drop(one, 'ended')
      const one: Waiting = {
        socket,
        address: addressOf(socket),
        hello: Buffer.alloc(0),
        isReady: false,
        leave: () => {
          waiting.delete(one)
          one.limit.unsubscribe()
          socket.off('readable', onReadable).off('end', onGone).off('close', onGone).off('error', onGone)
          socket.on('error', () => undefined)
        },
        limit: after(limits.helloWaitMsMax, () => drop(one, 'silent')),
      }
      waiting.add(one)
      socket.on('readable', onReadable).on('end', onGone).on('close', onGone).on('error', onGone)
    },
    release,
    close: () => {
      turn?.unsubscribe()
      for (const one of [...waiting]) {
        one.leave()
        one.socket.destroy()
      }
      for (const [socket, { limit }] of [...handshakes]) {
        limit.unsubscribe()
        handshakes.delete(socket)
        socket.destroy()
      }
      perAddress.clear()
    },
    stats: () => ({ waiting: waiting.size, handshakes: handshakes.size, admitted, refused: { ...refused } }),
  }
}

export const addressOf = (socket: Socket): string =>
  (socket.remoteAddress ?? 'unknown').replace(/^::ffff:/, '')

const readChunk = (socket: Socket): Buffer | undefined => {
  const chunk: unknown = socket.read()
  return Buffer.isBuffer(chunk) ? chunk : undefined
}
