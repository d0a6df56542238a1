// The worker thread that turns the log into lines for /api/records. Started with the first such request.

import { workerData } from 'node:worker_threads'
import { lastValueFrom, Observable } from 'rxjs'
import { z } from 'zod'
import { LOG_CLASSES } from '../../streams/log/cloudlog.ts'
import { openCloudReader } from '../../streams/log/cloudreader.ts'
import { lowerPriority } from '../../streams/run/priority.ts'
import { Refusal, serveHost, type WorkerSays } from '../../streams/run/worker-side.ts'
import { readPage } from './page.ts'

const dataSchema = z.strictObject({ logFolder: z.string() })
export type RecordsData = z.output<typeof dataSchema>

const querySchema = z.strictObject({
  after: z.strictObject({ class: z.enum(LOG_CLASSES), seq: z.int(), index: z.int() }),
  gateway: z.union([z.string(), z.undefined()]),
  stream: z.union([z.string(), z.undefined()]),
  linesMax: z.int().min(1),
  head: z.int().min(0),
})

const main = ({ logFolder }: RecordsData): Observable<WorkerSays> =>
  new Observable(subscriber => {
    const reader = openCloudReader({ folder: logFolder })
    const answer = (name: string, args: unknown) => {
      if (name !== 'page') throw new Refusal('only "page" is known')
      return readPage(reader, querySchema.parse(args))
    }
    subscriber.next({ kind: 'ready', answer })
    return () => {
      reader.close().subscribe()
    }
  })

lowerPriority() // Whoever reads the past waits for the present.
const data = dataSchema.parse(workerData)
await lastValueFrom(
  serveHost(() => main(data)),
  { defaultValue: undefined },
)
