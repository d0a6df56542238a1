import { memoryStore } from '../../../streams/log/memory.ts'
import type { Row } from '../../../streams/log/store.ts'
import { logContract } from './contract.ts'

logContract('memory', async body => {
  const disk = new Map<string, Row[]>()
  await body(async () => memoryStore(disk))
})
