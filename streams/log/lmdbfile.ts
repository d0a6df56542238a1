// What every file of LMDB's needs around lmdb-js: a look before it is opened, and words for what it throws.

import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { fault, reasonOf } from '../run/fault.ts'

/** Of LMDB's first meta page; where exactly depends on the width of pointers. */
const MAGIC = Buffer.from('dec0efbe', 'hex')
const MAGIC_WITHIN_BYTES = 32

/** lmdb 3.5.6 crashes the process on a file that is not its own. A file that is not there is fine. Errors: log_unreadable. */
export const requireLmdbFile = (file: string): void => {
  if (statSync(file, { throwIfNoEntry: false }) === undefined) return
  const head = Buffer.alloc(MAGIC_WITHIN_BYTES)
  const handle = openSync(file, 'r')
  try {
    const bytes = readSync(handle, head)
    if (bytes > 0 && !head.includes(MAGIC))
      throw fault('log_unreadable', { file, because: 'it is not an LMDB file' })
  } finally {
    closeSync(handle)
  }
}

/** ENOSPC, and the EIO that LMDB makes of the short write that a full disk gives it first. */
const DISK_FULL_CODES: readonly unknown[] = [28, 5, 'ENOSPC', 'EIO']

export const isDiskFull = (thrown: unknown): boolean =>
  thrown instanceof Error && 'code' in thrown && DISK_FULL_CODES.includes(thrown.code)

/** disk_full or commit_failed, from what a write rejected with. */
export const commitFault = (file: string, thrown: unknown): Error => {
  if (isDiskFull(thrown)) return fault('disk_full', { file }, thrown)
  return fault('commit_failed', { file, because: reasonOf(thrown) }, thrown)
}

/** lmdb-js hides the reason behind `commitError`; left alone, that promise would end the process. */
export const explainCommit = async (thrown: unknown): Promise<never> => {
  if (thrown instanceof Error && 'commitError' in thrown) await thrown.commitError
  throw thrown
}
