// The calibration of every other result, measured for longer: appends with fdatasync, SHA-256, mutual TLS handshakes
// with a bare server, full and resumed.

import { describeMachine, measureSha256, measureSync } from './harness/calibrate.ts'
import { measureHandshakes } from './harness/handshakes.ts'
import { percentilesOf } from './harness/plots.ts'
import { percentile, rounded, type Scenario } from './scenario.ts'

const FOR_MS = 1_500
const FOR_TINY_MS = 200

export const machine: Scenario = {
  name: 'machine',
  says: 'what this machine is and can do: fdatasync, SHA-256, mutual TLS handshakes with a bare server',
  minutesMax: 1,
  run: async ({ tiny }, told) => {
    const forMs = tiny ? FOR_TINY_MS : FOR_MS
    told.say('appends of 4 KB, each with its fdatasync')
    const sync = measureSync(forMs)
    told.say('SHA-256 on one core')
    const sha256MbPerSecond = measureSha256(forMs / 3)
    told.say('mutual TLS 1.3 handshakes, EC P-256: full, then resumed')
    const { full, resumed } = await measureHandshakes({ forMs, resumed: true })
    const resumedMs = resumed?.latenciesMs ?? []
    told.plot({
      title: 'Append of 4 KB with fdatasync',
      unit: 'ms',
      over: 'percent',
      lines: [percentilesOf('fdatasync', sync.latenciesMs)],
    })
    told.plot({
      title: 'Handshakes with a bare server, 16 at once',
      unit: 'ms',
      over: 'percent',
      lines: [percentilesOf('full', full.latenciesMs), percentilesOf('resumed', resumedMs)],
    })
    return {
      ...describeMachine(),
      fdatasyncPerSecond: Math.round(sync.perSecond),
      fdatasyncP50Ms: rounded(percentile(sync.latenciesMs, 0.5), 2),
      fdatasyncP99Ms: rounded(percentile(sync.latenciesMs, 0.99), 2),
      sha256MbPerSecond: Math.round(sha256MbPerSecond),
      handshakesPerSecond: Math.round(full.perSecond),
      handshakeP50Ms: rounded(percentile(full.latenciesMs, 0.5)),
      handshakeP99Ms: rounded(percentile(full.latenciesMs, 0.99)),
      resumedPerSecond: Math.round(resumed?.perSecond ?? 0),
      resumedP50Ms: rounded(percentile(resumedMs, 0.5)),
      resumedP99Ms: rounded(percentile(resumedMs, 0.99)),
      durability: 'each append of 4 KB is followed by fdatasync',
    }
  },
}
