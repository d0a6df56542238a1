// A program's log: JSON lines, or readable ones in a terminal. Never to standard output, which is for answers.

import { type Logger, pino } from 'pino'
import pretty from 'pino-pretty'

export interface LoggerOptions {
  readonly name: string
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly isTerminal: boolean
}

const STANDARD_ERROR = 2

export const openLogger = ({ name, level, isTerminal }: LoggerOptions): Logger => {
  const options = { name, level, base: { name }, timestamp: pino.stdTimeFunctions.isoTime }
  if (!isTerminal) return pino(options, pino.destination({ dest: STANDARD_ERROR, sync: true }))
  return pino(
    options,
    pretty({
      destination: STANDARD_ERROR,
      sync: true,
      ignore: 'pid,hostname,name',
      translateTime: 'HH:MM:ss.l',
    }),
  )
}
