// A thread that lets others go first: while the processors are busy it gets a tenth of what they get.

import { readlinkSync } from 'node:fs'
import { setPriority } from 'node:os'

/** Linux weighs a thread of nice 10 with 110, one of nice 0 with 1,024 (sched(7)). */
const NICE = 10

/** Of the calling thread alone. Where the system does not know threads by number, nothing changes. */
export const lowerPriority = (): void => {
  try {
    // "4711/task/4713": in Linux a thread has a number of its own, and setpriority(2) takes it.
    const thread = Number(readlinkSync('/proc/thread-self').split('/').at(-1))
    if (Number.isInteger(thread)) setPriority(thread, NICE)
  } catch {
    // Not Linux, or not allowed to: then it runs as it is.
  }
}
