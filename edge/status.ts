// What `headgate-edge status` shows: where each stream stands, and how long what waits will take.

import { z } from 'zod'
import type { EdgeContext } from './context.ts'

export const statusSchema = z.strictObject({
  gateway: z.string(),
  version: z.string(),
  link: z.string(),
  lastMarkAt: z.string().nullable(),
  /** To the cloud's disk, as last measured; 0 when unknown. */
  bytesPerSecond: z.number(),
  streams: z.array(
    z.strictObject({
      name: z.string(),
      epoch: z.string(),
      tail: z.number(),
      head: z.number(),
      /** Durable in the cloud through here, as far as the disk knows. */
      marked: z.number(),
      waitingRecords: z.number(),
      bytes: z.number(),
    }),
  ),
  diskBytes: z.number(),
})
export type EdgeStatus = z.output<typeof statusSchema>

export const statusOf = ({ gateway, version, streams, vitals }: EdgeContext): EdgeStatus => ({
  gateway,
  version,
  link: vitals.link.kind === 'down' ? `down: ${vitals.link.because}` : vitals.link.kind,
  lastMarkAt: vitals.lastMarkAtMs === undefined ? null : new Date(vitals.lastMarkAtMs).toISOString(),
  bytesPerSecond: vitals.link.kind === 'up' ? Math.round(vitals.rate * 1_000) : 0,
  streams: streams.all.map(log => {
    const { name, epoch, tail, head, bytes } = log.state()
    const marked = log.marked().offset
    return { name, epoch, tail, head, marked, waitingRecords: head - marked, bytes }
  }),
  diskBytes: streams.store.allocatedBytes(),
})
