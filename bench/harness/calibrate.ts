// What the machine is and what it can do: printed with every result, so that results of two machines can be compared.
// Nothing of Headgate is in it.

import { createHash, randomBytes } from 'node:crypto'
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { percentile, type Result, rounded } from '../scenario.ts'
import { measureHandshakes } from './handshakes.ts'

const APPEND_BYTES = 4_096
const HASHED_BYTES = 1024 * 1024

/** What it is; the disk is that of the data folders, which the harness makes under the temporary folder. */
export const describeMachine = () => ({
  cpu: cpus()[0]?.model.trim() ?? 'unknown',
  cores: availableParallelism(),
  memoryGb: rounded(totalmem() / 2 ** 30),
  node: process.version,
})

/** Milliseconds of each append of 4 KB with its fdatasync, for that long: beside them a log's rate can be judged. */
export const measureSync = (
  forMs: number,
): { readonly perSecond: number; readonly latenciesMs: number[] } => {
  const folder = mkdtempSync(join(tmpdir(), 'headgate-sync-'))
  const file = openSync(join(folder, 'appended'), 'w')
  try {
    const bytes = randomBytes(APPEND_BYTES)
    const latenciesMs: number[] = []
    const startedMs = performance.now()
    let atMs = startedMs
    while (atMs - startedMs < forMs) {
      writeSync(file, bytes)
      fdatasyncSync(file)
      const doneMs = performance.now()
      latenciesMs.push(doneMs - atMs)
      atMs = doneMs
    }
    return { perSecond: latenciesMs.length / ((atMs - startedMs) / 1_000), latenciesMs }
  } finally {
    closeSync(file)
    rmSync(folder, { recursive: true, force: true })
  }
}

/** MB a second on one core. */
export const measureSha256 = (forMs: number): number => {
  const bytes = randomBytes(HASHED_BYTES)
  const hash = createHash('sha256')
  const startedMs = performance.now()
  let hashed = 0
  while (performance.now() - startedMs < forMs) {
    hash.update(bytes)
    hashed += bytes.length
  }
  return hashed / 1e6 / ((performance.now() - startedMs) / 1_000)
}

const SYNC_MS = 300
const SHA256_MS = 100
const HANDSHAKES_MS = 500

/** Takes about a second. */
export const calibrate = async (): Promise<Result> => {
  const sync = measureSync(SYNC_MS)
  const sha256MbPerSecond = Math.round(measureSha256(SHA256_MS))
  const { full } = await measureHandshakes({ forMs: HANDSHAKES_MS, resumed: false })
  return {
    ...describeMachine(),
    fdatasyncPerSecond: Math.round(sync.perSecond),
    fdatasyncP50Ms: rounded(percentile(sync.latenciesMs, 0.5), 2),
    fdatasyncP99Ms: rounded(percentile(sync.latenciesMs, 0.99), 2),
    sha256MbPerSecond,
    handshakesPerSecond: Math.round(full.perSecond),
  }
}
