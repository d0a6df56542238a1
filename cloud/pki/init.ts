// What `headgate-cloud init` does: folder, root, the cloud's own certificate, ticket keys, configuration.
// A root that exists is never replaced; run again it adds what is missing, and names to the certificate.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { defer, lastValueFrom, type Observable } from 'rxjs'
import { fault, isFault } from '../../streams/run/fault.ts'
import {
  fileExists,
  MODE_PRIVATE,
  MODE_PUBLIC,
  makePrivateFolder,
  writeWhole,
} from '../../streams/run/files.ts'
import { hostsOf, LOCAL_HOSTS, type Names, namesOf, sameNames } from './hosts.ts'
import { type Chance, createCa, makeKey, namesIn } from './issue.ts'
import {
  CA_CERTIFICATE,
  CA_KEY,
  openCa,
  openPki,
  reissueServer,
  SERVER_CERTIFICATE,
  SERVER_KEY,
  TICKETS_KEY,
  TICKETS_KEY_BYTES,
} from './pki.ts'

export const CONFIG_FILE = 'headgate-cloud.toml'
/** A server certificate with less life than this is renewed on the occasion. */
const RENEW_BEFORE_MS = 30 * 24 * 60 * 60 * 1000

export interface InitCloud extends Chance {
  /** The cloud's data folder. */
  readonly data: string
  /** Names and addresses by which gateways and people reach it, besides those of the machine itself. */
  readonly hosts: readonly string[]
}

export interface Initialised {
  /** created: a new root; server_reissued: new names, or too little life; unchanged: all was there. */
  readonly kind: 'created' | 'server_reissued' | 'unchanged'
  readonly fingerprint: string
  readonly names: Names
  readonly serverNotAfterMs: number
  readonly configuration: {
    readonly file: string
    /** kept: a person has changed it; `hosts` in it is theirs to mend. */
    readonly kind: 'written' | 'kept'
  }
}

/** Cold; emits once, all on disk. Errors: config_invalid (a host), folder_unwritable, identity_*. */
export const initCloud = ({ data, hosts, clock, random }: InitCloud): Observable<Initialised> =>
  defer(async () => {
    const asked = namesOf([...LOCAL_HOSTS, ...hosts])
    const folder = join(data, 'pki')
    makePrivateFolder(data)
    makePrivateFolder(folder)
    const created = await ensureCa(folder, { clock, random })
    ensureSecrets(folder, random.bytes)
    const before = serverNames(folder)
    const names = namesOf([...hostsOf(asked), ...(before === undefined ? [] : hostsOf(before))])
    const reissued = !serverStands(folder, names, { clock, random })
    if (reissued) await lastValueFrom(reissueServer({ folder, names, clock, random }))
    const { ca, server } = openPki(folder, { clock, random })
    return {
      kind: created ? ('created' as const) : reissued ? ('server_reissued' as const) : ('unchanged' as const),
      fingerprint: ca.fingerprint,
      names,
      serverNotAfterMs: server.notAfterMs,
      configuration: writeConfiguration(data, before, names),
    }
  })

/** Whether a root was made. Never in the place of anything that an earlier one left. */
const ensureCa = async (folder: string, chance: Chance): Promise<boolean> => {
  if (fileExists(join(folder, CA_CERTIFICATE))) {
    openCa(folder, chance.clock)
    return false
  }
  for (const name of [CA_KEY, SERVER_CERTIFICATE]) {
    const file = join(folder, name)
    if (fileExists(file))
      throw fault('identity_invalid', {
        file,
        because: `stands without ${CA_CERTIFICATE}: restore that from a backup or, if no gateway was ever enrolled, delete ${name} and run this again`,
      })
  }
  const { certificate, key } = await createCa(chance)
  writeWhole(join(folder, CA_KEY), key, MODE_PRIVATE)
  writeWhole(join(folder, CA_CERTIFICATE), certificate, MODE_PUBLIC)
  return true
}

const ensureSecrets = (folder: string, randomBytes: (count: number) => Buffer): void => {
  if (!fileExists(join(folder, SERVER_KEY))) writeWhole(join(folder, SERVER_KEY), makeKey(), MODE_PRIVATE)
  if (!fileExists(join(folder, TICKETS_KEY)))
    writeWhole(join(folder, TICKETS_KEY), randomBytes(TICKETS_KEY_BYTES), MODE_PRIVATE)
}

/** Names in the server certificate, if one is there that can be read. */
const serverNames = (folder: string): Names | undefined => {
  const file = join(folder, SERVER_CERTIFICATE)
  if (!fileExists(file)) return undefined
  try {
    return namesIn(readFileSync(file, 'utf8'))
  } catch {
    // Whatever is wrong with it, a new one takes its place.
    return undefined
  }
}

const serverStands = (folder: string, names: Names, chance: Chance): boolean => {
  try {
    const { server } = openPki(folder, chance)
    return sameNames(server.names, names) && server.notAfterMs - chance.clock.nowMs() > RENEW_BEFORE_MS
  } catch (thrown) {
    if (isFault(thrown)) return false
    throw thrown
  }
}

const configurationText = (data: string, names: Names): string =>
  `${[
    '# Configuration of headgate-cloud. "headgate-cloud run --help" names every key.',
    '',
    '# Certificates, registry and logs.',
    `data = ${JSON.stringify(data)}`,
    '',
    '# Names and addresses of this machine; after a change run "headgate-cloud init --host NAME".',
    `hosts = [${hostsOf(names)
      .map(host => JSON.stringify(host))
      .join(', ')}]`,
  ].join('\n')}\n`

const writeConfiguration = (
  data: string,
  before: Names | undefined,
  names: Names,
): Initialised['configuration'] => {
  const file = join(data, CONFIG_FILE)
  const ours = [before ?? names, names].map(each => configurationText(data, each))
  const kept = fileExists(file) && !ours.includes(readFileSync(file, 'utf8'))
  if (kept) return { file, kind: 'kept' }
  writeWhole(file, configurationText(data, names), MODE_PUBLIC)
  return { file, kind: 'written' }
}
