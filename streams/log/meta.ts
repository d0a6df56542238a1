// What a stream keeps beside its frames: where its epoch began, what was trimmed, the last mark on disk.

import { z } from 'zod'
import { chainSchema, epochSchema, offsetSchema, type StreamName } from '../../schemas/ids.ts'
import { fault } from '../run/fault.ts'
import type { Store } from './store.ts'

export const STREAMS_TABLE = 'streams'
export const framesTable = (stream: StreamName): string => `frames:${stream}`

const position = z.strictObject({ offset: offsetSchema, chain: chainSchema })

const metaSchema = z.strictObject({
  epoch: epochSchema,
  origin: position,
  parent: epochSchema.optional(),
  trimmed: position,
  mark: position,
  /** A fork that has not come to its end: frames before `next` are of the new epoch already. */
  restamp: z.strictObject({ epoch: epochSchema, next: offsetSchema, chain: chainSchema }).optional(),
})

type Stored = z.output<typeof metaSchema>
export type StreamMeta = Omit<Stored, 'parent' | 'restamp'> & {
  readonly parent: Stored['parent'] | undefined
  readonly restamp: Stored['restamp'] | undefined
}

export const encodeMeta = (meta: StreamMeta): Buffer => Buffer.from(JSON.stringify(meta))

/** Errors: log_unreadable. */
export const readMeta = (store: Store, name: StreamName): StreamMeta | undefined => {
  const bytes = store.read(STREAMS_TABLE, Buffer.from(name))
  if (bytes === undefined) return undefined
  try {
    const { parent, restamp, ...rest } = metaSchema.parse(JSON.parse(bytes.toString()))
    return { ...rest, parent, restamp }
  } catch (thrown) {
    throw fault(
      'log_unreadable',
      { file: store.file, because: `the description of stream ${name} is damaged` },
      thrown,
    )
  }
}
