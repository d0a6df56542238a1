// Local signs that the network may be back, so that a connection is tried now instead of after its wait.
//
// Only what may help counts: a carrier, route or address that appeared or changed, a resolver that changed;
// their loss is no sign. The state at subscription is none either. A poll reads a handful of small kernel
// files, and nothing in it ever errors: a machine without one of them merely has fewer signs.

import { readdirSync, readFileSync, statSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { defer, mergeMap, type Observable, timer } from 'rxjs'
import type { Clock } from '../../streams/run/clock.ts'
import { defaultRoutes4, defaultRoutes6 } from './routes.ts'

export const SIGN_KINDS = ['carrier', 'route', 'address', 'resolver'] as const

export interface Sign {
  readonly kind: (typeof SIGN_KINDS)[number]
  /** For a person: what appeared, such as `eth0`, `eth0 via 192.0.2.1` or `eth0 192.0.2.7`. */
  readonly detail: string
}

export interface SignOptions {
  readonly clock: Clock
  /** Where proc, sys and etc lie: `/` but in tests. */
  readonly root: string
  /** A poll takes about 0.2 ms, so that a second between two costs nothing that can be seen. */
  readonly intervalMs?: number
  /** Each as `interface address`. */
  readonly addresses?: () => readonly string[]
}

/**
 * A container host may have hundreds of interfaces; the carriers of the first in order of name are watched.
 */
export const WATCHED_INTERFACES_MAX = 32

/** Emits on changes only. Never errors; ends only by unsubscription. */
export const localSigns$ = ({
  clock,
  root,
  intervalMs = 1_000,
  addresses = machineAddresses,
}: SignOptions): Observable<Sign> =>
  defer(() => {
    const resolver = resolverReader(join(root, 'etc/resolv.conf'))
    const look = (): Look => ({
      carrier: carriers(join(root, 'sys/class/net')),
      route: new Map([
        ...defaultRoutes4(readText(join(root, 'proc/net/route'))),
        ...defaultRoutes6(readText(join(root, 'proc/net/ipv6_route'))),
      ]),
      address: new Map(addresses().map(address => [address, address])),
      resolver: resolver(),
    })
    let before: Look | undefined
    const compare = (): Sign[] => {
      const after = look()
      const signs = before === undefined ? [] : appeared(before, after)
      before = after
      return signs
    }
    return timer(0, intervalMs, clock.scheduler).pipe(mergeMap(compare))
  })

/** For each kind: what there is, by an identity that changes whenever it is worth a sign, with its detail. */
type Look = Readonly<Record<Sign['kind'], ReadonlyMap<string, string>>>

const appeared = (before: Look, after: Look): Sign[] =>
  SIGN_KINDS.flatMap(kind =>
    [...after[kind]]
      .filter(([identity]) => !before[kind].has(identity))
      .map(([, detail]) => ({ kind, detail })),
  )

/** Interfaces that can carry traffic. The count of ups (Linux 4.16) shows a flap between two polls. */
const carriers = (folder: string): Map<string, string> => {
  const names = listFolder(folder).filter(name => name !== 'lo')
  const found = new Map<string, string>()
  for (const name of names.toSorted().slice(0, WATCHED_INTERFACES_MAX)) {
    if (!isUp(join(folder, name))) continue
    found.set(`${name} ${readText(join(folder, name, 'carrier_up_count')).trim()}`, name)
  }
  return found
}

/** Modems and tunnels never say more than `unknown`. */
const isUp = (folder: string): boolean => {
  switch (readText(join(folder, 'operstate')).trim()) {
    case 'up':
      return true
    case 'unknown':
      return readText(join(folder, 'carrier')).trim() === '1'
    default:
      return false
  }
}

/** Link-local addresses come with the carrier and lead nowhere. */
const machineAddresses = (): string[] =>
  Object.entries(networkInterfaces()).flatMap(([name, list = []]) =>
    list
      .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
      .map(({ address }) => `${name} ${address}`),
  )

/** Reads the text anew only when the file changed; a file that was merely touched is the same. */
const resolverReader = (file: string) => {
  let stamp = ''
  let text = ''
  return (): ReadonlyMap<string, string> => {
    const found = stampOf(file)
    if (found !== stamp) {
      stamp = found
      text = readText(file)
    }
    // An empty resolver leads nowhere.
    return text.trim() === '' ? new Map() : new Map([[text, file]])
  }
}

const stampOf = (file: string): string => {
  const stat = statSync(file, { throwIfNoEntry: false })
  return stat === undefined ? '' : `${stat.ino} ${stat.size} ${stat.mtimeMs}`
}

/** Empty where there is none, or the kernel refuses: a downed interface has no carrier to read. */
const readText = (file: string): string => {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

const listFolder = (folder: string): string[] => {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
