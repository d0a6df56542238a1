// The texts of /proc as numbers (proc(5)). Pure; a text that is not as expected gives undefined or nothing.

import {
  CPU_MODES,
  type CpuTimes,
  type Disk,
  type Interface,
  type Load,
  type Memory,
  type ProgramMemory,
} from './sample.ts'

const words = (line: string): string[] => line.trim().split(/\s+/)
const allFinite = (numbers: readonly number[]): boolean => numbers.every(Number.isFinite)

/** First line of /proc/stat. Guest time is part of user time already. */
export const parseCpu = (text: string): CpuTimes | undefined => {
  const [label, ...columns] = words(text.slice(0, text.indexOf('\n')))
  const [user, nice, system, idle, iowait = 0, irq = 0, softirq = 0, steal = 0] = columns
    .slice(0, CPU_MODES.length)
    .map(Number)
  if (
    label !== 'cpu' ||
    user === undefined ||
    nice === undefined ||
    system === undefined ||
    idle === undefined
  ) {
    return undefined
  }
  const times = { user, nice, system, idle, iowait, irq, softirq, steal }
  return allFinite(Object.values(times)) ? times : undefined
}

/** Lines of `name: value kB`, in bytes. */
const kilobytes = (text: string): ReadonlyMap<string, number> =>
  new Map(
    [...text.matchAll(/^(\w+):\s+(\d+) kB$/gm)].map(([, name = '', value]) => [name, Number(value) * 1024]),
  )

/** /proc/meminfo. Kernels before 3.14 do not say what is available. */
export const parseMemory = (text: string): Memory | undefined => {
  const bytes = kilobytes(text)
  const total = bytes.get('MemTotal')
  if (total === undefined) return undefined
  const guessed = (bytes.get('MemFree') ?? 0) + (bytes.get('Buffers') ?? 0) + (bytes.get('Cached') ?? 0)
  return {
    totalBytes: total,
    availableBytes: bytes.get('MemAvailable') ?? guessed,
    swapTotalBytes: bytes.get('SwapTotal') ?? 0,
    swapFreeBytes: bytes.get('SwapFree') ?? 0,
  }
}

/** /proc/self/status. Kernels before 4.5 do not tell what is mapped. */
export const parseProgram = (text: string): ProgramMemory | undefined => {
  const bytes = kilobytes(text)
  const all = bytes.get('VmRSS')
  if (all === undefined) return undefined
  const mapped = bytes.get('RssFile') ?? 0
  return { residentBytes: all - mapped, mappedBytes: mapped }
}

/** /proc/net/dev, without loopback. */
export const parseInterfaces = (text: string): Interface[] =>
  text.split('\n').flatMap(line => {
    const colon = line.lastIndexOf(':')
    const name = line.slice(0, Math.max(0, colon)).trim()
    const columns = words(line.slice(colon + 1)).map(Number)
    const [receivedBytes = 0, , receivedErrors = 0, , , , , , sentBytes = 0, , sentErrors = 0] = columns
    if (name === '' || name === 'lo' || columns.length < 11 || !allFinite(columns)) return []
    return [{ name, receivedBytes, receivedErrors, sentBytes, sentErrors }]
  })

/** /proc/diskstats always counts in units of 512 bytes, whatever the disk's own sectors are. */
const SECTOR_BYTES = 512

/** /proc/diskstats for whole disks: `isDisk` tells them from partitions. */
export const parseDisks = (text: string, isDisk: (name: string) => boolean): Disk[] =>
  text.split('\n').flatMap(line => {
    const [, , name = '', ...rest] = words(line)
    const columns = rest.map(Number)
    const [, , sectorsRead = 0, , , , sectorsWritten = 0, , , busyMs = 0] = columns
    if (name === '' || columns.length < 10 || !allFinite(columns) || !isDisk(name)) return []
    return [
      { name, readBytes: sectorsRead * SECTOR_BYTES, writtenBytes: sectorsWritten * SECTOR_BYTES, busyMs },
    ]
  })

/** /proc/loadavg */
export const parseLoad = (text: string): Load | undefined => {
  const [of1, of5, of15] = words(text).slice(0, 3).map(Number)
  if (of1 === undefined || of5 === undefined || of15 === undefined) return undefined
  return allFinite([of1, of5, of15]) ? { of1, of5, of15 } : undefined
}

/** /proc/uptime, in seconds. */
export const parseUptime = (text: string): number | undefined => {
  const [first = ''] = words(text)
  return first !== '' && Number.isFinite(Number(first)) ? Number(first) : undefined
}
