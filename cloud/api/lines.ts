// Entries of the log as lines of JSON: one a record, one a skip, one a frame that cannot be decoded.
// Every line ends with the cursor that stands behind it.

import { isUtf8 } from 'node:buffer'
import { type FrameHeader, readHeader, readRecords } from '../../schemas/frame.ts'
import type { SealedRecord } from '../../schemas/records.ts'
import { formatOf, parseSenml } from '../../schemas/senml/resolve.ts'
import type { CloudEntry } from '../../streams/log/cloudlog.ts'
import { reasonOf } from '../../streams/run/fault.ts'

type FrameEntry = CloudEntry & { readonly kind: 'frame' }

/** Dates that JSON text can hold; a gateway's clock may say anything. */
const DATE_MS_MAX = 8.64e15
export const rfc3339 = (ms: number): string =>
  new Date(Math.max(-DATE_MS_MAX, Math.min(DATE_MS_MAX, ms))).toISOString()

/** The lines of an entry, each without its cursor and closing brace; none when `stream` is not the entry's. */
export const linesOf = (entry: FrameEntry, stream: string | undefined): string[] => {
  let header: FrameHeader | undefined
  try {
    header = readHeader(entry.frame)
    if (stream !== undefined && header.stream !== stream) return []
    const where = `{"gateway":"${entry.gateway}","epoch":"${header.epoch}","stream":"${header.stream}"`
    if (header.kind === 'skip') {
      return [`${where},"skip":{"first":${header.first},"count":${header.count},"cause":"${header.cause}"}`]
    }
    const first = header.first
    return readRecords(entry.frame, header).map(
      (record, i) => `${where},"offset":${first + i},${recordFields(record)}`,
    )
  } catch (thrown) {
    // Without a header, what stream it is of cannot be told: everyone hears of it.
    const place = header === undefined ? '' : `"epoch":"${header.epoch}","stream":"${header.stream}",`
    const range = header === undefined ? '' : `"first":${header.first},"count":${header.count},`
    return [
      `{"gateway":"${entry.gateway}",${place}"undecodable":{${range}"because":${JSON.stringify(reasonOf(thrown))}}`,
    ]
  }
}

const recordFields = ({ topic, payload, qos, retain, receivedAtMs }: SealedRecord): string =>
  `"topic":${JSON.stringify(topic)},"receivedAt":"${rfc3339(receivedAtMs)}","qos":${qos},"retain":${retain},${payloadField(payload)}`

/** SenML as it came, other text as text, the rest as base64 and marked so. */
const payloadField = (payload: Buffer): string => {
  if (!isUtf8(payload)) return `"encoding":"base64","payload":"${payload.toString('base64')}"`
  const text = payload.toString('utf8')
  if (formatOf(payload) !== 'json' || !parseSenml(payload, 'json').ok)
    return `"payload":${JSON.stringify(text)}`
  // A line feed is legal in JSON and would end this line; digits of numbers are kept otherwise.
  return `"payload":${/[\r\n]/.test(text) ? JSON.stringify(JSON.parse(text)) : text}`
}
