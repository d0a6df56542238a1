// A program's data folder: private, writable, and used by one process at a time.

import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { fault, reasonOf } from './fault.ts'

export interface ClaimedFolder {
  readonly folder: string
  /** At the end of the process; a killed one leaves the lock, and its number tells that it is gone. */
  release(): void
}

/**
 * Makes the folder (0700) and takes its lock. A process counts by number and start time, so that a number used again
 * is not mistaken. Errors: folder_unwritable, log_locked.
 */
export const claimFolder = (folder: string, pid: number): ClaimedFolder => {
  const file = join(folder, 'lock')
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
  } catch (thrown) {
    throw fault('folder_unwritable', { folder, because: reasonOf(thrown) }, thrown)
  }
  const mine = `${pid} ${startedAt(pid)}\n`
  for (const attempt of ['first', 'last'] as const) {
    if (tryTake(folder, file, mine)) return { folder, release: () => rmSync(file, { force: true }) }
    const holder = holderOf(file)
    if (holder !== undefined) throw fault('log_locked', { file: folder, pid: holder })
    // Nobody holds it: a process that was killed did.
    if (attempt === 'first') rmSync(file, { force: true })
  }
  throw fault('log_locked', { file: folder, pid: '?' })
}

const tryTake = (folder: string, file: string, mine: string): boolean => {
  try {
    const descriptor = openSync(file, 'wx', 0o600)
    writeSync(descriptor, mine)
    closeSync(descriptor)
    return true
  } catch (thrown) {
    if (thrown instanceof Error && 'code' in thrown && thrown.code === 'EEXIST') return false
    throw fault('folder_unwritable', { folder, because: reasonOf(thrown) }, thrown)
  }
}

/** The number of the live process that holds the lock. */
const holderOf = (file: string): number | undefined => {
  const [pid = '', started = ''] = readOr(file, '').trim().split(' ')
  return /^\d+$/.test(pid) && startedAt(Number(pid)) === started && started !== '' ? Number(pid) : undefined
}

/** Field 22 of /proc/<pid>/stat, behind a name that may hold spaces and brackets. */
const startedAt = (pid: number): string => {
  const fields = readOr(`/proc/${pid}/stat`, '').split(') ').at(-1)?.split(' ') ?? []
  // A zombie has ended: its parent has not yet asked how.
  return fields[0] === 'Z' ? '' : (fields[19] ?? '')
}

const readOr = (file: string, otherwise: string): string => {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return otherwise
  }
}
