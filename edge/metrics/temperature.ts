// Temperatures from the kernel's two trees: thermal zones and hardware monitors. Values are in millidegrees.

import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Temperature } from './sample.ts'

/** Sensors report these when they are not connected or not read yet. */
const CELSIUS_MIN = -100
const CELSIUS_MAX = 250

/**
 * All that can be read, named by their kind, `-2` and so on behind a name that occurs again. Never rejects.
 */
export const readTemperatures = async (root: string): Promise<Temperature[]> => {
  const [zones, monitors] = await Promise.all([
    readZones(join(root, 'sys/class/thermal')),
    readMonitors(join(root, 'sys/class/hwmon')),
  ])
  const seen = new Map<string, number>()
  return [...zones, ...monitors].flatMap(({ name, text }) => {
    const celsius = text === '' ? Number.NaN : Number(text) / 1000
    if (!(celsius > CELSIUS_MIN && celsius < CELSIUS_MAX)) return []
    const count = (seen.get(name) ?? 0) + 1
    seen.set(name, count)
    return [{ name: count === 1 ? name : `${name}-${count}`, celsius }]
  })
}

interface Reading {
  readonly name: string
  readonly text: string
}

const readZones = async (folder: string): Promise<Reading[]> => {
  const zones = (await list(folder)).filter(name => name.startsWith('thermal_zone'))
  return Promise.all(
    zones.map(async zone => {
      const [type, text] = await Promise.all([
        line(join(folder, zone, 'type')),
        line(join(folder, zone, 'temp')),
      ])
      return { name: type === '' ? zone : type, text }
    }),
  )
}

const readMonitors = async (folder: string): Promise<Reading[]> => {
  const monitors = await Promise.all(
    (await list(folder)).map(async monitor => {
      const own = await line(join(folder, monitor, 'name'))
      const inputs = (await list(join(folder, monitor))).filter(file => /^temp\d+_input$/.test(file))
      return Promise.all(
        inputs.map(async input => {
          const sensor = input.slice(0, -'_input'.length)
          const [label, text] = await Promise.all([
            line(join(folder, monitor, `${sensor}_label`)),
            line(join(folder, monitor, input)),
          ])
          return { name: `${own === '' ? monitor : own}-${label === '' ? sensor : label}`, text }
        }),
      )
    }),
  )
  return monitors.flat()
}

const line = async (file: string): Promise<string> => (await readFile(file, 'utf8').catch(() => '')).trim()
/** In the order of their numbers, so that a sensor keeps its name. */
const list = async (folder: string): Promise<string[]> =>
  (await readdir(folder).catch(() => [])).toSorted((one, other) =>
    one.localeCompare(other, 'en', { numeric: true }),
  )
