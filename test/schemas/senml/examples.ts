// The published examples of RFC 8428, section 5.1, with their resolved forms. Times without base are relative
// to NOW_MS. One line a resolved record: name, unit, time, value.

export const NOW_MS = 1_700_000_000_500
const now = NOW_MS / 1000

export type Line = readonly [name: string, unit: string | undefined, time: number, value: unknown]
export interface Example {
  readonly section: string
  readonly json: string
  readonly resolved: readonly Line[]
}

const ow = 'urn:dev:ow:10e2073a01080063'
const t0 = 1_320_067_464
const lights = 1_320_078_429

export const EXAMPLES: readonly Example[] = [
  {
    section: '5.1.1',
    json: '[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]',
    resolved: [[ow, 'Cel', now, 23.1]],
  },
  {
    section: '5.1.2, at an unspecified time',
    json: `[ {"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},
             {"n":"current","u":"A","v":1.2} ]`,
    resolved: [
      [`${ow}:voltage`, 'V', now, 120.1],
      [`${ow}:current`, 'A', now, 1.2],
    ],
  },
  {
    section: '5.1.2, at each second',
    json: `[ {"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},
      {"n":"current","t":-5,"v":1.2}, {"n":"current","t":-4,"v":1.3}, {"n":"current","t":-3,"v":1.4},
      {"n":"current","t":-2,"v":1.5}, {"n":"current","t":-1,"v":1.6}, {"n":"current","v":1.7} ]`,
    // In chronological order, as section 4.6 asks: the voltage, given first, is among the newest.
    resolved: [
      ['urn:dev:ow:10e2073a0108006:current', 'A', 1_276_020_071.001, 1.2],
      ['urn:dev:ow:10e2073a0108006:current', 'A', 1_276_020_072.001, 1.3],
      ['urn:dev:ow:10e2073a0108006:current', 'A', 1_276_020_073.001, 1.4],
      ['urn:dev:ow:10e2073a0108006:current', 'A', 1_276_020_074.001, 1.5],
      ['urn:dev:ow:10e2073a0108006:current', 'A', 1_276_020_075.001, 1.6],
      ['urn:dev:ow:10e2073a0108006:voltage', 'V', 1_276_020_076.001, 120.1],
      ['urn:dev:ow:10e2073a0108006:current', 'A', 1_276_020_076.001, 1.7],
    ],
  },
  {
    section: '5.1.3, resolved in 5.1.4',
    json: `[ {"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":20},
      {"u":"lon","v":24.30621}, {"u":"lat","v":60.07965}, {"t":60,"v":20.3}, {"u":"lon","t":60,"v":24.30622},
      {"u":"lat","t":60,"v":60.07965}, {"t":120,"v":20.7}, {"u":"lon","t":120,"v":24.30623},
      {"u":"lat","t":120,"v":60.07966}, {"u":"%EL","t":150,"v":98}, {"t":180,"v":21.2},
      {"u":"lon","t":180,"v":24.30628}, {"u":"lat","t":180,"v":60.07967} ]`,
    resolved: [
      [ow, '%RH', t0, 20],
      [ow, 'lon', t0, 24.30621],
      [ow, 'lat', t0, 60.07965],
      [ow, '%RH', t0 + 60, 20.3],
      [ow, 'lon', t0 + 60, 24.30622],
      [ow, 'lat', t0 + 60, 60.07965],
      [ow, '%RH', t0 + 120, 20.7],
      [ow, 'lon', t0 + 120, 24.30623],
      [ow, 'lat', t0 + 120, 60.07966],
      [ow, '%EL', t0 + 150, 98],
      [ow, '%RH', t0 + 180, 21.2],
      [ow, 'lon', t0 + 180, 24.30628],
      [ow, 'lat', t0 + 180, 60.07967],
    ],
  },
  {
    section: '5.1.5',
    json: `[ {"bn":"urn:dev:ow:10e2073a01080063:","n":"temp","u":"Cel","v":23.1}, {"n":"label","vs":"Machine Room"},
      {"n":"open","vb":false}, {"n":"nfc-reader","vd":"aGkgCg"} ]`,
    resolved: [
      [`${ow}:temp`, 'Cel', now, 23.1],
      [`${ow}:label`, undefined, now, 'Machine Room'],
      [`${ow}:open`, undefined, now, false],
      [`${ow}:nfc-reader`, undefined, now, Buffer.from('hi \n')],
    ],
  },
  {
    section: '5.1.6',
    json: `[ {"bn":"2001:db8::2/","bt":1.320078429e+09,"n":"temperature","u":"Cel","v":25.2},
      {"n":"humidity","u":"%RH","v":30}, {"bn":"2001:db8::1/","n":"temperature","u":"Cel","v":12.3},
      {"n":"humidity","u":"%RH","v":67} ]`,
    resolved: [
      ['2001:db8::2/temperature', 'Cel', lights, 25.2],
      ['2001:db8::2/humidity', '%RH', lights, 30],
      ['2001:db8::1/temperature', 'Cel', lights, 12.3],
      ['2001:db8::1/humidity', '%RH', lights, 67],
    ],
  },
  {
    section: '5.1.7, a thermostat, with a record of base fields alone',
    json: `[ {"bn":"urn:dev:ow:10e2073a01080063:"}, {"n":"temp","u":"Cel","v":23.1}, {"n":"heat","u":"/","v":1},
      {"n":"fan","u":"/","v":0} ]`,
    resolved: [
      [`${ow}:temp`, 'Cel', now, 23.1],
      [`${ow}:heat`, '/', now, 1],
      [`${ow}:fan`, '/', now, 0],
    ],
  },
  {
    section: '5.1.7, two lights on',
    json: '[ {"bt":1.320078429e+09,"bu":"/","n":"2001:db8::3","v":1}, {"n":"2001:db8::4","v":1} ]',
    resolved: [
      ['2001:db8::3', '/', lights, 1],
      ['2001:db8::4', '/', lights, 1],
    ],
  },
  {
    section: '5.1.7, two lights off',
    json: `[ {"bt":1.320078429e+09,"bu":"/","n":"2001:db8::3","v":0.5}, {"n":"2001:db8::4","v":0.5},
      {"n":"2001:db8::3","t":0.1,"v":0}, {"n":"2001:db8::4","t":0.1,"v":0} ]`,
    resolved: [
      ['2001:db8::3', '/', lights, 0.5],
      ['2001:db8::4', '/', lights, 0.5],
      ['2001:db8::3', '/', lights + 0.1, 0],
      ['2001:db8::4', '/', lights + 0.1, 0],
    ],
  },
]

/** Section 6: the pack of 5.1.2, "at each second", as CBOR. */
export const EXAMPLE_CBOR = `
  87 a7 21 78 1b 75 72 6e 3a 64 65 76 3a 6f 77 3a 31 30 65 32 30 37 33 61 30 31 30 38 30 30 36 3a
  22 fb 41 d3 03 a1 5b 00 10 62 23 61 41 20 05 00 67 76 6f 6c 74 61 67 65 01 61 56 02 fb 40 5e 06
  66 66 66 66 66 a3 00 67 63 75 72 72 65 6e 74 06 24 02 fb 3f f3 33 33 33 33 33 33 a3 00 67 63 75
  72 72 65 6e 74 06 23 02 fb 3f f4 cc cc cc cc cc cd a3 00 67 63 75 72 72 65 6e 74 06 22 02 fb 3f
  f6 66 66 66 66 66 66 a3 00 67 63 75 72 72 65 6e 74 06 21 02 f9 3e 00 a3 00 67 63 75 72 72 65 6e
  74 06 20 02 fb 3f f9 99 99 99 99 99 9a a3 00 67 63 75 72 72 65 6e 74 06 00 02 fb 3f fb 33 33 33
  33 33 33`
