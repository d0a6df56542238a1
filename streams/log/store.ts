// The port under every log: ordered tables in one file, changed by atomic, durable commits.
//
//   atomic   all writes of a commit are there after a crash, or none
//   durable  commit emits only after fdatasync
//   serial   one commit at a time: the caller waits for one before it starts the next
//   short    a scan is one short read transaction and returns copies

import type { Observable } from 'rxjs'

export interface Write {
  readonly table: string
  readonly key: Buffer
  /** Undefined removes the key. */
  readonly value: Buffer | undefined
}

export interface Scan {
  /** First key, inclusive; without it from the end that `reverse` starts from. */
  readonly from?: Buffer
  readonly limit: number
  /** Stops behind the row that reaches it: bounds what a page of large rows takes. */
  readonly bytesMax?: number
  readonly reverse?: boolean
}

export type Row = readonly [key: Buffer, value: Buffer]

export interface Store {
  readonly file: string
  /** Cold. Emits once when durable. Errors: disk_full, commit_failed (nothing written). */
  commit(writes: readonly Write[]): Observable<void>
  read(table: string, key: Buffer): Buffer | undefined
  scan(table: string, scan: Scan): Row[]
  /** Bytes the file occupies on disk. */
  allocatedBytes(): number
  /** Bytes of the pages that hold one table. */
  tableBytes(table: string): number
  /** Bytes that may still be written: what this user has left on the file's disk, and pages of the file that are free. */
  freeBytes(): number
  /** Waits for a commit in flight. */
  close(): Observable<void>
}

/** Offsets and sequence numbers as keys: six bytes, big-endian, so that byte order is number order. */
export const numberKey = (value: number): Buffer => {
  const key = Buffer.allocUnsafe(6)
  key.writeUIntBE(value, 0, 6)
  return key
}
export const keyNumber = (key: Buffer): number => key.readUIntBE(0, 6)
