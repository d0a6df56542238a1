// Reads the cloud's log from end to end: every gateway's streams frame by frame, and the numbering of the entries.

import { concat, concatMap, from, ignoreElements, type Observable } from 'rxjs'
import { FrameError, readHeader } from '../../schemas/frame.ts'
import { CHAIN_ZERO } from '../../schemas/ids.ts'
import { LOG_CLASSES, type LogClass } from './cloudlog.ts'
import { openLmdb } from './lmdb.ts'
import { decodeEntry, ENTRIES, listSegments, type SegmentName } from './segments.ts'
import { keyNumber, numberKey, type Store } from './store.ts'
import { type Finding, openChecker, type StreamReport } from './verify.ts'

const PAGE_ROWS = 64

/** A report for each gateway, stream and epoch, and one for each class of the log. */
export const verifyCloudLog = (folder: string): Observable<StreamReport> =>
  from(LOG_CLASSES).pipe(
    concatMap(logClass => {
      const opened: Store[] = []
      const reports = verifyClass(folder, logClass, opened)
      return concat(from(reports), ...opened.map(store => store.close().pipe(ignoreElements())))
    }),
  )

const verifyClass = (folder: string, logClass: LogClass, opened: Store[]): StreamReport[] => {
  const segments = listSegments(folder, logClass)
  const checkers = new Map<string, ReturnType<typeof openChecker>>()
  const findings: Finding[] = []
  let last = (segments[0]?.first ?? 1) - 1
  let events = 0
  for (const segment of segments) {
    const store = openLmdb({ file: segment.file, tables: [], access: 'read' })
    opened.push(store)
    for (const [seq, bytes] of rowsOf(store)) {
      if (seq !== last + 1)
        findings.push({ at: `${logClass} ${seq}`, problem: `entry ${last + 1} is missing before it` })
      last = seq
      if (!checkEntry(segment, seq, bytes, checkers, findings)) events += 1
    }
  }
  const own: StreamReport = {
    stream: `log/${logClass}`,
    epoch: '–',
    tail: segments[0]?.first ?? 1,
    head: last,
    records: events,
    skipped: 0,
    bytes: 0,
    findings,
    findingCount: findings.length,
  }
  return [own, ...[...checkers.values()].map(checker => checker.report())]
}

/** Whether the entry is a frame. */
const checkEntry = (
  segment: SegmentName,
  seq: number,
  bytes: Buffer,
  checkers: Map<string, ReturnType<typeof openChecker>>,
  findings: Finding[],
): boolean => {
  try {
    const entry = decodeEntry(segment.file, seq, bytes)
    if (entry.kind === 'event') return false
    // An epoch that began at a fork, or whose first part retention took, has nothing before its first frame here.
    const { stream, epoch, first } = readHeader(entry.frame)
    const key = `${entry.gateway}/${stream}@${epoch}`
    const known = checkers.get(key)
    const checker =
      known ??
      openChecker(`${entry.gateway}/${stream}`, {
        offset: first - 1,
        chain: first === 1 ? CHAIN_ZERO : undefined,
        epoch,
      })
    checkers.set(key, checker)
    checker.add(entry.frame)
    return true
  } catch (thrown) {
    if (!(thrown instanceof Error)) throw thrown
    findings.push({
      at: `${segment.file} ${seq}`,
      problem: thrown instanceof FrameError ? `malformed frame: ${thrown.message}` : thrown.message,
    })
    return true
  }
}

function* rowsOf(store: Store): Generator<readonly [number, Buffer]> {
  for (let from = 0; ; ) {
    const rows = store.scan(ENTRIES, { from: numberKey(from), limit: PAGE_ROWS })
    for (const [key, bytes] of rows) yield [keyNumber(key), bytes]
    const end = rows.at(-1)
    if (end === undefined) return
    from = keyNumber(end[0]) + 1
  }
}
