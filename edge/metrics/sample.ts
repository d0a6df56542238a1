// What the machine told at one moment: counters as the kernel keeps them, made into rates only by comparing
// two. A part that this machine does not have is undefined or empty.

import type { EpochMs } from '../../schemas/ids.ts'

export interface Sample {
  readonly atMs: EpochMs
  readonly monoMs: number
  readonly cpu: CpuTimes | undefined
  readonly memory: Memory | undefined
  readonly interfaces: readonly Interface[]
  readonly filesystems: readonly Filesystem[]
  readonly disks: readonly Disk[]
  readonly load: Load | undefined
  readonly temperatures: readonly Temperature[]
  readonly uptimeS: number | undefined
  readonly program: ProgramMemory | undefined
}

export const CPU_MODES = ['user', 'nice', 'system', 'idle', 'iowait', 'irq', 'softirq', 'steal'] as const
/** Clock ticks spent in each mode by all cores together. */
export type CpuTimes = Readonly<Record<(typeof CPU_MODES)[number], number>>

export interface Memory {
  readonly totalBytes: number
  readonly availableBytes: number
  readonly swapTotalBytes: number
  readonly swapFreeBytes: number
}

export interface Interface {
  readonly name: string
  readonly receivedBytes: number
  readonly receivedErrors: number
  readonly sentBytes: number
  readonly sentErrors: number
}

export interface Filesystem {
  readonly mount: string
  readonly totalBytes: number
  /** For an unprivileged program. */
  readonly freeBytes: number
  readonly files: number
  readonly filesFree: number
}

export interface Disk {
  readonly name: string
  readonly readBytes: number
  readonly writtenBytes: number
  readonly busyMs: number
}

/** Runnable tasks, averaged over 1, 5 and 15 minutes. */
export interface Load {
  readonly of1: number
  readonly of5: number
  readonly of15: number
}

export interface Temperature {
  readonly name: string
  readonly celsius: number
}

export interface ProgramMemory {
  /**
   * Its own and shared memory, without files: the map of a log is page cache that the kernel can take back.
   */
  readonly residentBytes: number
  readonly mappedBytes: number
}
