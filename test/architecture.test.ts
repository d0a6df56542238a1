// Rules about the code's shape that no type can state.

import { readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { VERSION } from '../schemas/version.ts'

const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  schemas: [],
  streams: ['schemas'],
  edge: ['schemas', 'streams'],
  cloud: ['schemas', 'streams'],
  bench: ['schemas', 'streams', 'edge', 'cloud'],
}
const ALL = Object.keys(MAY_IMPORT)
const sourcesOf = (folders: readonly string[]) =>
  folders.flatMap(folder =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter(file => file.endsWith('.ts'))
      .map(file => `${folder}/${file}`),
  )
const read = (file: string) => readFileSync(file, 'utf8')
/** Without comments and texts, in which anything may be said. */
const code = (file: string) =>
  read(file)
    .replace(/\/\*[\s\S]*?\*\/|(^|\s)\/\/.*$/gm, '$1')
    .replace(/'(?:[^'\\\n]|\\.)*'/g, "''")
const importsOf = (file: string) =>
  [...read(file).matchAll(/(?:from|import)\s+'(\.{1,2}\/[^']+)'/g)].map(([, target = '']) =>
    normalize(join(dirname(file), target)),
  )

test('imports point inwards', () => {
  for (const file of sourcesOf(ALL)) {
    const own = file.split('/')[0] ?? ''
    for (const target of importsOf(file)) {
      const to = target.split('/')[0] ?? ''
      assert.ok(to === own || MAY_IMPORT[own]?.includes(to), `${file} must not import ${target}`)
    }
  }
})

test('concerns never import each other: only main and compose know them all', () => {
  for (const file of sourcesOf(['edge', 'cloud'])) {
    const [top, concern, ...rest] = file.split('/')
    if (rest.length === 0) continue
    for (const target of importsOf(file)) {
      const [toTop, toConcern, ...toRest] = target.split('/')
      assert.ok(
        toTop !== top || toRest.length === 0 || toConcern === concern,
        `${file} must not import ${target}`,
      )
    }
  }
})

test('time, chance and timers come from the context', () => {
  const ambient = /\b(Date\.now\(|new Date\(\)|Math\.random\()|(?<![.\w])(setTimeout|setInterval)\(/
  for (const file of sourcesOf(['schemas', 'streams', 'edge', 'cloud'])) {
    if (file === 'streams/run/clock.ts') continue
    assert.not.ok(ambient.test(code(file)), file)
  }
})

test('the process belongs to main', () => {
  for (const file of sourcesOf(['schemas', 'streams', 'edge', 'cloud'])) {
    if (/\/main\.ts$/.test(file) || file === 'streams/run/clock.ts') continue
    assert.not.ok(/(?<![.\w])process\./.test(code(file)), file)
  }
})

test('.subscribe( stands only at the rim: in main, or inside a new Observable', () => {
  for (const file of sourcesOf(['schemas', 'streams', 'edge', 'cloud'])) {
    const text = code(file)
    if (!text.includes('.subscribe(') || /\/main\.ts$/.test(file)) continue
    assert.ok(/new (Observable|Subscription)\b/.test(text), `${file} subscribes, and makes no Observable`)
  }
})

test('files stay small and say what they hold', () => {
  for (const file of sourcesOf(ALL)) {
    assert.ok(read(file).split('\n').length <= 320, `${file} is too long`)
    assert.ok(/^(\/\/|#!)/.test(read(file)), `${file} has no head comment`)
  }
})

test('no default exports, no barrels', () => {
  for (const file of sourcesOf(['schemas', 'streams', 'edge', 'cloud', 'bench'])) {
    assert.not.ok(/^export default\b/m.test(code(file)), file)
    assert.not.ok(/^export \*/m.test(code(file)), file)
  }
})

test('the top level is what the design says', () => {
  const allowed = new Set([
    ...ALL,
    'test',
    'node_modules',
    'dist',
    '.git',
    '.ci',
    '.gitignore',
    '.headgate',
    'package.json',
    'package-lock.json',
    'tsconfig.json',
    'tsconfig.build.json',
    'biome.json',
    'README.md',
    'ARCHITECTURE.md',
    'CONTRIBUTING.md',
    'CHANGELOG.md',
    'SECURITY.md',
    'LICENSE',
  ])
  for (const name of readdirSync('.')) assert.ok(allowed.has(name), `${name} does not belong here`)
})

test('every package is pinned, and the version stands once', () => {
  const { version, dependencies, devDependencies } = JSON.parse(read('package.json')) as Record<
    'version',
    string
  > &
    Record<string, Record<string, string>>
  assert.is(version, VERSION)
  for (const [name, range] of Object.entries({ ...dependencies, ...devDependencies }))
    assert.match(range, /^\d+\.\d+\.\d+$/, name)
})

test("the programs' shims can be run", () => {
  for (const file of ['edge/headgate-edge.js', 'cloud/headgate-cloud.js', '.ci/run'])
    assert.ok(statSync(file).mode & 0o100, file)
})

test.run()
