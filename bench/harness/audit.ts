// Compares what producers were told was taken with what the cloud's log holds, through the API's record stream.

import type { Installation } from './installation.ts'

export interface Audit {
  readonly records: number
  readonly lost: number
  readonly duplicated: number
  readonly disordered: number
}

interface Line {
  readonly gateway?: string
  readonly topic?: string
  readonly payload?: unknown
  readonly skip?: unknown
  readonly cursor?: string
}

/** Lines asked for at once: the API's most. */
const PAGE_LINES = 1_000_000

/** `gateway`: undefined for all. `acknowledged[p]`: producer p was told that its messages 0…n−1 were taken. */
export const audit = async (
  installation: Installation,
  gateway: string | undefined,
  acknowledged: readonly number[],
  read: (line: Line) => { producer: number; sequence: number } | undefined,
): Promise<Audit> => {
  const seen = acknowledged.map(count => new Uint8Array(count))
  const last = acknowledged.map(() => -1)
  let records = 0
  let duplicated = 0
  let disordered = 0
  const take = (line: Line): void => {
    const found = read(line)
    if (found === undefined) return
    const { producer, sequence } = found
    records += 1
    const marks = seen[producer]
    if (marks === undefined || sequence >= marks.length) return // Taken, its acknowledgement was on the way.
    if (marks[sequence] === 1) duplicated += 1
    else if (sequence < (last[producer] ?? -1)) disordered += 1
    marks[sequence] = 1
    last[producer] = Math.max(sequence, last[producer] ?? -1)
  }
  for (let after: string | undefined; ; ) {
    const page = await readPage(installation, gateway, after, take)
    if (page.cursor === undefined || page.lines === 0) break
    after = page.cursor
  }
  const lost = seen.reduce(
    (sum, marks) => sum + marks.reduce((missing, mark) => missing + (mark === 0 ? 1 : 0), 0),
    0,
  )
  return { records, lost, duplicated, disordered }
}

const readPage = async (
  installation: Installation,
  gateway: string | undefined,
  after: string | undefined,
  take: (line: Line) => void,
) => {
  const behind = after === undefined ? '' : `&after=${encodeURIComponent(after)}`
  const response = await installation.api(
    `/api/records?stream=data&limit=${PAGE_LINES}${gateway === undefined ? '' : `&gateway=${gateway}`}${behind}`,
  )
  if (!response.ok || response.body === null)
    throw new Error(`records: ${response.status} ${await response.text()}`)
  let lines = 0
  let cursor = after
  let rest = ''
  const decoder = new TextDecoder()
  const each = (text: string): void => {
    if (text === '') return
    const line = JSON.parse(text) as Line
    lines += 1
    cursor = line.cursor ?? cursor
    take(line)
  }
  for await (const chunk of response.body) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = parts.pop() ?? ''
    parts.forEach(each)
  }
  each(rest)
  return { lines, cursor }
}
