// Default routes as the kernel lists them in /proc/net. Pure.

const UP = 0x1
const REJECT = 0x200

/** /proc/net/route: identity and detail of each default route. */
export const defaultRoutes4 = (text: string): [identity: string, detail: string][] =>
  text.split('\n').flatMap(line => {
    const [name = '', destination, gateway = '', flags = '', , , , mask] = line.trim().split(/\s+/)
    if (destination !== '00000000' || mask !== '00000000' || !isUsable(flags)) return []
    return [detailed(name, dotted(gateway))]
  })

/** /proc/net/ipv6_route likewise. The kernel keeps rejecting default routes on `lo`. */
export const defaultRoutes6 = (text: string): [identity: string, detail: string][] =>
  text.split('\n').flatMap(line => {
    const [destination, length, , , gateway = '', , , , flags = '', name = ''] = line.trim().split(/\s+/)
    if (destination !== '0'.repeat(32) || length !== '00' || name === 'lo' || !isUsable(flags)) return []
    return [detailed(name, /^0*$/.test(gateway) ? '' : (gateway.match(/.{4}/g) ?? []).join(':'))]
  })

const detailed = (name: string, gateway: string): [string, string] => {
  const detail = gateway === '' ? name : `${name} via ${gateway}`
  return [detail, detail]
}

const isUsable = (flags: string): boolean => {
  const bits = Number.parseInt(flags, 16)
  return (bits & UP) !== 0 && (bits & REJECT) === 0
}

/** An address in the byte order of the machine: little-endian on all that Node 20 runs on but s390x. */
const dotted = (hex: string): string => {
  const bytes = Buffer.from(hex, 'hex')
  return bytes.length !== 4 || bytes.readUInt32BE() === 0 ? '' : [...bytes.reverse()].join('.')
}
