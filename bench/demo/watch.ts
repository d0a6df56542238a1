// What the demo shows while it runs: where to look, what to try, and one line of state that both ends agree on or not.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { type EdgeStatus, fetchSocket } from '../harness/installation.ts'
import type { Enrolled } from './enrol.ts'
import type { Demo } from './settings.ts'
import { ORIGIN } from './weather.ts'

const ASK_MS_MAX = 1_500

const deliverySchema = z.object({
  streams: z.array(
    z.object({
      records: z.number(),
      gaps: z.object({ count: z.number() }),
      skips: z.object({ count: z.number() }),
    }),
  ),
})

/** As of one moment; undefined for an end that does not answer. */
export interface State {
  readonly edge: { readonly link: string; readonly waiting: number } | undefined
  readonly cloud: { readonly records: number; readonly gaps: number; readonly skipped: number } | undefined
}

export const askState = async ({ cloud, edge }: Demo, gateway: string): Promise<State> => {
  const [atEdge, atCloud] = await Promise.all([
    within(
      fetchSocket(join(edge.folder, 'status.sock'), '/status').then(text =>
        edgeState(JSON.parse(text) as EdgeStatus),
      ),
    ),
    within(
      fetch(`http://127.0.0.1:${cloud.settings.api.port}/api/gateways/${gateway}/delivery`).then(
        async response => cloudState(deliverySchema.parse(await response.json())),
      ),
    ),
  ])
  return { edge: atEdge, cloud: atCloud }
}

const within = <T>(asked: Promise<T>): Promise<T | undefined> =>
  Promise.race([asked.catch(() => undefined), sleep(ASK_MS_MAX, undefined, { ref: false })])

const edgeState = ({ link, streams }: EdgeStatus) => ({
  link,
  waiting: streams.reduce((sum, { head, marked }) => sum + head - marked, 0),
})

const cloudState = ({ streams }: z.output<typeof deliverySchema>) => ({
  records: streams.reduce((sum, { records }) => sum + records, 0),
  gaps: streams.reduce((sum, { gaps }) => sum + gaps.count, 0),
  skipped: streams.reduce((sum, { skips }) => sum + skips.count, 0),
})

const figure = (value: number): string => value.toLocaleString('en')

export const stateLine = ({ edge, cloud }: State, rows: number): string =>
  [
    cloud === undefined ? 'the cloud does not answer' : `${figure(cloud.records)} records in the cloud`,
    edge === undefined ? 'the gateway does not answer' : `${figure(edge.waiting)} waiting on this machine`,
    ...(cloud === undefined ? [] : [`${figure(cloud.gaps)} gaps`]),
    ...(cloud === undefined || cloud.skipped === 0 ? [] : [`${figure(cloud.skipped)} skipped`]),
    ...(edge === undefined ? [] : [`link ${edge.link}`]),
    `${figure(rows)} rows replayed`,
  ].join(' · ')

export const welcome = (
  { cloud, edge }: Demo,
  { gateway, dataChannel, isNew }: Enrolled,
  pids: { cloud: number; edge: number },
): string => {
  const api = `http://127.0.0.1:${cloud.settings.api.port}/api`
  const { port: local } = edge.settings.local
  const { port: metrics } = edge.settings.metrics
  return `
Headgate runs. This machine is ${isNew ? 'now' : 'still'} gateway "${gateway}"; its own metrics and three sensors' data go to the cloud.
${ORIGIN.map(line => `  ${line}`).join('\n')}

Where to look
  gateways          ${api}/gateways
  the whole API     ${api}/openapi.json
  records, as MQTT  mosquitto_sub -h 127.0.0.1 -p ${cloud.settings.north.port} -v -t 'channels/${dataChannel}/messages/#'
  records, as HTTP  curl -N '${api}/records?gateway=${gateway}&follow=1'
  metrics           ${metrics === 0 ? 'switched off' : `http://127.0.0.1:${metrics}/metrics`} (gateway), http://127.0.0.1:${cloud.settings.api.port}/metrics (cloud)
  logs              ${cloud.logFile}, ${edge.logFile}

Three things to try
  1. The latest values:
       curl -s '${api}/gateways/${gateway}/latest?prefix=weather/seattle'
  2. Be a device:
       mosquitto_pub -p ${local} -q 1 -t kitchen/temperature -m '[{"bn":"kitchen/","n":"temperature","u":"Cel","v":21.5}]'
       sleep 1; curl -s '${api}/gateways/${gateway}/latest?prefix=kitchen'
  3. Pull the plug, of the cloud (pid ${pids.cloud}) or of the gateway (pid ${pids.edge}); each starts again after ten seconds:
       kill -9 ${pids.cloud}
       curl -s '${api}/gateways/${gateway}/delivery'      # afterwards: received 1…N, 0 gaps

Ctrl-C ends it; the data stays, and the next start goes on with it.
`
}
