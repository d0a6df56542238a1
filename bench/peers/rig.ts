// What all rigs share: a folder under the system's temporary one, and an end that leaves nothing behind.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { atEnd } from '../harness/process.ts'
import type { PeerName, Rig } from './peer.ts'
import { openTally, type Tally } from './tally.ts'

type Built = Pick<Rig, 'edge' | 'cloud' | 'relay' | 'produce'> & { readonly consumer: { close(): void } }

/** What `build` started before it threw is left to `endAll`. */
export const openRig = async (
  name: PeerName,
  build: (folder: string, tally: Tally) => Promise<Built>,
): Promise<Rig> => {
  const folder = mkdtempSync(join(tmpdir(), `headgate-${name}-`))
  const remove = (): void => rmSync(folder, { recursive: true, force: true })
  const removed = atEnd(remove)
  const tally = openTally()
  const { consumer, ...built } = await build(folder, tally)
  const { edge, cloud, relay } = built
  return {
    ...built,
    tally,
    close: async () => {
      consumer.close()
      await relay.close()
      for (const program of [edge, cloud]) program.kill('SIGKILL')
      await Promise.all([edge.ended, cloud.ended])
      remove()
      removed()
    },
  }
}
