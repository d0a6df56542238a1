import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { firstValueFrom } from 'rxjs'
import { openLmdb } from '../../../streams/log/lmdb.ts'
import type { Store } from '../../../streams/log/store.ts'
import { tablesOf } from '../../../streams/log/streams.ts'
import { DATA, EVENTS } from '../../support/logs.ts'
import { logContract } from './contract.ts'

logContract('lmdb', async body => {
  const folder = mkdtempSync(join(tmpdir(), 'headgate-log-'))
  let open: Store | undefined
  const reopen = async () => {
    if (open !== undefined) await firstValueFrom(open.close())
    open = openLmdb({ file: join(folder, 'log.mdb'), tables: tablesOf([DATA, EVENTS]) })
    return open
  }
  try {
    await body(reopen)
  } finally {
    if (open !== undefined) await firstValueFrom(open.close())
    rmSync(folder, { recursive: true, force: true })
  }
})
