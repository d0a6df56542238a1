// What a projection is: state computed from the cloud's log, held in memory by key, and thrown away at will.
//
//   total      apply never throws for what a log may hold; what it does not know leaves the state unchanged
//   repeatable the same entries give the same state: no clock, no chance, no I/O
//   unordered  entries of one class come in order; two classes interleave in any way, so that state which draws on
//              both must not depend on which came first

import type { CloudEntry, LogClass } from '../log/cloudlog.ts'

/** Keyed state; values are plain objects that survive JSON. */
export interface View<V> {
  readonly size: number
  get(key: string): V | undefined
  set(key: string, value: V): void
  /** Says that the value under `key` was changed in place. */
  touch(key: string): void
  delete(key: string): void
  /** Every key that starts with `prefix`; looks at all of them. */
  keys(prefix: string): IterableIterator<string>
}

export interface Projection<V> {
  /** Also names its table. */
  readonly name: string
  /** Raise it and the state is computed again from the oldest entry that is kept. */
  readonly version: number
  readonly classes: readonly LogClass[]
  /** `page`: at least one entry, all of `logClass`, seqs dense. */
  apply(view: View<V>, page: readonly CloudEntry[], logClass: LogClass): void
}
