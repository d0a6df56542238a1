// Runs each test file in its own process and refuses false greens: uvu exits 0 when a test throws a non-Error, and
// when nothing called run(). Requires exit 0, a total above zero and passed = total. The last line is the sum.

import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'

/** An open handle hangs a file: it is ended, and counts as failed. */
const FILE_MS_MAX = 180_000
/** Files that measure or that load the machine run alone, after the others. */
const ALONE = /^test\/(system|crash|bench)\//

interface Outcome {
  readonly file: string
  readonly passed: number
  readonly failed: number
  readonly output: string
  readonly elapsedMs: number
}

const runFile = (file: string): Promise<Outcome> =>
  new Promise(resolve => {
    const startedMs = performance.now()
    const child = spawn(process.execPath, ['--import', 'tsx', file], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, FORCE_COLOR: '0' },
    })
    let output = ''
    const limit = setTimeout(() => {
      output += `\nended after ${FILE_MS_MAX} ms\n`
      child.kill('SIGKILL')
    }, FILE_MS_MAX)
    child.stdout.on('data', chunk => {
      output += String(chunk)
    })
    child.stderr.on('data', chunk => {
      output += String(chunk)
    })
    child.on('close', code => {
      clearTimeout(limit)
      // A file may hold several suites: each prints a summary.
      const sum = (label: string) =>
        [...output.matchAll(new RegExp(`^\\s*${label}:\\s+(\\d+)`, 'gm'))].reduce(
          (total, [, n]) => total + Number(n),
          0,
        )
      const total = sum('Total')
      const passed = sum('Passed')
      const isGreen = code === 0 && total > 0 && passed === total
      resolve({
        file,
        passed,
        failed: isGreen ? 0 : Math.max(1, total - passed),
        output,
        elapsedMs: performance.now() - startedMs,
      })
    })
  })

const wanted = process.argv.slice(2)
const files = readdirSync('test', { recursive: true, encoding: 'utf8' })
  .filter(file => file.endsWith('.test.ts'))
  .map(file => `test/${file}`)
  .filter(file => wanted.length === 0 || wanted.some(part => file.includes(part)))
  .toSorted()

const outcomes: Outcome[] = []
const runAll = async (queue: string[], workers: number): Promise<void> => {
  const work = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const outcome = await runFile(file)
      outcomes.push(outcome)
      console.log(
        `${outcome.failed === 0 ? 'ok  ' : 'FAIL'} ${file} (${outcome.passed} in ${(outcome.elapsedMs / 1_000).toFixed(1)} s)`,
      )
      if (outcome.failed > 0) console.log(outcome.output)
    }
  }
  await Promise.all(Array.from({ length: workers }, work))
}

await runAll(
  files.filter(file => !ALONE.test(file)),
  availableParallelism(),
)
await runAll(
  files.filter(file => ALONE.test(file)),
  1,
)

const passed = outcomes.reduce((sum, outcome) => sum + outcome.passed, 0)
const failed = outcomes.reduce((sum, outcome) => sum + outcome.failed, 0)
console.log(`${passed} passed, ${failed + (files.length === 0 ? 1 : 0)} failed`)
process.exitCode = failed === 0 && files.length > 0 ? 0 : 1
