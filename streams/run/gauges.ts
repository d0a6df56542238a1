// Gauges that are read when somebody asks.

import { Gauge, type Registry } from 'prom-client'

export type SetGauge = (value: number, labels?: Readonly<Record<string, string>>) => void

/** `headgate_<program>_<name>`; `collect` is called at each scrape. */
export const gaugesOf =
  (registry: Registry, program: 'edge' | 'cloud') =>
  (name: string, help: string, labelNames: readonly string[], collect: (set: SetGauge) => void): void => {
    const gauge = new Gauge({
      name: `headgate_${program}_${name}`,
      help,
      labelNames: [...labelNames],
      registers: [registry],
      collect: () =>
        collect((value, labels) => (labels === undefined ? gauge.set(value) : gauge.set(labels, value))),
    })
  }
