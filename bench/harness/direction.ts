// One direction of a relay's link, for all of its connections: what waits for the rate, then what is on the line.
//
//   serial    with a rate, a segment leaves when the one before it has; connections take turns
//   bounded   what was read and does not fit into the queue waits in its connection, which is not read meanwhile
//   ordered   the line is one queue: nothing overtakes, and an end comes behind what was sent before it

import type { Socket } from 'node:net'
import type { Network } from './relay.ts'

export interface Direction {
  carry(from: Socket, to: Socket): void
  /** What it still sends, and its end, goes nowhere. */
  forget(from: Socket): void
  hold(on: boolean): void
  change(network: Network): void
  /** That left the link. */
  bytes(): number
  /** All connections, and what is on its way. */
  drop(): void
}

/** As a link with Ethernet's MTU carries them. */
const SEGMENT_BYTES = 1_448
const QUEUE_MS = 150
/** Of one connection, on the line or not taken by its receiver: a longer line than any test has. */
const HELD_BYTES_MAX = 4 * 1024 * 1024

interface Carried {
  readonly from: Socket
  readonly to: Socket
  /** Read, and not yet in the queue. */
  rest: Item[]
  /** In the queue or on the line. */
  onWay: number
}

/** Bytes, or how the connection ends behind them. */
type Item = Buffer | 'end' | 'gone'

interface OnLine {
  readonly carried: Carried
  readonly item: Item
  readonly atMs: number
}

export const openDirection = (initial: Network): Direction => {
  let network = initial
  const carrying = new Set<Carried>()
  let line: OnLine[] = []
  /** When all that is in the queue has left. */
  let freeAtMs = 0
  let lastAtMs = 0
  let held = false
  let left = 0
  let timer: NodeJS.Timeout | undefined
  let working = false

  const queueBytes = ({ rate, queueBytes: given }: Network): number =>
    given ?? (rate === undefined ? Number.POSITIVE_INFINITY : (rate * QUEUE_MS) / 1_000)
  const queuedBytes = (nowMs: number): number =>
    network.rate === undefined ? 0 : Math.max(0, ((freeAtMs - nowMs) / 1_000) * network.rate)

  /** Nothing is in the way: the usual case costs no turn of the queue. */
  const isOpen = (): boolean =>
    !held && network.rate === undefined && (network.delayMs ?? 0) === 0 && line.length === 0

  const enter = (carried: Carried, item: Item, nowMs: number): void => {
    const { rate, delayMs = 0 } = network
    freeAtMs = Math.max(freeAtMs, nowMs)
    if (rate !== undefined && Buffer.isBuffer(item)) freeAtMs += (item.length / rate) * 1_000
    lastAtMs = Math.max(lastAtMs, freeAtMs + delayMs)
    if (Buffer.isBuffer(item)) carried.onWay += item.length
    line.push({ carried, item, atMs: lastAtMs })
  }

  /** The next piece of what a connection has, as large as one turn may be. */
  const pieceOf = ({ rest }: Carried): Item | undefined => {
    const [first] = rest
    if (first === undefined || !Buffer.isBuffer(first)) return rest.shift()
    if (network.rate === undefined || first.length <= SEGMENT_BYTES) return rest.shift()
    rest[0] = first.subarray(SEGMENT_BYTES)
    return first.subarray(0, SEGMENT_BYTES)
  }

  const fill = (nowMs: number): void => {
    const roomBytes = queueBytes(network)
    // Who had a turn goes to the end, and is come to again as long as there is room.
    for (const carried of carrying) {
      if (queuedBytes(nowMs) >= roomBytes) return
      const piece = pieceOf(carried)
      if (piece === undefined) continue
      carrying.delete(carried)
      carrying.add(carried)
      enter(carried, piece, nowMs)
    }
  }

  const deliver = (nowMs: number): void => {
    let due = 0
    for (; due < line.length; due++) {
      const next = line[due]
      if (next === undefined || next.atMs > nowMs) break
      const { carried, item } = next
      const { to } = carried
      if (item === 'end') to.end()
      else if (item === 'gone') {
        carrying.delete(carried)
        to.destroySoon()
      } else {
        carried.onWay -= item.length
        write(to, item)
      }
    }
    if (due > 0) line = line.slice(due)
  }
  const write = (to: Socket, bytes: Buffer): boolean => {
    left += bytes.length
    return to.destroyed || to.write(bytes)
  }

  const readOn = (): void => {
    for (const { from, to, rest, onWay } of carrying) {
      const isFull = rest.length > 0 || onWay + to.writableLength > HELD_BYTES_MAX
      if (isFull && !from.isPaused()) from.pause()
      if (!isFull && from.isPaused()) from.resume()
    }
  }

  const work = (): void => {
    if (working) return // A resumed socket may give its next chunk from inside.
    working = true
    clearTimeout(timer)
    timer = undefined
    const nowMs = performance.now()
    if (!held) {
      fill(nowMs)
      deliver(nowMs)
    }
    readOn()
    working = false
    if (held) return
    const waits: number[] = []
    const [next] = line
    if (next !== undefined) waits.push(next.atMs - nowMs)
    const isWaiting = [...carrying].some(({ rest }) => rest.length > 0)
    // The queue has room for a segment when it holds one less.
    if (isWaiting && network.rate !== undefined) waits.push((SEGMENT_BYTES / network.rate) * 1_000)
    if (waits.length > 0) timer = setTimeout(work, Math.max(0, Math.min(...waits)))
  }

  return {
    carry: (from, to) => {
      const carried: Carried = { from, to, rest: [], onWay: 0 }
      carrying.add(carried)
      const take = (item: Item): void => {
        if (!carrying.has(carried)) return
        if (Buffer.isBuffer(item) && isOpen() && carried.rest.length === 0) {
          if (!write(to, item)) from.pause()
          return
        }
        carried.rest.push(item)
        work()
      }
      from.on('data', take)
      from.on('end', () => take('end'))
      from.on('close', () => take('gone'))
      to.on('drain', () => {
        if (isOpen() && carried.rest.length === 0) from.resume()
        else work()
      })
    },
    forget: from => {
      for (const carried of carrying) if (carried.from === from) carrying.delete(carried)
      line = line.filter(({ carried }) => carried.from !== from)
    },
    hold: on => {
      held = on
      work()
    },
    change: changed => {
      network = { ...changed }
      work()
    },
    bytes: () => left,
    drop: () => {
      clearTimeout(timer)
      timer = undefined
      line = []
      carrying.clear()
      freeAtMs = 0
      lastAtMs = 0
    },
  }
}
