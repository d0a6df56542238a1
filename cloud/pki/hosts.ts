// The names that the cloud's own certificate answers to: DNS names and addresses, in one canonical form each.

import { isIP, SocketAddress } from 'node:net'
import { fault } from '../../streams/run/fault.ts'

export interface Names {
  readonly dns: readonly string[]
  readonly ips: readonly string[]
}

/** What reaches the cloud from its own machine. */
export const LOCAL_HOSTS: readonly string[] = ['localhost', '127.0.0.1', '::1']

const LABEL = '[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?'
const DNS_NAME = new RegExp(`^(?:\\*\\.)?${LABEL}(?:\\.${LABEL})*$`)
const DNS_NAME_LENGTH_MAX = 253

/** Sorted, each once. Throws config_invalid for what is neither a host name nor an address. */
export const namesOf = (hosts: readonly string[]): Names => {
  const dns = new Set<string>()
  const ips = new Set<string>()
  for (const given of hosts) {
    const host = given
      .trim()
      .replace(/^\[(.*)\]$/, '$1')
      .replace(/\.$/, '')
      .toLowerCase()
    const family = isIP(host)
    if (family !== 0)
      ips.add(new SocketAddress({ address: host, family: family === 4 ? 'ipv4' : 'ipv6' }).address)
    else if (DNS_NAME.test(host) && host.length <= DNS_NAME_LENGTH_MAX && !/^[\d.]+$/.test(host))
      dns.add(host)
    else
      throw fault('config_invalid', {
        file: 'hosts',
        because: `"${given}" is not a host name or an IP address (give no port, no scheme)`,
      })
  }
  return { dns: [...dns].sort(), ips: [...ips].sort() }
}

export const hostsOf = ({ dns, ips }: Names): string[] => [...dns, ...ips]

export const sameNames = (a: Names, b: Names): boolean => hostsOf(a).join() === hostsOf(b).join()
