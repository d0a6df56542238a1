// Work under observation: whether it succeeds or throws, nothing is observed afterwards.

import { type Observe, type Observed, observe } from '../harness/observe.ts'

export const observing = async <T>(
  what: Observe,
  work: () => Promise<T>,
): Promise<readonly [T, Observed]> => {
  const observation = observe(what)
  let done: T
  try {
    done = await work()
  } catch (thrown) {
    await observation.stop().catch(() => undefined) // What broke the work may have broken this as well.
    throw thrown
  }
  return [done, await observation.stop()]
}
