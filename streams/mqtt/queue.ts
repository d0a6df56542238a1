// What waits for one client that keeps its session: in order, within limits, with the packet ids it was sent under.
//
//   planned   a message has its place before it is durable, and is sent only when it was kept
//   once      on one connection a message is sent once, by `drain` or live, never by both
//   in order  until `drain` has come to the end, what arrives waits behind it

import type { AedesClient } from './aedes.ts'
import { bytesOf, type QueuedMessage, type RetainedMessage } from './session.ts'

export interface Item {
  readonly clientId: string
  readonly sequence: number
  readonly topic: string
  readonly qos: RetainedMessage['qos']
  readonly payload: Buffer
  messageId: number | undefined
  isReleased: boolean
  isKept: boolean
  /** The number under which aedes routes it to who is connected. */
  routedAs: number | undefined
  sentTo: AedesClient | undefined
  /** `drain` went past it when it was not kept yet. */
  passedBy: AedesClient | undefined
  onSent: (() => void) | undefined
}

export interface Queue {
  add(item: Item): void
  remove(item: Item): void
  route(item: Item, number: number): void
  routed(number: number): Item | undefined
  sequenced(sequence: number): Item | undefined
  sentAs(messageId: number): Item | undefined
  /** Gives it its packet id; `fresh` draws one that nothing else waits under. */
  identify(item: Item, first: number, fresh: () => number): number
  /** Sent live: everything older was sent on this connection. */
  isLive(client: AedesClient): boolean
  setLive(client: AedesClient): void
  drain(client: AedesClient): AsyncGenerator<Item>
  items(): IterableIterator<Item>
  size(): number
  bytes(): number
}

export const newItem = (message: QueuedMessage, isKept: boolean): Item => ({
  ...message,
  isKept,
  routedAs: undefined,
  sentTo: undefined,
  passedBy: undefined,
  onSent: undefined,
})

export const openQueue = (): Queue => {
  const items = new Map<number, Item>()
  const byRoute = new Map<number, Item>()
  const byId = new Map<number, Item>()
  let bytes = 0
  let live: AedesClient | undefined

  async function* drain(client: AedesClient): AsyncGenerator<Item> {
    // A Map's iterator also comes to what is added meanwhile.
    for (const item of items.values()) {
      if (!item.isKept) item.passedBy = client
      else if (item.sentTo !== client) {
        const sent = new Promise<void>(resolve => {
          item.onSent = resolve
        })
        yield item
        await sent
      }
    }
    live = client
  }

  return {
    add: item => {
      items.set(item.sequence, item)
      bytes += bytesOf(item)
      if (item.messageId !== undefined) byId.set(item.messageId, item)
    },
    remove: item => {
      if (!items.delete(item.sequence)) return
      bytes -= bytesOf(item)
      if (item.routedAs !== undefined) byRoute.delete(item.routedAs)
      if (item.messageId !== undefined) byId.delete(item.messageId)
      item.onSent?.()
    },
    route: (item, number) => {
      if (!items.has(item.sequence)) return
      item.routedAs = number
      byRoute.set(number, item)
    },
    routed: number => byRoute.get(number),
    sequenced: sequence => items.get(sequence),
    sentAs: messageId => byId.get(messageId),
    identify: (item, first, fresh) => {
      if (item.messageId !== undefined) return item.messageId
      let id = first
      while (byId.has(id)) id = fresh()
      item.messageId = id
      byId.set(id, item)
      return id
    },
    isLive: client => live === client,
    setLive: client => {
      live = client
    },
    drain,
    items: () => items.values(),
    size: () => items.size,
    bytes: () => bytes,
  }
}
