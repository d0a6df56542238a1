// Two samples as a SenML pack.
//
// Units are those that SenML version 10 allows (RFC 8428 section 12.1, RFC 8798 section 2): `/` for a ratio
// of 0 to 1, B, bit/s, Cel, s, count. There is none for bytes a second. Records carry no time: a pack without
// one is of the moment of its receipt, and that is corrected when the gateway's clock is.

import { encodeSenmlJson } from '../../schemas/senml/json.ts'
import type { SenmlRecord } from '../../schemas/senml/record.ts'
import {
  CPU_MODES,
  type CpuTimes,
  type Disk,
  type Filesystem,
  type Interface,
  type Sample,
} from './sample.ts'

/** A container host may have hundreds of interfaces; the rest is counted in `network/omitted`. */
export const INTERFACES_MAX = 32
/** Disks and sensors likewise: `disk/omitted`, `temperature/omitted`. */
export const DISKS_MAX = 32
export const TEMPERATURES_MAX = 32

/** JSON bytes. Rates and utilisation need `previous`; totals do not. */
export const toSenml = (previous: Sample | undefined, current: Sample, baseName = ''): Buffer => {
  const records = recordsOf(previous, current)
  const [first, ...rest] = records
  return encodeSenmlJson(
    first === undefined || baseName === '' ? records : [{ bn: baseName, ...first }, ...rest],
  )
}

const recordsOf = (previous: Sample | undefined, current: Sample): SenmlRecord[] => {
  const { memory, load, program, uptimeS } = current
  const elapsedS = previous === undefined ? 0 : (current.monoMs - previous.monoMs) / 1000
  return [
    ...(previous?.cpu === undefined || current.cpu === undefined
      ? []
      : cpuRecords(previous.cpu, current.cpu)),
    ...(memory === undefined
      ? []
      : [
          record('memory/total', 'B', memory.totalBytes),
          record('memory/available', 'B', memory.availableBytes),
          record(
            'memory/utilisation',
            '/',
            ratio(memory.totalBytes - memory.availableBytes, memory.totalBytes),
          ),
          record('memory/swap/total', 'B', memory.swapTotalBytes),
          record('memory/swap/free', 'B', memory.swapFreeBytes),
        ]),
    ...capped('network', current.interfaces, INTERFACES_MAX, after =>
      interfaceRecords(named(previous?.interfaces, after), after, elapsedS),
    ),
    ...current.filesystems.flatMap(filesystemRecords),
    ...capped('disk', current.disks, DISKS_MAX, after =>
      diskRecords(named(previous?.disks, after), after, elapsedS),
    ),
    ...(load === undefined
      ? []
      : [
          record('load/1', '/', load.of1),
          record('load/5', '/', load.of5),
          record('load/15', '/', load.of15),
        ]),
    ...capped('temperature', current.temperatures, TEMPERATURES_MAX, ({ name, celsius }) => [
      record(`temperature/${legal(name)}`, 'Cel', celsius),
    ]),
    ...(uptimeS === undefined ? [] : [record('uptime', 's', uptimeS)]),
    ...(program === undefined
      ? []
      : [
          record('process/resident', 'B', program.residentBytes),
          record('process/mapped', 'B', program.mappedBytes),
        ]),
  ]
}

/** Shares are kept to four digits, rates to whole numbers: more is noise that costs bytes on the link. */
const record = (n: string, u: string, v: number): SenmlRecord => ({
  n,
  u,
  v: Math.round(v * 10_000) / 10_000,
})
const ratio = (part: number, whole: number): number =>
  whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 0

const named = <T extends { readonly name: string }>(
  items: readonly T[] | undefined,
  { name }: T,
): T | undefined => items?.find(item => item.name === name)

const capped = <T>(
  kind: string,
  items: readonly T[],
  max: number,
  each: (item: T) => readonly SenmlRecord[],
): SenmlRecord[] => {
  const records = items.slice(0, max).flatMap(each)
  return items.length > max ? [...records, record(`${kind}/omitted`, 'count', items.length - max)] : records
}

/** Time in each mode as a share of all. A counter that went back (iowait does) counts as standing still. */
const cpuRecords = (before: CpuTimes, after: CpuTimes): SenmlRecord[] => {
  const spent = CPU_MODES.map(mode => Math.max(0, after[mode] - before[mode]))
  const all = spent.reduce((sum, ticks) => sum + ticks, 0)
  if (all === 0) return []
  const idle = CPU_MODES.reduce(
    (sum, mode, i) => (mode === 'idle' || mode === 'iowait' ? sum + (spent[i] ?? 0) : sum),
    0,
  )
  return [
    record('cpu/utilisation', '/', ratio(all - idle, all)),
    ...CPU_MODES.map((mode, i) => record(`cpu/${mode}`, '/', ratio(spent[i] ?? 0, all))),
  ]
}

/** Bits a second; undefined when the counter began anew, or without an earlier sample. */
const rate = (before: number | undefined, after: number, elapsedS: number): number | undefined =>
  before === undefined || after < before || elapsedS <= 0
    ? undefined
    : Math.round(((after - before) * 8) / elapsedS)

const rateRecord = (n: string, bitsPerSecond: number | undefined): SenmlRecord[] =>
  bitsPerSecond === undefined ? [] : [record(n, 'bit/s', bitsPerSecond)]

const interfaceRecords = (
  before: Interface | undefined,
  after: Interface,
  elapsedS: number,
): SenmlRecord[] => {
  const base = `network/${legal(after.name)}`
  return [
    record(`${base}/received`, 'B', after.receivedBytes),
    record(`${base}/sent`, 'B', after.sentBytes),
    ...rateRecord(`${base}/receivedRate`, rate(before?.receivedBytes, after.receivedBytes, elapsedS)),
    ...rateRecord(`${base}/sentRate`, rate(before?.sentBytes, after.sentBytes, elapsedS)),
    record(`${base}/errors`, 'count', after.receivedErrors + after.sentErrors),
  ]
}

const filesystemRecords = ({ mount, totalBytes, freeBytes, files, filesFree }: Filesystem): SenmlRecord[] => {
  const base = `filesystem/${mount === '/' ? 'root' : legal(mount.replaceAll('/', '-').replace(/^-/, ''))}`
  return [
    record(`${base}/total`, 'B', totalBytes),
    record(`${base}/free`, 'B', freeBytes),
    record(`${base}/utilisation`, '/', ratio(totalBytes - freeBytes, totalBytes)),
    // btrfs and others have no fixed number of files.
    ...(files > 0 ? [record(`${base}/files`, '/', ratio(files - filesFree, files))] : []),
  ]
}

const diskRecords = (before: Disk | undefined, after: Disk, elapsedS: number): SenmlRecord[] => {
  const base = `disk/${legal(after.name)}`
  const busyMs = before === undefined || elapsedS <= 0 ? -1 : after.busyMs - before.busyMs
  return [
    record(`${base}/read`, 'B', after.readBytes),
    record(`${base}/written`, 'B', after.writtenBytes),
    ...rateRecord(`${base}/readRate`, rate(before?.readBytes, after.readBytes, elapsedS)),
    ...rateRecord(`${base}/writtenRate`, rate(before?.writtenBytes, after.writtenBytes, elapsedS)),
    ...(busyMs < 0 ? [] : [record(`${base}/utilisation`, '/', ratio(busyMs, elapsedS * 1000))]),
  ]
}

/** The kernel lets interfaces and sensors have any name, SenML does not. */
const legal = (name: string): string => name.replaceAll(/[^A-Za-z0-9:._-]/g, '_')
