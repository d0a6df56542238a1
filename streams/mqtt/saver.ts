// Brings changes to the memory: at once for those that somebody waits for, soon for the rest.
//
// The rest is named, not described: what is written of a session is what it is by then, so that nothing old can follow
// something new. What could not be written is tried again with the next; until then a restart repeats it.

import { lastValueFrom } from 'rxjs'
import { isFatal } from '../run/fault.ts'
import type { KeptSession, MemoryChange, SessionMemory } from './session.ts'

export interface Saver {
  /** Settles once durable. What it should have removed and could not is removed later. */
  save(changes: readonly MemoryChange[]): Promise<void>
  /** The session changed, or ended. */
  noteSession(clientId: string): void
  /** The queued message is gone. */
  noteGone(sequence: number): void
}

export interface SaverOptions {
  readonly memory: SessionMemory | undefined
  readonly row: (clientId: string) => KeptSession | undefined
  readonly fail: (thrown: unknown) => void
}

export const openSaver = ({ memory, row, fail }: SaverOptions): Saver => {
  if (memory === undefined)
    return { save: async () => undefined, noteSession: () => undefined, noteGone: () => undefined }
  const sessions = new Set<string>()
  const gone = new Set<number>()
  let isSaving = false

  const note = (changes: readonly MemoryChange[]): void => {
    for (const change of changes) {
      if (change.kind === 'session') sessions.add(change.clientId)
      if (change.kind === 'queued' && change.message === undefined) gone.add(change.sequence)
    }
  }
  const save = async (changes: readonly MemoryChange[]): Promise<void> => {
    if (changes.length === 0) return
    try {
      await lastValueFrom(memory.save(changes), { defaultValue: undefined })
    } catch (thrown) {
      note(changes)
      throw thrown
    }
  }
  const current = (): MemoryChange[] => [
    ...[...sessions].map((clientId): MemoryChange => ({ kind: 'session', clientId, session: row(clientId) })),
    ...[...gone].map((sequence): MemoryChange => ({ kind: 'queued', sequence, message: undefined })),
  ]
  const saveNoted = async (): Promise<void> => {
    if (isSaving) return
    isSaving = true
    try {
      for (let changes = current(); changes.length > 0; changes = current()) {
        sessions.clear()
        gone.clear()
        await save(changes)
      }
    } catch (thrown) {
      if (isFatal(thrown)) fail(thrown)
    }
    isSaving = false
  }

  return {
    save,
    noteSession: clientId => {
      sessions.add(clientId)
      void saveNoted()
    },
    noteGone: sequence => {
      gone.add(sequence)
      void saveNoted()
    },
  }
}
