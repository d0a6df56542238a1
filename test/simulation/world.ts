// Both ends of the data path, the real code of each, in virtual time: only disks and wires are made here.
//
// A disk takes time, may fail a commit, and at a crash a commit in flight is on it or not. A wire keeps order, takes
// time, may cut, lose or double a message (as a broker in the middle may).

import {
  concat,
  defer,
  filter,
  map,
  NEVER,
  Observable,
  Subject,
  Subscription,
  startWith,
  throwError,
  timer,
  VirtualTimeScheduler,
} from 'rxjs'
import type { Uplink } from '../../cloud/context.ts'
import { ingest } from '../../cloud/ingestion/ingest.ts'
import { exportLog } from '../../edge/export/export.ts'
import { type FrameHeader, readHeader, readRecords } from '../../schemas/frame.ts'
import { type Epoch, gatewayId, type StreamName } from '../../schemas/ids.ts'
import type { TakenRecord } from '../../schemas/records.ts'
import { parseUp } from '../../schemas/topics.ts'
import { noBallast } from '../../streams/log/ballast.ts'
import type { CloudBody, CloudWriter, LogClass, StoredMark } from '../../streams/log/cloudlog.ts'
import { memoryStore } from '../../streams/log/memory.ts'
import type { Row, Store } from '../../streams/log/store.ts'
import { openStreams, type Streams } from '../../streams/log/streams.ts'
import type { Incoming, Link, LinkState } from '../../streams/mqtt/link.ts'
import type { Clock, Random } from '../../streams/run/clock.ts'
import { fault } from '../../streams/run/fault.ts'
import { DATA, EVENTS, GENEROUS } from '../support/logs.ts'

export const GATEWAY = gatewayId('g')
const COMMIT_MS = 2
const FLIGHT_MS = 5
const RECONNECT_MS = 50

type Disk = Map<string, Row[]>
export const copyDisk = (disk: Disk): Disk => new Map([...disk].map(([name, rows]) => [name, [...rows]]))

interface CloudDisk {
  readonly entries: Record<LogClass, CloudBody[]>
  readonly marks: Map<string, StoredMark>
}
export const copyCloud = (disk: CloudDisk): CloudDisk => ({
  entries: { data: [...disk.entries.data], events: [...disk.entries.events], audit: [] },
  marks: new Map(disk.marks),
})

export interface World {
  readonly clock: VirtualTimeScheduler
  edgeDisk: Disk
  cloudDisk: CloudDisk
  /** Texts of records whose append was acknowledged, in that order. */
  readonly acknowledged: string[]
  /** The most bytes of frames that were ever between the two logs. */
  flyingBytesMax: number
  /** `paddingBytes`: of random bytes behind each record's text, which no compression makes small. */
  append(count: number, paddingBytes?: number): void
  /** A record of the stream `events`, which goes first. */
  tick(): void
  drop(share: number): void
  cut(): void
  /** What happens to the next messages of a direction. */
  disturb(direction: 'up' | 'down', what: 'lose' | 'double', count: number): void
  failCommits(side: 'edge' | 'cloud', count: number): void
  crash(side: 'edge' | 'cloud', inFlightIsWritten: boolean): void
  /** Ends every fault that has not struck yet. */
  calm(): void
  /** Lets virtual time pass. */
  run(ms: number): void
  fatal: unknown
}

export const openWorld = (random: Random): World => {
  const scheduler = new VirtualTimeScheduler(undefined, Number.POSITIVE_INFINITY)
  const clock: Clock = {
    nowMs: () => 1_800_000_000_000 + scheduler.now(),
    monoMs: () => scheduler.now(),
    bootId: '00000000000000aa' as Clock['bootId'],
    quality: () => 'synchronised',
    scheduler,
  }
  const acknowledged: string[] = []
  const failing = { edge: 0, cloud: 0 }
  const disturbed = { up: { lose: 0, double: 0 }, down: { lose: 0, double: 0 } }
  let appended = 0

  const world: World = {
    clock: scheduler,
    edgeDisk: new Map(),
    cloudDisk: { entries: { data: [], events: [], audit: [] }, marks: new Map() },
    acknowledged,
    flyingBytesMax: 0,
    fatal: undefined,
    tick: () => {
      const payload = Buffer.from('tick')
      edge?.streams
        .stream(EVENTS)
        .append([{ topic: 't', payload, qos: 1, retain: false, receivedMonoMs: clock.monoMs() }])
        .subscribe({ error: () => undefined })
    },
    append: (count, paddingBytes = 0) => {
      const batch = Array.from(
        { length: count },
        (): TakenRecord => ({
          topic: 't',
          payload: Buffer.concat([Buffer.from(`r${appended++} `), random.bytes(paddingBytes)]),
          qos: 1,
          retain: false,
          receivedMonoMs: clock.monoMs(),
        }),
      )
      const texts = batch.map(({ payload }) => textOf(payload))
      edge?.streams
        .stream(DATA)
        .append(batch as [TakenRecord, ...TakenRecord[]])
        .subscribe({
          next: () => acknowledged.push(...texts),
          error: () => undefined,
        })
    },
    drop: share => {
      const log = edge?.streams.stream(DATA)
      if (log === undefined) return
      const { tail, head } = log.state()
      log
        .drop(Math.floor(tail - 1 + (head - tail + 1) * share) as typeof head, 'quota')
        .subscribe({ error: () => undefined })
    },
    cut: () => wire?.cut(),
    disturb: (direction, what, count) => {
      disturbed[direction][what] += count
    },
    failCommits: (side, count) => {
      failing[side] += count
    },
    crash: (side, inFlightIsWritten) => {
      wire?.cut()
      if (side === 'edge') {
        edge?.store.crash(inFlightIsWritten)
        edge?.held.unsubscribe()
        startEdge()
      } else {
        cloud?.log.crash(inFlightIsWritten)
        cloud?.held.unsubscribe()
        startCloud()
      }
    },
    calm: () => {
      Object.assign(failing, { edge: 0, cloud: 0 })
      for (const lots of Object.values(disturbed)) Object.assign(lots, { lose: 0, double: 0 })
    },
    run: ms => {
      const until = scheduler.now() + ms
      scheduler.schedule(() => undefined, ms)
      scheduler.maxFrames = until
      scheduler.flush()
      scheduler.frame = until
    },
  }

  const shouldFail = (side: 'edge' | 'cloud'): boolean => {
    if (failing[side] === 0) return false
    failing[side] -= 1
    return true
  }

  // --- the wire
  interface Wire {
    cut(): void
    send(direction: 'up' | 'down', topic: string, payload: Buffer): void
    readonly connection: string
  }
  let wire: Wire | undefined
  const edgeState$ = new Subject<LinkState>()
  const edgeIncoming$ = new Subject<Incoming>()
  const uplink$ = new Subject<Uplink>()
  let lastState: LinkState = { kind: 'down', because: 'start', retryInMs: 0 }
  edgeState$.subscribe(state => {
    lastState = state
  })

  const openWire = (): Wire => {
    const connection = random.bytes(8).toString('hex')
    const flights = new Subscription()
    let flying = 0
    const deliver = (direction: 'up' | 'down', topic: string, payload: Buffer): void => {
      if (direction === 'down') return edgeIncoming$.next({ topic, payload })
      const parsed = parseUp(topic)
      if (parsed?.kind === 'hello') uplink$.next({ kind: 'hello', gateway: GATEWAY, connection, payload })
      if (parsed?.kind === 'export')
        uplink$.next({ kind: 'export', gateway: GATEWAY, connection, stream: parsed.stream, payload })
    }
    const self: Wire = {
      connection,
      send: (direction, topic, payload) => {
        const lots = disturbed[direction]
        const copies = lots.lose > 0 ? 0 : lots.double > 0 ? 2 : 1
        if (lots.lose > 0) lots.lose -= 1
        else if (lots.double > 0) lots.double -= 1
        for (let i = 0; i < copies; i++) {
          if (direction === 'up') flying += payload.length
          world.flyingBytesMax = Math.max(world.flyingBytesMax, flying)
          flights.add(
            timer(FLIGHT_MS, scheduler).subscribe(() => {
              if (direction === 'up') flying -= payload.length
              deliver(direction, topic, payload)
            }),
          )
        }
      },
      cut: () => {
        if (wire !== self) return
        wire = undefined
        flights.unsubscribe()
        edgeState$.next({ kind: 'down', because: 'cut', retryInMs: RECONNECT_MS })
        uplink$.next({ kind: 'disconnected', gateway: GATEWAY, connection, because: 'cut' })
        timer(RECONNECT_MS, scheduler).subscribe(connect)
      },
    }
    return self
  }
  const connect = (): void => {
    if (wire !== undefined) return
    wire = openWire()
    uplink$.next({ kind: 'connected', gateway: GATEWAY, connection: wire.connection, address: 'sim' })
    edgeState$.next({ kind: 'up', connection: wire.connection, resumed: false })
  }

  const link: Link = {
    state$: defer(() => edgeState$.pipe(startWith(lastState))),
    messages: wanted => edgeIncoming$.pipe(filter(({ topic }) => topic === wanted)),
    publish: ({ topic, payload }) =>
      new Observable(subscriber => {
        if (wire === undefined) return subscriber.error(fault('link_down'))
        wire.send('up', topic, payload)
        return timer(2 * FLIGHT_MS, scheduler).subscribe(() => subscriber.complete())
      }),
  }

  // --- the edge
  let edge: { held: Subscription; streams: Streams; store: ReturnType<typeof slowStore> } | undefined
  const slowStore = (disk: Disk) => {
    const inner = memoryStore(disk)
    let pending: (() => void) | undefined
    let dead = false
    const store: Store = {
      ...inner,
      commit: writes =>
        defer(() => {
          if (shouldFail('edge'))
            return concat(
              timer(COMMIT_MS, scheduler).pipe(
                filter(() => false),
                map(() => undefined),
              ),
              throwError(() => fault('disk_full', { file: 'sim' })),
            )
          const apply = () => {
            pending = undefined
            inner.commit(writes).subscribe()
          }
          pending = apply
          return timer(COMMIT_MS, scheduler).pipe(
            filter(() => !dead),
            map(() => apply()),
          )
        }),
    }
    return {
      store,
      crash: (written: boolean) => {
        dead = true
        if (written) pending?.()
      },
    }
  }
  const startEdge = (): void => {
    const store = slowStore(world.edgeDisk)
    const held = new Subscription()
    const limits = new Map<StreamName, typeof GENEROUS>([
      [EVENTS, { ...GENEROUS, reserved: true }],
      [DATA, GENEROUS],
    ])
    held.add(
      openStreams({
        store: store.store,
        clock,
        random,
        ballast: noBallast,
        streams: limits,
        reserveBytes: 0,
        sealWaitMsMax: 20,
        codec: 'deflate',
      }).subscribe(streams => {
        edge = { held, streams, store }
        held.add(
          exportLog({
            gateway: GATEWAY,
            version: 'sim',
            link,
            clock,
            random,
            streams: streams.all,
            trim: { everyMs: 400, bytes: 2_000 },
          }).subscribe({
            error: thrown => {
              world.fatal = thrown
            },
          }),
        )
      }),
    )
  }

  // --- the cloud
  let cloud: { held: Subscription; log: ReturnType<typeof slowCloudLog> } | undefined
  const slowCloudLog = () => {
    const disk = world.cloudDisk
    let pending: (() => void)[] = []
    let dead = false
    const log: CloudWriter = {
      head: logClass => disk.entries[logClass].length,
      head$: () => NEVER,
      tail: () => 1,
      replay: () => NEVER,
      find: () => undefined,
      announce: () => undefined,
      marks: () => [...disk.marks.values()],
      append: (logClass, bodies, marks) =>
        defer(() => {
          if (shouldFail('cloud')) return throwError(() => fault('disk_full', { file: 'sim' }))
          const apply = () => {
            pending = pending.filter(each => each !== apply)
            disk.entries[logClass].push(...bodies)
            for (const mark of marks) disk.marks.set(`${mark.stream} ${mark.epoch}`, mark)
          }
          pending.push(apply)
          return timer(COMMIT_MS, scheduler).pipe(
            filter(() => !dead),
            map(() => {
              apply()
              return { first: 1, last: 1 }
            }),
          )
        }),
    }
    return {
      log,
      crash: (written: boolean) => {
        dead = true
        if (written) for (const apply of [...pending]) apply()
      },
    }
  }
  const startCloud = (): void => {
    const log = slowCloudLog()
    const held = new Subscription()
    cloud = { held, log }
    const down =
      (kind: 'mark' | 'who') =>
      (_: unknown, payload: Buffer = Buffer.alloc(0)) =>
        wire?.send('down', `headgate/${GATEWAY}/down/${kind}`, payload)
    held.add(
      ingest({
        log: log.log,
        clock,
        uplink$,
        sendMark: down('mark'),
        sendWho: down('who'),
        close: () => wire?.cut(),
      }).subscribe({
        error: thrown => {
          world.fatal = thrown
        },
      }),
    )
  }

  startCloud()
  startEdge()
  connect()
  return world
}

const textOf = (payload: Uint8Array): string => Buffer.from(payload).toString('latin1').split(' ')[0] ?? ''

export interface Arrived {
  readonly epoch: Epoch
  readonly header: FrameHeader
  readonly texts: readonly string[]
}

/** The data stream as the cloud's log holds it. */
export const arrivedIn = (world: World): Arrived[] =>
  world.cloudDisk.entries.data.flatMap(body => {
    if (body.kind !== 'frame') return []
    const header = readHeader(body.frame)
    return [
      {
        epoch: header.epoch,
        header,
        texts: readRecords(body.frame, header).map(({ payload }) => textOf(payload)),
      },
    ]
  })
