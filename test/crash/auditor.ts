// An independent look at the cloud's log, after everything has been stopped: the segments as LMDB files, the frames by
// their codec, and no other code of the cloud's. It compares what is there with what producers were told.
//
//   lost        acknowledged and not there
//   disordered  there first behind a later message of the same producer
//   doubled     there more often than it was sent
//   broken      the log itself: an entry missing, a CRC, an offset that is neither data nor skip, a record
//               that nobody sent, an answer out of turn

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { open } from 'lmdb'
import { crcOf, readHeader, readRecords } from '../../schemas/frame.ts'
import { type Ledger, payloadOf, TOPIC_ROOT } from './ledger.ts'

export interface Found {
  readonly topic: string
  readonly payload: Buffer
}

export interface Verdict {
  readonly records: number
  readonly lost: number
  readonly disordered: number
  readonly doubled: number
  /** There more than once, and sent more than once: allowed to a QoS 1 producer that was not answered. */
  readonly resent: number
  readonly broken: readonly string[]
}

export const isClean = ({ lost, disordered, doubled, broken }: Verdict): boolean =>
  lost === 0 && disordered === 0 && doubled === 0 && broken.length === 0

/** `folder`: the cloud's `log`. Nothing may have it open for writing. */
export const auditLog = async (
  folder: string,
  gateway: string,
  ledgers: readonly Ledger[],
): Promise<Verdict> => {
  const broken: string[] = []
  const found = await readData(folder, gateway, broken)
  return { ...judge(found, ledgers, broken), broken }
}

/** Pure; adds to `broken`. */
export const judge = (
  found: Iterable<Found>,
  ledgers: readonly Ledger[],
  broken: string[],
): Omit<Verdict, 'broken'> => {
  const times = ledgers.map(({ sends }) => new Uint32Array(sends.length))
  const last = ledgers.map(() => -1)
  let records = 0
  let disordered = 0
  for (const { topic, payload } of found) {
    const [root, producerText] = topic.split('/')
    const producer = Number(producerText)
    const seen = times[producer]
    const sequence = sequenceIn(payload)
    if (
      root !== TOPIC_ROOT ||
      seen === undefined ||
      !(sequence < seen.length) ||
      !payload.equals(payloadOf(producer, sequence))
    ) {
      broken.push(`a record that nobody sent: ${topic} ${payload.toString('latin1', 0, 80)}`)
      continue
    }
    records += 1
    const before = last[producer] ?? -1
    if (seen[sequence] === 0 && sequence < before) disordered += 1
    last[producer] = Math.max(before, sequence)
    seen[sequence] = (seen[sequence] ?? 0) + 1
  }
  let [lost, doubled, resent] = [0, 0, 0]
  for (const [producer, { sends, acknowledged, wrong }] of ledgers.entries()) {
    broken.push(...wrong)
    for (const [sequence, count] of times[producer]?.entries() ?? []) {
      if (count === 0 && sequence < acknowledged) lost += 1
      if (count > (sends[sequence] ?? 0)) doubled += 1
      else if (count > 1) resent += 1
    }
  }
  return { records, lost, disordered, doubled, resent }
}

const sequenceIn = (payload: Buffer): number =>
  Number(/"v":(\d+)/.exec(payload.toString('latin1'))?.[1] ?? Number.NaN)

const readData = async (folder: string, gateway: string, broken: string[]): Promise<Found[]> => {
  const found: Found[] = []
  const ends = new Map<string, number>()
  let lastSeq = 0
  for (const file of segmentsOf(join(folder, 'data'))) {
    const root = open<Buffer, Buffer>({
      path: file,
      noSubdir: true,
      readOnly: true,
      maxDbs: 64,
      encoding: 'binary',
      keyEncoding: 'binary',
    })
    const entries = root.openDB({ name: 'entries', encoding: 'binary', keyEncoding: 'binary' })
    for (const { key, value } of entries?.getRange({}) ?? []) {
      const seq = key.readUIntBE(0, 6)
      if (seq !== lastSeq + 1) broken.push(`entry ${seq} follows ${lastSeq}`)
      lastSeq = seq
      found.push(...readEntry(seq, value, gateway, ends, broken))
    }
    await root.close()
  }
  if (ends.size > 1)
    broken.push(`${ends.size} epochs, and no disk was put back: ${[...ends.keys()].join(', ')}`)
  return found
}

/** In the order of their first entry, which their names begin with. */
const segmentsOf = (folder: string): string[] =>
  readdirSync(folder)
    .filter(name => name.endsWith('.mdb'))
    .sort()
    .map(name => join(folder, name))

/** An entry: kind, 6 bytes of time, the length of the gateway's name, the name, the frame. */
const readEntry = (
  seq: number,
  bytes: Buffer,
  gateway: string,
  ends: Map<string, number>,
  broken: string[],
): Found[] => {
  const from = bytes.toString('latin1', 8, 8 + (bytes[7] ?? 0))
  const frame = Buffer.from(bytes.subarray(8 + from.length))
  if (bytes[0] !== 1) return []
  const header = readHeader(frame)
  if (header.stream !== 'data') return []
  if (from !== gateway) broken.push(`entry ${seq} is of gateway ${from}`)
  if (crcOf(frame) !== header.crc || frame.length !== header.length)
    broken.push(`entry ${seq}: its frame's CRC or length is wrong`)
  if (header.kind === 'skip') broken.push(`entry ${seq}: a skip of ${header.count}, and nothing was dropped`)
  const expected = (ends.get(header.epoch) ?? 0) + 1
  if (header.first !== expected)
    broken.push(`entry ${seq} begins at offset ${header.first}, ${expected} is next`)
  ends.set(header.epoch, header.last)
  return readRecords(frame, header).map(({ topic, payload }) => ({ topic, payload }))
}
