// Work that needs a resource: opens it, works, and closes it when the work ends.

import { Observable, Subscription } from 'rxjs'

/** Completes when `use` does. `resource$` emits once and stays open while subscribed to. */
export const hold = <R, T>(resource$: Observable<R>, use: (resource: R) => Observable<T>): Observable<T> =>
  new Observable(subscriber => {
    const held = new Subscription()
    held.add(
      resource$.subscribe({
        next: resource => held.add(use(resource).subscribe(subscriber)),
        error: thrown => subscriber.error(thrown),
      }),
    )
    return held
  })
