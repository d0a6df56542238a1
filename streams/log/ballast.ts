// A file that holds disk space, so that there is some to give when the disk is full.

import { closeSync, existsSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs'
import type { Ballast } from './commit.ts'

/** LMDB needs a few fresh pages for each transaction, also for a delete: 4 MB carries hundreds. */
export const BALLAST_BYTES = 4 * 1024 * 1024

export const noBallast: Ballast = { release: () => undefined, restore: () => undefined }

export const fileBallast = (file: string): Ballast => {
  let held = existsSync(file)
  return {
    release: () => {
      removeQuietly(file)
      held = false
    },
    restore: freeBytes => {
      if (held || freeBytes < 2 * BALLAST_BYTES) return
      held = writeBallast(file)
    },
  }
}

/** Real blocks: a sparse file would hold nothing. */
const writeBallast = (file: string): boolean => {
  try {
    const descriptor = openSync(file, 'w', 0o600)
    try {
      for (let left = BALLAST_BYTES; left > 0; )
        left -= writeSync(descriptor, Buffer.alloc(Math.min(left, 256 * 1024), 0x42))
      fsyncSync(descriptor)
      return true
    } finally {
      closeSync(descriptor)
    }
  } catch {
    // Somebody else took the space in between: it is tried again.
    removeQuietly(file)
    return false
  }
}

/** On a file system that became read-only nothing can be given back; what follows fails with a reason of its own. */
const removeQuietly = (file: string): void => {
  try {
    rmSync(file, { force: true })
  } catch {
    return
  }
}
