// The append-only log that every concern writes to or reads from.
//
// Invariants, for every implementation:
//   dense      every offset from tail to head is in exactly one frame or skip
//   ordered    replay emits entries strictly in sequence, no gap, no repeat
//   durable    append emits only after the range survives power loss
//   bounded    replay never emits more entries than `demand$` has granted
//   inert      nothing happens before subscription, or after unsubscription

import type { Observable } from 'rxjs'
import type { FrameHeader } from '../../schemas/frame.ts'
import type { Chain, Epoch, Offset, StreamName } from '../../schemas/ids.ts'
import type { TakenRecord } from '../../schemas/records.ts'
import type { Write } from './store.ts'

export interface Range {
  readonly first: Offset
  readonly last: Offset
}

/** A sealed frame or skip, as stored. */
export interface Entry {
  readonly header: FrameHeader
  readonly bytes: Buffer
}

export interface Replay {
  readonly after: Offset
  /** Each value grants that many further entries. Completion ends the replay. */
  readonly demand$: Observable<number>
  /** At the head: wait for more, or complete. */
  readonly atHead: 'follow' | 'complete'
}

/** `now`: commit at once if none runs. `wait`: with the next commit, at the latest after the seal wait. */
export type Patience = 'now' | 'wait'

export interface How {
  readonly patience?: Patience
  /** Rows of other tables that belong in the same transaction. */
  readonly alongside?: readonly Write[]
}

export interface Log<T, E> {
  readonly head$: Observable<Offset>
  append(batch: readonly [T, ...T[]], how?: How): Observable<Range>
  replay(options: Replay): Observable<E>
  /** Whole entries through `through`, a bounded number of them at a time; emits how far it came. */
  trim(through: Offset, patience?: Patience): Observable<Offset>
}

export interface Position {
  readonly offset: Offset
  readonly chain: Chain
}

/** Where a stream stands. All of it is durable. */
export interface StreamState {
  readonly name: StreamName
  readonly epoch: Epoch
  /** Where this epoch begins, and the epoch that it forked from. */
  readonly origin: Position
  readonly parent: Epoch | undefined
  /** First offset kept; head + 1 when nothing is. */
  readonly tail: Offset
  readonly head: Offset
  /** Chain at the head. */
  readonly chain: Chain
  /** The last mark that is on disk. */
  readonly mark: Position
  /** A fork began and has not come to its end: call `fork` again before anything is exported. */
  readonly forking: boolean
  /** Bytes kept, as pages of the file. */
  readonly bytes: number
}

/** What a stream can say of its chain at an offset. */
export type ChainAt =
  | { readonly kind: 'known'; readonly chain: Chain }
  /** Trimmed, or inside a skip. */
  | { readonly kind: 'gone' }
  /** In the middle of a frame: never a mark of ours. */
  | { readonly kind: 'inside' }
  | { readonly kind: 'beyond' }

/** One stream of a gateway: sealed on append, read as frames. */
export interface StreamLog extends Log<TakenRecord, Entry> {
  readonly name: StreamName
  state(): StreamState
  chainAt(offset: Offset): ChainAt
  /** Notes a mark that was checked; it reaches the disk with the next trim. */
  noteMark(mark: Position): void
  /** The last mark noted. */
  marked(): Position
  /** Begins a new epoch behind the mark on disk: restamps everything kept after it. Emits the new state. */
  fork(): Observable<StreamState>
  /** End of the oldest frames that were sealed before `ms`; a bounded number of them at a time. */
  expiredThrough(ms: number): Offset | undefined
  /** Puts a skip in the place of everything from the tail through `through`. */
  drop(through: Offset, cause: 'quota' | 'age' | 'repair'): Observable<Offset>
}
