// Where every stream stands that the cloud ever marked, and what a hello means for that.

import type { CloudEvent } from '../../schemas/events.ts'
import type { HelloStream } from '../../schemas/hello.ts'
import { type Epoch, type GatewayId, ORIGIN, type StreamName } from '../../schemas/ids.ts'
import type { StoredMark } from '../../streams/log/cloudlog.ts'
import type { Position } from '../../streams/log/log.ts'

export interface Place {
  readonly gateway: GatewayId
  readonly stream: StreamName
  readonly epoch: Epoch
}

export const placeKey = ({ gateway, stream, epoch }: Place): string => `${gateway}\0${stream}\0${epoch}`

export interface Positions {
  /** Where to go on, and what of that is news. */
  resume(
    gateway: GatewayId,
    said: HelloStream,
  ): { readonly at: Position; readonly news: readonly CloudEvent[] }
  advance(place: Place, to: Position): void
}

export const openPositions = (stored: readonly StoredMark[]): Positions => {
  const marks = new Map<string, Position>(
    stored.map(({ offset, chain, ...place }) => [placeKey(place), { offset, chain }]),
  )
  const epochs = new Map(stored.map(({ gateway, stream, epoch }) => [`${gateway}\0${stream}`, epoch]))

  const began = (place: Place, { origin, parent }: HelloStream): CloudEvent[] => {
    const started: CloudEvent = {
      kind: 'epoch_began',
      ...place,
      origin: origin.offset,
      ...(parent === undefined ? {} : { parent }),
    }
    if (parent === undefined) return [started]
    // A parent that was never marked here: a cloud put back to before it holds nothing of it.
    const held = marks.get(placeKey({ ...place, epoch: parent }))?.offset ?? ORIGIN
    return [started, { kind: 'forked', ...place, parent, at: origin.offset, held }]
  }

  return {
    resume: (gateway, said) => {
      const { name: stream, epoch, origin, tail } = said
      const place = { gateway, stream, epoch }
      const known = marks.get(placeKey(place))
      const current = `${gateway}\0${stream}`
      const news = known === undefined && epochs.get(current) !== epoch ? began(place, said) : []
      epochs.set(current, epoch)
      const at = known ?? origin
      if (at.offset < tail - 1)
        news.push({ kind: 'mark_behind_tail', ...place, mark: at.offset, tail, chain: at.chain })
      return { at, news }
    },
    advance: (place, to) => marks.set(placeKey(place), to),
  }
}
