// What the demo's devices measured: two weather stations and an observatory, from the npm package vega-datasets.
//
//   weather.csv            Seattle and New York, each day of 2012–2015. NOAA Climate Data Online; U.S. Government work.
//   co2-concentration.csv  Mauna Loa, monthly from 1958. Scripps CO2 Program, scrippsco2.ucsd.edu; CC BY 4.0.
//
// Each row becomes a few SenML packs (RFC 8428), one a topic. A pack's time is the replay's; the day of the measurement
// stands beside it under `date`.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { encodeSenmlJson } from '../../schemas/senml/json.ts'
import type { SenmlRecord } from '../../schemas/senml/record.ts'

export interface Message {
  readonly topic: string
  readonly records: readonly SenmlRecord[]
}

export interface Device {
  readonly name: string
  /** Rows in the order of their measurement, each as its messages. */
  readonly rows: readonly (readonly Message[])[]
}

export const ORIGIN = [
  'Seattle and New York, daily 2012–2015: NOAA Climate Data Online (U.S. Government work)',
  'CO2 at Mauna Loa, monthly since 1958: Scripps CO2 Program, scrippsco2.ucsd.edu (CC BY 4.0)',
  'both as in the npm package vega-datasets',
]

/** The bytes of a message, measured at `atMs`. */
export const packOf = ({ topic, records: [first, ...rest] }: Message, atMs: number): Buffer => {
  const base = `${topic.slice(0, topic.lastIndexOf('/'))}/`
  return encodeSenmlJson([{ bn: base, bt: atMs / 1_000, ...first }, ...rest])
}

/** Throws when the package is not installed, or a row lacks what it should hold. */
export const devices = (folder: string = dataFolder()): Device[] => {
  const days = rowsOf(join(folder, 'weather.csv'))
  const months = rowsOf(join(folder, 'co2-concentration.csv'))
  return [
    {
      name: 'seattle',
      rows: days.filter(row => row.text('location') === 'Seattle').map(row => weather('seattle', row)),
    },
    {
      name: 'new-york',
      rows: days.filter(row => row.text('location') === 'New York').map(row => weather('new-york', row)),
    },
    { name: 'mauna-loa', rows: months.map(carbonDioxide) },
  ]
}

const dataFolder = (): string => join(createRequire(import.meta.url).resolve('vega-datasets'), '../../data')

// Units as registered for SenML: RFC 8428 section 12.1, and RFC 8798 for mm and ppm.
const weather = (place: string, row: Row): Message[] => [
  {
    topic: `weather/${place}/temperature`,
    records: [
      { n: 'temperature/max', u: 'Cel', v: row.number('temp_max') },
      { n: 'temperature/min', u: 'Cel', v: row.number('temp_min') },
    ],
  },
  {
    topic: `weather/${place}/precipitation`,
    records: [{ n: 'precipitation', u: 'mm', v: row.number('precipitation') }],
  },
  // The package says km/h. NOAA's AWND, from which it comes, is m/s, and only that gives a Seattle mean of 3.2.
  { topic: `weather/${place}/wind`, records: [{ n: 'wind', u: 'm/s', v: row.number('wind') }] },
  {
    topic: `weather/${place}/sky`,
    records: [
      { n: 'sky', vs: row.text('weather') },
      { n: 'date', vs: row.text('date') },
    ],
  },
]

const carbonDioxide = (row: Row): Message[] => [
  {
    topic: 'air/mauna-loa/co2',
    records: [
      { n: 'co2', u: 'ppm', v: row.number('CO2') },
      { n: 'co2/seasonally-adjusted', u: 'ppm', v: row.number('adjusted CO2') },
      { n: 'date', vs: row.text('Date') },
    ],
  },
]

interface Row {
  text(column: string): string
  number(column: string): number
}

/** These files quote nothing. */
const rowsOf = (file: string): Row[] => {
  const [head = '', ...lines] = readFileSync(file, 'utf8').trim().split(/\r?\n/)
  const columns = head.split(',')
  return lines.map((line, i): Row => {
    const cells = line.split(',')
    const text = (column: string): string => {
      const cell = cells[columns.indexOf(column)]
      if (cell === undefined || cell === '') throw new Error(`${file}, line ${i + 2}: no ${column}`)
      return cell
    }
    const number = (column: string): number => {
      const value = Number(text(column))
      if (!Number.isFinite(value)) throw new Error(`${file}, line ${i + 2}: ${column} is no number`)
      return value
    }
    return { text, number }
  })
}
