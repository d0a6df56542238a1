// Where a run tells how far it is: bars on a terminal, a line for each tenth elsewhere, nothing when only the result
// is wanted. Standard output stays free for the result.

import { Presets, SingleBar } from 'cli-progress'
import type { Told } from '../scenario.ts'
import type { Plot } from './plots.ts'

export interface Teller extends Told {
  readonly plots: readonly Plot[]
  end(): void
}

export const openTeller = (quiet: boolean): Teller => {
  const plots: Plot[] = []
  const isTerminal = process.stderr.isTTY === true
  let bar: { readonly what: string; readonly shown: SingleBar } | undefined
  let lastTenth = ''
  const end = (): void => {
    bar?.shown.stop()
    bar = undefined
  }
  return {
    plots,
    plot: plot => void plots.push(plot),
    say: line => {
      end()
      if (!quiet) process.stderr.write(`${line}\n`)
    },
    progress: (what, done, total) => {
      if (quiet || total <= 0) return
      if (!isTerminal) {
        const tenth = `${what} ${Math.floor((done / total) * 10) * 10} %`
        if (tenth !== lastTenth) process.stderr.write(`${tenth}\n`)
        lastTenth = tenth
        return
      }
      if (bar?.what !== what) {
        end()
        const shown = new SingleBar(
          {
            format: `${what} {bar} {percentage} % | {value} of {total} | {duration_formatted}`,
            hideCursor: true,
          },
          Presets.shades_grey,
        )
        shown.start(total, done)
        bar = { what, shown }
      }
      bar.shown.update(Math.min(done, total))
      if (done >= total) end()
    },
    end,
  }
}

/** For tests and nested runs. */
export const silent: Told = { say: () => undefined, progress: () => undefined, plot: () => undefined }
