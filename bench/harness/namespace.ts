// A thin link of the kernel's: a network namespace for the gateway, joined to this one by a veth pair with a token
// bucket (`tc tbf`) at each end. Needs root; without it there is none, and the caller is told why.
//
// What a relay on loopback cannot show: segments of 1,448 bytes instead of 64 KB, a send buffer that grows with the
// congestion window instead of 4 MB at once, and a router that drops what its queue does not hold. Measured at
// 1 Mbit/s with a sender that never waits: 120,100 payload bytes a second, and 116 KB in the sender's kernel behind
// 18 KB in the router. Delay is not in it (no netem here): a relay at the far end adds it, so the loop that TCP itself
// sees is only as long as the queue, and a loss is mended sooner than it would be over 100 ms.

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { atEnd } from './process.ts'

export interface LinkOptions {
  readonly bitsPerSecond: number
  /** What the router in front of the link holds. */
  readonly queueMs: number
}

export interface ThinLink {
  /** For `ip netns exec`. */
  readonly namespace: string
  /** This end's address, as the gateway reaches it. */
  readonly host: string
  readonly congestionControl: string
  /** Bytes on the wire from the gateway, with all headers and what TCP sent twice. */
  wireBytesUp(): number
  close(): void
}

export type Opened =
  | { readonly kind: 'open'; readonly link: ThinLink }
  | { readonly kind: 'none'; readonly because: string }

/** One Ethernet frame and a little: a larger bucket would let bursts through at the speed of memory. */
const BURST_BYTES = 1_600
/** What most gateways run; this kernel's own default may be another. */
const CONGESTION_CONTROL = 'cubic'
const DEFAULT_CONTROL = '/proc/sys/net/ipv4/tcp_congestion_control'

export const openThinLink = ({ bitsPerSecond, queueMs }: LinkOptions): Opened => {
  const namespace = `headgate-${process.pid}`
  const near = `hg${process.pid}n`
  const far = `hg${process.pid}f`
  // Of 198.18.0.0/15, which RFC 2544 keeps for measuring: four addresses for each process.
  const subnet = `198.18.${(process.pid >> 6) & 255}.`
  const base = (process.pid & 63) * 4
  const [host, guest] = [`${subnet}${base + 1}`, `${subnet}${base + 2}`]
  const queueBytes = Math.round((bitsPerSecond / 8) * (queueMs / 1_000))
  const bucket = `root tbf rate ${bitsPerSecond}bit burst ${BURST_BYTES} limit ${queueBytes}`
  const close = (): void => {
    undo()
    run(`ip netns del ${namespace}`)
  }
  const undo = atEnd(() => run(`ip netns del ${namespace}`))
  for (const command of [
    `ip netns add ${namespace}`,
    `ip link add ${near} type veth peer name ${far} netns ${namespace}`,
    `ip addr add ${host}/30 dev ${near}`,
    `ip -n ${namespace} addr add ${guest}/30 dev ${far}`,
    `ip link set ${near} up`,
    `ip -n ${namespace} link set ${far} up`,
    `ip -n ${namespace} link set lo up`,
    `tc qdisc add dev ${near} ${bucket}`,
    `tc -n ${namespace} qdisc add dev ${far} ${bucket}`,
  ]) {
    const failure = run(command)
    if (failure === undefined) continue
    close()
    return { kind: 'none', because: `"${command}": ${failure}` }
  }
  // By route: the kernel may not let a namespace have a default of its own.
  const chosen = run(
    `ip -n ${namespace} route replace ${subnet}${base}/30 dev ${far} src ${guest} congctl ${CONGESTION_CONTROL}`,
  )
  return {
    kind: 'open',
    link: {
      namespace,
      host,
      congestionControl:
        chosen === undefined ? CONGESTION_CONTROL : readFileSync(DEFAULT_CONTROL, 'utf8').trim(),
      wireBytesUp: () => Number(readFileSync(`/sys/class/net/${near}/statistics/rx_bytes`, 'utf8')),
      close,
    },
  }
}

/** Words without blanks only. Undefined, or why it failed. */
const run = (command: string): string | undefined => {
  const [program = '', ...args] = command.split(' ')
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8', timeout: 5_000 })
  if (error !== undefined) return error.message
  return status === 0 ? undefined : stderr.trim()
}
