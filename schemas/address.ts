// A host and a port, as a person writes them.

import { z } from 'zod'

export interface Address {
  readonly host: string
  readonly port: number
}

/** `host:port` or `[IPv6]:port`; undefined if it is neither. */
export const parseAddress = (text: string): Address | undefined => {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]{1,253})):(\d{1,5})$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  return host === undefined || port < 1 || port > 65_535 ? undefined : { host, port }
}

export const formatAddress = ({ host, port }: Address): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`

export const addressSchema = z.string().refine(text => parseAddress(text) !== undefined, 'must be host:port')

/** Of a text that the schema has accepted. */
export const addressOf = (text: string): Address => {
  const address = parseAddress(text)
  if (address === undefined) throw new RangeError(`not host:port: ${text}`)
  return address
}

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|::1)$/
export const isLoopback = (host: string): boolean => LOOPBACK.test(host)
