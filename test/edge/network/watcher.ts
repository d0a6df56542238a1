// Runs inside a network namespace and prints each sign as a line; `watching` once the first look is done.

import { localSigns$ } from '../../../edge/network/signs.ts'
import { systemClock } from '../../../streams/run/clock.ts'

localSigns$({ clock: systemClock(), root: '/', intervalMs: 50 }).subscribe(({ kind, detail }) =>
  console.log(`${kind} ${detail}`),
)
setTimeout(() => console.log('watching'), 200)
/** A test that was killed leaves nothing behind. */
setTimeout(() => process.exit(0), 45_000)
