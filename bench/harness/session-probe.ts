// Keystrokes from the cloud to a gateway and back, in the interactive lane, while the gateway drains its log.
//
// The programs open no sessions yet, so nothing in them answers in that lane. What is measured is built from what they
// are built from: session-edge.ts is the edge's link, exporter and streams on a real gateway's folder, session-cloud.ts
// the cloud's broker, ingestion, log and views on a real cloud's. Beside these each has one concern more, the echo.

import { forkPart, partUrl } from './forked.ts'

export interface SessionEdgeOptions {
  /** A gateway's data folder: enrolled, its edge not running. */
  readonly folder: string
  readonly host: string
  readonly port: number
  /** In the cloud's certificate. */
  readonly servername: string
}

export interface SessionCloudOptions {
  /** A cloud's data folder; the cloud not running. */
  readonly folder: string
  readonly port: number
  readonly gateway: string
  readonly everyMs: number
}

export interface EdgeState {
  readonly kind: 'state'
  readonly link: string
  readonly head: number
  readonly marked: number
  /** As the exporter measured it. */
  readonly bytesPerSecond: number
}

export interface Echo {
  /** `Date.now()`. */
  readonly sentAtMs: number
  /** Undefined: no echo came. */
  readonly roundTripMs?: number
}

export type EdgeSaid = EdgeState
export type CloudSaid =
  | { readonly kind: 'listening' }
  | { readonly kind: 'echoes'; readonly echoes: readonly Echo[] }

export interface SessionEdge {
  state(): Promise<EdgeState>
  end(): Promise<void>
}

export interface SessionCloud {
  /** Sends one message every `everyMs` from now on. */
  begin(): void
  /** Sends no more; resolves with all, a second later. */
  finish(): Promise<readonly Echo[]>
  end(): Promise<void>
}

const ANSWER_MS_MAX = 10_000

export const startSessionEdge = (options: SessionEdgeOptions, namespace?: string): SessionEdge => {
  const part = forkPart<EdgeSaid>({
    url: partUrl(import.meta.url, './session-edge'),
    args: [JSON.stringify(options)],
    namespace,
  })
  return {
    state: () => {
      part.tell({ kind: 'state' })
      return part.heard('state', ANSWER_MS_MAX)
    },
    end: part.end,
  }
}

export const startSessionCloud = async (options: SessionCloudOptions): Promise<SessionCloud> => {
  const part = forkPart<CloudSaid>({
    url: partUrl(import.meta.url, './session-cloud'),
    args: [JSON.stringify(options)],
  })
  try {
    await part.heard('listening', ANSWER_MS_MAX)
  } catch (thrown) {
    await part.end()
    throw thrown
  }
  return {
    begin: () => part.tell({ kind: 'begin' }),
    finish: async () => {
      part.tell({ kind: 'finish' })
      return (await part.heard('echoes', ANSWER_MS_MAX)).echoes
    },
    end: part.end,
  }
}
