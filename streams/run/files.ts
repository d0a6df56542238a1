// Small files that must be whole or absent: written beside their place, synced, renamed, folder synced.

import {
  chmodSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fault, reasonOf } from './fault.ts'

export const MODE_PRIVATE = 0o600
export const MODE_PUBLIC = 0o644

/** Makes `folder` for this user alone. Throws folder_unwritable. */
export const makePrivateFolder = (folder: string): void =>
  guarded(folder, () => {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    chmodSync(folder, 0o700)
  })

/** Durable when it returns; a crash leaves the old file or the new one. Throws folder_unwritable. */
export const writeWhole = (file: string, bytes: string | Buffer, mode: number): void =>
  guarded(dirname(file), () => {
    const temporary = `${file}.new`
    rmSync(temporary, { force: true })
    const handle = openSync(temporary, 'wx', mode)
    try {
      const whole = Buffer.from(bytes)
      for (let at = 0; at < whole.length; ) at += writeSync(handle, whole, at)
      fsyncSync(handle)
    } finally {
      closeSync(handle)
    }
    renameSync(temporary, file)
    syncFolder(dirname(file))
  })

const syncFolder = (folder: string): void => {
  const handle = openSync(folder, 'r')
  try {
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

export interface Wanted {
  readonly folder: string
  readonly name: string
  /** What makes such a file. */
  readonly mend: string
}

/** Throws identity_missing, or identity_invalid if it is there and cannot be read. */
export const readWanted = ({ folder, name, mend }: Wanted): Buffer => {
  const file = join(folder, name)
  try {
    return readFileSync(file)
  } catch (thrown) {
    if (codeOf(thrown) === 'ENOENT') throw fault('identity_missing', { folder, file, mend }, thrown)
    throw fault(
      'identity_invalid',
      { file, because: `it cannot be read (${reasonOf(thrown)}): give this user the right to read it` },
      thrown,
    )
  }
}

export const fileExists = (file: string): boolean => statSync(file, { throwIfNoEntry: false }) !== undefined

/** Undefined when there is no such file. Throws identity_invalid if it is there and cannot be read. */
export const readIfThere = (file: string): string | undefined => {
  try {
    return readFileSync(file, 'utf8')
  } catch (thrown) {
    // A file in the folder's place: what writes there will name it.
    if (codeOf(thrown) === 'ENOENT' || codeOf(thrown) === 'ENOTDIR') return undefined
    throw fault(
      'identity_invalid',
      { file, because: `it cannot be read (${reasonOf(thrown)}): give this user the right to read it` },
      thrown,
    )
  }
}

/** Forgets files; those that are gone already are no fault. */
export const removeFiles = (files: readonly string[]): void => {
  for (const file of files) guarded(dirname(file), () => rmSync(file, { force: true }))
}

/** A sentence if others may read the file. */
export const modeWarning = (file: string): string | undefined => {
  const mode = statSync(file).mode & 0o777
  return (mode & 0o077) === 0
    ? undefined
    : `${file} has mode ${mode.toString(8)}: others can read the key; run "chmod 600 ${file}"`
}

const codeOf = (thrown: unknown): unknown =>
  thrown instanceof Error && 'code' in thrown ? thrown.code : undefined

const guarded = (folder: string, action: () => void): void => {
  try {
    action()
  } catch (thrown) {
    // Anything that the file system says has a code; the rest is a defect.
    if (codeOf(thrown) === undefined) throw thrown
    throw fault('folder_unwritable', { folder, because: reasonOf(thrown) }, thrown)
  }
}
