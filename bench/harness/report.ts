// Results on disk: a line of JSON each in results.jsonl, and one page that draws them all and needs no internet.
//
// The lines are the truth: the page is made anew from all of them each time.

import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { Flags, Result } from '../scenario.ts'
import { verdicts } from '../targets.ts'
import type { Plot } from './plots.ts'
import { PROJECT } from './process.ts'

export interface Outcome {
  readonly scenario: string
  /** ISO 8601. */
  readonly at: string
  readonly flags: Flags
  readonly result: Result
  readonly plots: readonly Plot[]
}

/** Adds the outcomes to what stands in the folder; returns the page's path. */
export const writeReport = (folder: string, outcomes: readonly Outcome[]): string => {
  mkdirSync(folder, { recursive: true })
  const lines = join(folder, 'results.jsonl')
  for (const outcome of outcomes) appendFileSync(lines, `${JSON.stringify(outcome)}\n`)
  const all = readFileSync(lines, 'utf8')
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line) as Outcome)
  const page = join(folder, 'report.html')
  writeFileSync(page, pageOf(all))
  return page
}

const pageOf = (outcomes: readonly Outcome[]): string => {
  const uplot = dirname(createRequire(import.meta.url).resolve('uplot/package.json'))
  const [script, style] = ['uPlot.iife.min.js', 'uPlot.min.css'].map(name =>
    readFileSync(join(uplot, 'dist', name), 'utf8'),
  )
  const template = readFileSync(join(PROJECT, 'bench/harness/report.html'), 'utf8')
  const data = outcomes.map(outcome => ({ ...outcome, verdicts: verdicts(outcome) }))
  const parts: Readonly<Record<string, string>> = {
    'uplot.css': style ?? '',
    'uplot.js': script ?? '',
    // "</script>" inside a string would end the element.
    data: JSON.stringify(data).replaceAll('<', '\\u003c'),
  }
  return template.replace(/\/\*\{(\S+)\}\*\//g, (_, name: string) => parts[name] ?? '')
}
