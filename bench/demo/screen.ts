// The demo's output: lines, and one line of state that stays last on a terminal and is rewritten in place there.

import type { WriteStream } from 'node:tty'

export interface Screen {
  readonly isTerminal: boolean
  say(text: string): void
  /** The state as of now. */
  update(line: string): void
  /** Takes the state away. */
  clear(): void
}

const CLEAR_LINE = '\r\u001b[K'
const COLUMNS_DEFAULT = 80

export const openScreen = (out: WriteStream): Screen => {
  const isTerminal = out.isTTY === true
  let state = ''
  return {
    isTerminal,
    say: text => {
      out.write(state === '' ? `${text}\n` : `${CLEAR_LINE}${text}\n${state}`)
    },
    update: line => {
      if (!isTerminal) return void out.write(`${line}\n`)
      // A line that wraps could not be taken back.
      state = line.slice(0, (out.columns || COLUMNS_DEFAULT) - 1)
      out.write(`${CLEAR_LINE}${state}`)
    },
    clear: () => {
      if (state !== '') out.write(CLEAR_LINE)
      state = ''
    },
  }
}
