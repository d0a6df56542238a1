// Takes a sample of this machine, or of a recorded tree: /proc and /sys lie under `root`.
//
// Reads on the thread pool, because sensors behind a slow bus take their time. Never rejects: what is
// missing, unreadable or not understood is left out.

import { readdir, readFile, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../streams/run/clock.ts'
import {
  parseCpu,
  parseDisks,
  parseInterfaces,
  parseLoad,
  parseMemory,
  parseProgram,
  parseUptime,
} from './proc.ts'
import type { Filesystem, Sample } from './sample.ts'
import { readTemperatures } from './temperature.ts'

export interface MetricSources {
  /** Where proc and sys lie: `/` but in tests. */
  readonly root: string
  /**
   * Folders whose file systems are measured; not under `root`. A hung network mount would hang the sampler.
   */
  readonly mounts: readonly string[]
}

export const readMetrics = async ({ root, mounts }: MetricSources, clock: Clock): Promise<Sample> => {
  const read = (path: string) => readText(join(root, path))
  const [stat, meminfo, interfaces, diskstats, loadavg, uptime, status, disks, temperatures, filesystems] =
    await Promise.all([
      read('proc/stat'),
      read('proc/meminfo'),
      read('proc/net/dev'),
      read('proc/diskstats'),
      read('proc/loadavg'),
      read('proc/uptime'),
      read('proc/self/status'),
      list(join(root, 'sys/block')),
      readTemperatures(root),
      Promise.all(mounts.map(readFilesystem)),
    ])
  return {
    atMs: clock.nowMs(),
    monoMs: clock.monoMs(),
    cpu: parseCpu(stat),
    memory: parseMemory(meminfo),
    interfaces: parseInterfaces(interfaces),
    filesystems: filesystems.filter(found => found !== undefined),
    disks: parseDisks(diskstats, name => isPhysical(name) && (disks.length === 0 || disks.includes(name))),
    load: parseLoad(loadavg),
    temperatures,
    uptimeS: parseUptime(uptime),
    program: parseProgram(status),
  }
}

/** Memory and files in the dress of disks would be counted twice. */
const isPhysical = (name: string): boolean => !/^(loop|ram|zram)\d/.test(name)

/** Empty when there is none. */
const readText = (file: string): Promise<string> => readFile(file, 'utf8').catch(() => '')
const list = (folder: string): Promise<string[]> => readdir(folder).catch(() => [])

const readFilesystem = async (mount: string): Promise<Filesystem | undefined> => {
  try {
    const { bsize, blocks, bavail, files, ffree } = await statfs(mount)
    return { mount, totalBytes: blocks * bsize, freeBytes: bavail * bsize, files, filesFree: ffree }
  } catch {
    return undefined
  }
}
