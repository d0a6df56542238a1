// What one stream has sent and the cloud has not yet marked: frame by frame, since a mark may stand at any of them.

import type { Entry, Position } from '../../streams/log/log.ts'
import type { Sent } from './pace.ts'

interface Flying {
  readonly position: Position
  readonly sent: Sent
}

export type Landing =
  | {
      readonly kind: 'progress'
      readonly items: readonly Sent[]
      readonly bytes: number
      readonly at: Position
    }
  /** Cumulative marks repeat themselves. */
  | { readonly kind: 'stale' }
  | { readonly kind: 'refuse'; readonly because: string }

export interface Flight {
  launch(entry: Entry, sent: Sent): void
  mark(position: Position): Landing
  bytes(): number
}

/** `start`: the mark that the cloud began with. */
export const openFlight = (start: Position): Flight => {
  let flying: Flying[] = []
  let marked = start
  let bytes = 0
  return {
    launch: ({ header }, sent) => {
      flying.push({ position: { offset: header.last, chain: header.chain }, sent })
      bytes += sent.bytes
    },
    mark: position => {
      if (position.offset < marked.offset) return { kind: 'stale' }
      if (position.offset === marked.offset) {
        return position.chain === marked.chain
          ? { kind: 'stale' }
          : { kind: 'refuse', because: 'its chain is not ours' }
      }
      const index = flying.findIndex(item => item.position.offset >= position.offset)
      const reached = flying[index]
      if (reached === undefined) return { kind: 'refuse', because: 'it is beyond what was sent' }
      if (reached.position.offset !== position.offset || reached.position.chain !== position.chain) {
        return { kind: 'refuse', because: 'its chain is not ours' }
      }
      const items = flying.slice(0, index + 1).map(item => item.sent)
      flying = flying.slice(index + 1)
      const landed = items.reduce((sum, item) => sum + item.bytes, 0)
      bytes -= landed
      marked = position
      return { kind: 'progress', items, bytes: landed, at: position }
    },
    bytes: () => bytes,
  }
}
