// What the cloud's answer to a hello means for one stream. Decides, changes nothing.

import type { MarkStream } from '../../schemas/hello.ts'
import type { Chain, Offset } from '../../schemas/ids.ts'
import type { ChainAt, Position, StreamState } from '../../streams/log/log.ts'

export type Resumption =
  /** Everything after `after` has to be sent. */
  | { readonly kind: 'resume'; readonly after: Position }
  /** The cloud lacks what we have trimmed on its word: declare it, then go on behind it. */
  | { readonly kind: 'declare'; readonly first: Offset; readonly through: Position }
  /** The cloud holds another history under this epoch: our disk was restored, or lied. */
  | { readonly kind: 'fork'; readonly because: string }
  | { readonly kind: 'refuse'; readonly because: string }

export const reconcile = (
  state: StreamState,
  chainAt: (offset: Offset) => ChainAt,
  mark: MarkStream,
): Resumption => {
  if (mark.epoch !== state.epoch)
    return { kind: 'refuse', because: `it is of epoch ${mark.epoch}, ours is ${state.epoch}` }
  if (mark.offset < state.origin.offset)
    return { kind: 'refuse', because: `the epoch begins behind ${state.origin.offset}` }
  const lastGone = (state.tail - 1) as Offset
  if (mark.offset < lastGone) {
    return {
      kind: 'declare',
      first: (mark.offset + 1) as Offset,
      through: { offset: lastGone, chain: knownChain(chainAt(lastGone)) },
    }
  }
  const ours = chainAt(mark.offset)
  switch (ours.kind) {
    case 'known':
      return ours.chain === mark.chain
        ? { kind: 'resume', after: { offset: mark.offset, chain: mark.chain } }
        : { kind: 'fork', because: `chains differ at ${mark.offset}` }
    case 'gone':
      return { kind: 'resume', after: { offset: mark.offset, chain: mark.chain } }
    case 'inside':
      return { kind: 'fork', because: `the cloud's frames end at ${mark.offset}, ours do not` }
    case 'beyond':
      return { kind: 'fork', because: `the cloud has ${mark.offset}, our log ends at ${state.head}` }
  }
}

/** The trimmed part's chain is kept with the stream. */
const knownChain = (at: ChainAt): Chain => {
  if (at.kind === 'known') return at.chain
  throw new Error(`the chain before the tail is ${at.kind}`)
}
