// Runs projections over the cloud's log and keeps their state on disk.
//
//   once     a state and its checkpoint are in one commit: whatever dies, every entry has effect exactly once
//   bounded  each lane holds at most `laneEntriesMax` entries; the log is read by credit
//   polite   work stops after `turnMsMax`, so that the thread can answer questions in between
//   alone    one commit at a time, and nobody else writes to the members' tables
//
// Members that stand at the same place share one reading of a class: a lane. One that starts anew gets lanes of its
// own, so that its catching up holds nobody back.

import { concat, defer, EMPTY, type Observable } from 'rxjs'
import type { CloudReader, LogClass } from '../log/cloudlog.ts'
import type { Store } from '../log/store.ts'
import type { Clock } from '../run/clock.ts'
import { clearTable, loadSnapshot, readCheckpoint, type Through } from './checkpoint.ts'
import type { Member } from './member.ts'
import { runLanes } from './run.ts'

export interface FoldOptions {
  readonly reader: CloudReader
  /** Not used before; their tables exist in `store`. */
  readonly members: readonly Member[]
  readonly store: Store
  readonly clock: Clock
  /** At the head: wait for more (default), or commit and complete. */
  readonly atHead?: 'follow' | 'complete'
  /** Longest time that an applied entry waits for its commit: what a restart repeats. 1 s. */
  readonly checkpointMs?: number
  /** Entries applied that start a commit early, so that catching up repeats little after a crash. 20,000. */
  readonly checkpointEntriesMax?: number
  /** Entries held per lane; the largest entry is 1.1 MB. 32. */
  readonly laneEntriesMax?: number
  /** How long one turn may keep the thread. 20 ms. */
  readonly turnMsMax?: number
}

export interface FoldState {
  /** loaded: snapshots are in memory, reading starts; committed: this much is on disk. */
  readonly kind: 'loaded' | 'committed'
  /** Per member. */
  readonly through: Readonly<Record<string, Through>>
  /** Keys held by all members. */
  readonly keys: number
  /** Entries that the log no longer had when this run started: their effect is missing. */
  readonly missed: number
}

/** One reading of a class for members that stand at the same place. */
export interface Lane {
  readonly class: LogClass
  readonly members: readonly Member[]
  through: number
}

/**
 * Follows the log with all members. Emits when loaded and after each commit.
 * Errors: those of the store (disk_full, commit_failed) and of the reader.
 */
export const fold = (options: FoldOptions): Observable<FoldState> =>
  defer(() => {
    const { reader, members, store } = options
    const fresh = members.filter(member => !standsInLog(reader, store, member))
    return concat(
      ...fresh.map(({ name }) => clearTable(store, name)),
      defer(() => {
        for (const member of members) if (!fresh.includes(member)) loadSnapshot(store, member)
        const { lanes, missed } = lanesOf(reader, store, members)
        return lanes.length === 0 ? EMPTY : runLanes(options, lanes, missed)
      }),
    )
  })

/** A checkpoint beyond the head belongs to another log: a copy was put back. */
const standsInLog = (reader: CloudReader, store: Store, member: Member): boolean => {
  const through = readCheckpoint(store, member)
  return (
    through !== undefined &&
    member.classes.every(logClass => (through[logClass] ?? 0) <= reader.head(logClass))
  )
}

const lanesOf = (
  reader: CloudReader,
  store: Store,
  members: readonly Member[],
): { lanes: Lane[]; missed: number } => {
  let missed = 0
  const lanes = new Map<string, Lane & { readonly members: Member[] }>()
  for (const member of members) {
    const stored = readCheckpoint(store, member)
    const stand = member.classes.map(logClass => stored?.[logClass] ?? 0)
    for (const [i, logClass] of member.classes.entries()) {
      const after = stand[i] ?? 0
      const through = Math.max(after, reader.tail(logClass) - 1)
      if (after > 0) missed += through - after
      const key = `${logClass} ${through}`
      const known = lanes.get(key)
      if (known === undefined) lanes.set(key, { class: logClass, members: [member], through })
      else known.members.push(member)
    }
  }
  return { lanes: [...lanes.values()], missed }
}
