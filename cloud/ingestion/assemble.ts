// Puts the parts of a large frame together again: one frame at a time for each stream, never more than its length.

import type { Bundle, Part } from '../../schemas/bundle.ts'

export interface Assembler {
  /** The frames that this message completes. A part out of place drops what was begun: the sender goes back. */
  add(bundle: Bundle): readonly Buffer[]
}

export const openAssembler = (): Assembler => {
  let begun: { readonly first: number; readonly bytes: Buffer; filled: number } | undefined
  const addPart = ({ first, total, position, bytes }: Part): readonly Buffer[] => {
    if (position === 0) begun = { first, bytes: Buffer.allocUnsafe(total), filled: 0 }
    if (
      begun === undefined ||
      begun.first !== first ||
      begun.bytes.length !== total ||
      begun.filled !== position
    ) {
      begun = undefined
      return []
    }
    begun.bytes.set(bytes, position)
    begun.filled += bytes.length
    if (begun.filled < total) return []
    const whole = begun.bytes
    begun = undefined
    return [whole]
  }
  return {
    add: bundle => {
      if (bundle.kind === 'part') return addPart(bundle.part)
      begun = undefined
      return bundle.frames
    },
  }
}
