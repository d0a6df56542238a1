// What both programs' main does with streams and errors.

import { ignoreElements, lastValueFrom, type Observable, tap } from 'rxjs'
import { isFault, reasonOf } from './fault.ts'

/** Resolves when `work$` completes, rejects with its error. */
export const ended = <T>(work$: Observable<T>, each: (value: T) => void): Promise<void> =>
  lastValueFrom(work$.pipe(tap(each), ignoreElements()), { defaultValue: undefined })

/** A coded fault is for a person; anything else is a defect, and its stack is what helps. */
export const lastWords = (program: string, thrown: unknown): string => {
  if (isFault(thrown)) return `${program}: ${thrown.message}`
  return (thrown instanceof Error ? thrown.stack : undefined) ?? reasonOf(thrown)
}
