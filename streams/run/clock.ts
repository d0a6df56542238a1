// Time and chance, handed in so that a simulation can own them.

import { randomBytes } from 'node:crypto'
import { asyncScheduler, type SchedulerLike } from 'rxjs'
import type { Stamp } from '../../schemas/frame.ts'
import { type BootId, bootIdOf, type EpochMs } from '../../schemas/ids.ts'

export interface Clock {
  /** Wall time; may jump. Never used to measure a wait. */
  nowMs(): EpochMs
  /** Milliseconds since the machine's start; never goes back. */
  monoMs(): number
  readonly bootId: BootId
  quality(): Stamp['quality']
  /** For timers. */
  readonly scheduler: SchedulerLike
}

export interface Random {
  bytes(count: number): Buffer
  /** Uniform in [0, 1). */
  unit(): number
}

export const stampOf = (clock: Clock): Stamp => ({
  wallMs: clock.nowMs(),
  monoMs: clock.monoMs(),
  bootId: clock.bootId,
  quality: clock.quality(),
})

/** Before this, a clock was never set: Headgate did not exist. */
export const CLOCK_FLOOR_MS = Date.UTC(2025, 0, 1)

/** The machine's own clock. `bootId` as the kernel gives it, if it does. */
export const systemClock = (bootId: BootId = bootIdOf(randomBytes(8))): Clock => {
  // One counter, the machine's, read in two ways: this one is called for every message and allocates nothing.
  const processStartMs = Number(process.hrtime.bigint()) / 1e6 - performance.now()
  return {
    nowMs: () => Date.now(),
    monoMs: () => Math.floor(processStartMs + performance.now()),
    bootId,
    quality: () => (Date.now() < CLOCK_FLOOR_MS ? 'unknown' : 'synchronised'),
    scheduler: asyncScheduler,
  }
}

export const systemRandom: Random = {
  bytes: count => randomBytes(count),
  unit: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
}
