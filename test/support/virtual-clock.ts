// A clock in virtual time: nothing moves until `scheduler.flush()`.

import { VirtualTimeScheduler } from 'rxjs'
import { bootIdOf } from '../../schemas/ids.ts'
import type { Clock } from '../../streams/run/clock.ts'

export const virtualClock = (
  startMs = 1_750_000_000_000,
): Clock & { readonly scheduler: VirtualTimeScheduler } => {
  const scheduler = new VirtualTimeScheduler()
  return {
    nowMs: () => startMs + scheduler.now(),
    monoMs: () => scheduler.now(),
    bootId: bootIdOf(Buffer.alloc(8, 1)),
    quality: () => 'synchronised',
    scheduler,
  }
}
