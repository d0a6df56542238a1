// Every projection of the cloud, and every question that can be asked of them: one key each. A question without an
// answer here does not compile.

import type { EpochMs } from '../../schemas/ids.ts'
import { VIEW_ROWS_MAX, type ViewName, type ViewQueries } from '../../schemas/views.ts'
import type { FoldState } from '../../streams/fold/fold.ts'
import { mount } from '../../streams/fold/member.ts'
import type { CloudReader } from '../../streams/log/cloudlog.ts'
import { Refusal } from '../../streams/run/worker-side.ts'
import { deadLetterPage, deadLetters } from './dead-letters.ts'
import { delivery, deliveryPage } from './delivery.ts'
import { type FleetLimits, fleet, fleetRows, gatewayRow } from './fleet.ts'
import { latest, latestPage } from './latest.ts'

/** Fresh state for one run of the fold. */
export const mountViews = () => ({
  fleet: mount(fleet),
  latest: mount(latest),
  delivery: mount(delivery),
  deadLetters: mount(deadLetters),
})
export type MountedViews = ReturnType<typeof mountViews>
/** The tables in which they are kept. */
export const VIEW_TABLES = Object.values(mountViews()).map(({ name }) => name)

export interface AnswerContext {
  readonly views: MountedViews
  readonly reader: CloudReader
  readonly limits: FleetLimits
  readonly nowMs: EpochMs
  readonly state: FoldState
}

type Answers = {
  readonly [N in ViewName]: (context: AnswerContext, args: ViewQueries[N]['args']) => ViewQueries[N]['answer']
}

const rows = (limit: number): number => Math.max(1, Math.min(limit, VIEW_ROWS_MAX))

const answers: Answers = {
  fleet: ({ views, nowMs, limits }, { after, limit }) =>
    fleetRows(views.fleet.view, { after, limit: rows(limit) }, nowMs, limits),
  gateway: ({ views, nowMs, limits }, { gateway }) => gatewayRow(views.fleet.view, gateway, nowMs, limits),
  latest: ({ views }, { gateway, prefix, limit }) =>
    latestPage(views.latest.view, { gateway, prefix, limit: rows(limit) }),
  delivery: ({ views }, { gateway }) => deliveryPage(views.delivery.view, gateway),
  deadLetters: ({ views }, { limit }) => deadLetterPage(views.deadLetters.view, rows(limit)),
  status: ({ reader, state }) => {
    const through = state.through
    let behind = 0
    for (const at of Object.values(through)) {
      for (const logClass of ['data', 'events', 'audit'] as const) {
        const seq = at[logClass]
        if (seq !== undefined) behind = Math.max(behind, reader.head(logClass) - seq)
      }
    }
    return { behind, keys: state.keys, missed: state.missed, through }
  },
}

const isName = (name: string): name is ViewName => Object.hasOwn(answers, name)

/** `args` come from the host of this worker, by its type. Throws Refusal for a question that nobody knows. */
export const answerView = (context: AnswerContext, name: string, args: unknown): unknown => {
  if (!isName(name)) throw new Refusal('no view has this name')
  // The host's `query` ties each name to its arguments; a structured clone cannot carry that.
  const answer = answers[name] as (context: AnswerContext, args: unknown) => unknown
  return answer(context, args)
}
