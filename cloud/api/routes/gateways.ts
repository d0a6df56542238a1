// Gateways: what the registry says of each, joined with what the views know.

import { firstValueFrom } from 'rxjs'
import { z } from 'zod'
import { GATEWAY_STATES, type GatewayRecord } from '../../../schemas/registry.ts'
import { type FleetRow, PRESENCES, VIEW_ROWS_MAX } from '../../../schemas/views.ts'
import { fault } from '../../../streams/run/fault.ts'
import { rfc3339 } from '../lines.ts'
import { errorSchema, limitSchema, type RouteContext, type Scope, timeSchema } from '../scope.ts'

const gatewaySchema = z.object({
  id: z.string(),
  name: z.string(),
  labels: z.record(z.string(), z.string()),
  /** Of its registration. */
  state: z.enum(GATEWAY_STATES),
  presence: z.enum([...PRESENCES, 'never']).describe('never: it has not connected since its registration'),
  since: timeSchema.optional(),
  lastSeen: timeSchema.optional(),
  address: z.string().optional(),
  version: z.string().optional(),
  clock: z.string().optional(),
  because: z.string().optional().describe('why the last connection ended'),
  connects: z.number(),
  certificateNotAfter: timeSchema.optional(),
  dataChannel: z.string().describe('on the north side: channels/<data channel>/messages/#'),
})
type GatewayBody = z.output<typeof gatewaySchema>

const bodyOf = (
  { id, name, labels, state, certificateNotAfterMs, dataChannel }: GatewayRecord,
  row: FleetRow | undefined,
): GatewayBody => ({
  id,
  name,
  labels,
  state,
  presence: row?.presence ?? 'never',
  since: timeOf(row?.sinceMs),
  lastSeen: timeOf(row?.lastSeenMs),
  address: row?.address,
  version: row?.version,
  clock: row?.clock,
  because: row?.because,
  connects: row?.connects ?? 0,
  certificateNotAfter: timeOf(certificateNotAfterMs),
  dataChannel,
})
export const timeOf = (ms: number | undefined): string | undefined =>
  ms === undefined ? undefined : rfc3339(ms)

export const gatewayRoutes = (scope: Scope, { registry, views }: RouteContext): void => {
  scope.get(
    '/gateways',
    {
      schema: {
        summary: 'Gateways, by id',
        querystring: z.object({
          after: z.string().optional().describe('the last id of the page before'),
          limit: limitSchema(100, 1_000),
          presence: z.enum([...PRESENCES, 'never']).optional(),
          label: z
            .string()
            .regex(/^[^=]+=/, 'must be name=value')
            .optional(),
        }),
        response: { 200: z.object({ gateways: z.array(gatewaySchema), after: z.string().optional() }) },
      },
    },
    async ({ query: { after = '', limit, presence, label } }) => {
      const rows = new Map(
        (await firstValueFrom(views.query('fleet', { limit: VIEW_ROWS_MAX, after }))).map(row => [
          row.gateway,
          row,
        ]),
      )
      const page: GatewayBody[] = []
      for (const record of registry.list()) {
        if (record.id <= after || (label !== undefined && !hasLabel(record, label))) continue
        const body = bodyOf(record, rows.get(record.id))
        if (presence !== undefined && body.presence !== presence) continue
        if (page.length === limit) return { gateways: page, after: page.at(-1)?.id }
        page.push(body)
      }
      return { gateways: page }
    },
  )

  scope.get(
    '/gateways/:id',
    {
      schema: {
        summary: 'One gateway',
        params: idParams,
        response: { 200: gatewaySchema, 404: errorSchema },
      },
    },
    async ({ params: { id } }) =>
      bodyOf(known({ registry }, id), await firstValueFrom(views.query('gateway', { gateway: id }))),
  )
}

export const idParams = z.object({ id: z.string().max(63) })

/** Throws gateway_unknown. */
export const known = ({ registry }: Pick<RouteContext, 'registry'>, id: string): GatewayRecord => {
  const record = registry.get(id)
  if (record === undefined) throw fault('gateway_unknown', { gateway: id })
  return record
}

const hasLabel = ({ labels }: GatewayRecord, label: string): boolean => {
  const at = label.indexOf('=')
  return labels[label.slice(0, at)] === label.slice(at + 1)
}
