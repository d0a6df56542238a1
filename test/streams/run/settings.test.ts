import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { z } from 'zod'
import { isFault } from '../../../streams/run/fault.ts'
import { loadSettings } from '../../../streams/run/settings.ts'
import { lineOf } from '../../../streams/run/toml-lines.ts'

const schema = z.strictObject({
  name: z.string().optional(),
  export: z
    .strictObject({
      windowBytesMax: z.int().min(1).default(1_048_576),
      window: z.strictObject({ bytes: z.int().default(1) }).prefault({}),
      enabled: z.boolean().default(true),
      topics: z.array(z.string()).default([]),
      level: z.enum(['info', 'debug']).default('info'),
      retry: z.union([z.literal('never'), z.number()]).default(5),
    })
    .prefault({}),
  streams: z
    .record(
      z.string(),
      z.strictObject({ maxBytes: z.int().default(1), onFull: z.string().default('refuse') }),
    )
    .default({}),
  listen: z.array(z.strictObject({ port: z.int() })).default([]),
})

const load = (text: string | undefined, environment: Record<string, string> = {}) =>
  loadSettings({
    file: '/etc/edge.toml',
    text,
    environment,
    prefix: 'EDGE',
    schema,
    reserved: ['EDGE_CONFIG'],
  })

const refusal = (text: string | undefined, environment: Record<string, string> = {}): string => {
  try {
    load(text, environment)
  } catch (thrown) {
    if (!isFault(thrown)) throw thrown
    assert.is(thrown.code, 'config_invalid')
    assert.ok(thrown.message.startsWith('/etc/edge.toml: '), thrown.message)
    return thrown.message.slice('/etc/edge.toml: '.length)
  }
  return 'accepted'
}

test('without a file and variables everything has its default', () => {
  const settings = load(undefined)
  assert.is(settings.export.windowBytesMax, 1_048_576)
  assert.equal(settings.streams, {})
})

test('the file is read as TOML', () => {
  const settings = load(
    'name = "gw"\n[export]\nwindowBytesMax = 4_096\n[streams.data]\nmaxBytes = 7\n[[listen]]\nport = 1',
  )
  assert.is(settings.name, 'gw')
  assert.is(settings.export.windowBytesMax, 4_096)
  assert.equal(settings.streams, { data: { maxBytes: 7, onFull: 'refuse' } })
  assert.equal(settings.listen, [{ port: 1 }])
})

test('variables stand above the file, as the type that the schema wants', () => {
  const settings = load('[export]\nwindowBytesMax = 1\nlevel = "info"', {
    EDGE_NAME: '17',
    EDGE_EXPORT_WINDOW_BYTES_MAX: '2_000',
    EDGE_EXPORT_ENABLED: 'false',
    EDGE_EXPORT_LEVEL: 'debug',
    EDGE_EXPORT_TOPICS: '["a", "b"]',
    EDGE_EXPORT_RETRY: '9',
    PATH: '/bin',
    CLOUD_OTHER: 'x',
  })
  assert.is(settings.name, '17')
  assert.is(settings.export.windowBytesMax, 2_000)
  assert.is(settings.export.enabled, false)
  assert.is(settings.export.level, 'debug')
  assert.equal(settings.export.topics, ['a', 'b'])
  assert.is(settings.export.retry, 9)
  assert.is(load('', { EDGE_EXPORT_RETRY: 'never' }).export.retry, 'never')
})

test('a key and a table that begin alike are told apart', () => {
  const { export: found } = load('', { EDGE_EXPORT_WINDOW_BYTES: '5', EDGE_EXPORT_WINDOW_BYTES_MAX: '6' })
  assert.is(found.window.bytes, 5)
  assert.is(found.windowBytesMax, 6)
})

test('where a variable could mean two settings, it means the longest key', () => {
  const twofold = z.strictObject({
    window: z.strictObject({ bytes: z.int().default(1) }).prefault({}),
    windowBytes: z.int().default(1),
  })
  const environment = { EDGE_WINDOW_BYTES: '5' }
  const found = loadSettings({ file: 'f', text: '', environment, prefix: 'EDGE', schema: twofold })
  assert.equal(found, { window: { bytes: 1 }, windowBytes: 5 })
})

test('a variable reaches into tables with free names: those of the file, or new ones', () => {
  const text = '[streams.slow_data]\nonFull = "dropOldest"'
  const { streams } = load(text, {
    EDGE_STREAMS_SLOW_DATA_MAX_BYTES: '5',
    EDGE_STREAMS_EVENTS_MAX_BYTES: '6',
    EDGE_STREAMS_MY_OWN_ON_FULL: 'x',
  })
  assert.equal(streams, {
    slow_data: { maxBytes: 5, onFull: 'dropOldest' },
    events: { maxBytes: 6, onFull: 'refuse' },
    'my-own': { maxBytes: 1, onFull: 'x' },
  })
})

test('an unknown key is refused with its line and the nearest name', () => {
  assert.is(
    refusal('[export]\nenabled = true\nwindowByteMax = 1'),
    'line 3: unknown key "export.windowByteMax": did you mean windowBytesMax?',
  )
  assert.is(refusal('[exports]\n'), 'line 1: unknown key "exports": did you mean export?')
  assert.is(
    refusal('[streams.data]\nmax_bytes = 1'),
    'line 2: unknown key "streams.data.max_bytes": did you mean maxBytes?',
  )
  assert.is(
    refusal('[[listen]]\nport = 1\n[[listen]]\nport = 2\nzzz = 1'),
    'line 5: unknown key "listen.1.zzz": known here: port',
  )
})

test('a wrong value is refused with its line, a missing one by its name', () => {
  assert.match(
    refusal('[export]\n\nwindowBytesMax = "x"'),
    'line 3: "export.windowBytesMax": expected number',
  )
  assert.match(refusal('export.windowBytesMax = 0'), 'line 1: "export.windowBytesMax": Too small')
  assert.match(refusal('listen = [{}]'), '"listen.0.port" is missing: set it (expected number)')
})

test('an unknown variable is refused by its name', () => {
  assert.is(
    refusal('', { EDGE_EXPORT_WINDOW_BYTE_MAX: '1' }),
    'environment variable EDGE_EXPORT_WINDOW_BYTE_MAX is no setting: did you mean EDGE_EXPORT_WINDOW_BYTES_MAX?',
  )
  assert.is(refusal('', { EDGE_SDK_VERSION: '1' }), 'accepted', 'another program may use the prefix')
  assert.match(refusal('', { EDGE_EXPORT: '1' }), /EDGE_EXPORT is no setting/)
  assert.is(refusal('', { EDGE_CONFIG: '/etc/edge.toml' }), 'accepted')
})

test('a wrong value in a variable is refused by the name of the variable', () => {
  assert.match(
    refusal('[export]\nwindowBytesMax = 1', { EDGE_EXPORT_WINDOW_BYTES_MAX: 'many' }),
    'environment variable EDGE_EXPORT_WINDOW_BYTES_MAX: "export.windowBytesMax": expected number',
  )
  assert.match(refusal('', { EDGE_EXPORT_ENABLED: 'yes' }), 'environment variable EDGE_EXPORT_ENABLED')
  assert.match(refusal('', { EDGE_EXPORT_TOPICS: 'a,b' }), 'environment variable EDGE_EXPORT_TOPICS')
  assert.match(refusal('export = 1', { EDGE_EXPORT_ENABLED: 'true' }), 'export is no table in the file')
})

test('all problems are told at once', () => {
  const told = refusal('nam = 1\n[export]\nwindowBytesMax = 0', { EDGE_EXPORT_Y: '1' })
  assert.is(told.split('\n').length, 4, told)
})

test('text that is not TOML is refused with line and column', () => {
  assert.is(refusal('name = "gw"\nx = = 1'), 'line 2, column 5: invalid value: correct this line')
})

test('lines are found in the presence of comments, long strings, dotted and quoted keys', () => {
  const text = [
    '# name = 1',
    'note = """',
    'name = 2',
    '"""',
    'a.b."c d" = 1',
    '[ x . y ] # z = 1',
    '"q" = 1',
    '[[x.list]]',
    'k = 1',
    '[x.list.inner]',
    'deep = 1',
    '[[x.list]]',
    'k = 2',
  ].join('\n')
  assert.is(lineOf(text, ['name']), undefined)
  assert.is(lineOf(text, ['note']), 2)
  assert.is(lineOf(text, ['a', 'b', 'c d']), 5)
  assert.is(lineOf(text, ['x', 'y', 'q']), 7)
  assert.is(lineOf(text, ['x', 'list', 0, 'k']), 9)
  assert.is(lineOf(text, ['x', 'list', 0, 'inner', 'deep']), 11)
  assert.is(lineOf(text, ['x', 'list', 1, 'k']), 13)
  assert.is(lineOf(text, ['x', 'list', 1, 'inline', 'key']), 12)
})

test.run()
