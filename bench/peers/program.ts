// Where a rival's program is. Debian puts servers into folders that a user's PATH may lack.

import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

const SERVER_FOLDERS = ['/usr/sbin', '/usr/local/sbin']

/** The program's path; undefined when it is not installed. */
export const programPath = (name: string): string | undefined =>
  [...(process.env['PATH'] ?? '').split(delimiter), ...SERVER_FOLDERS]
    .filter(folder => folder !== '')
    .map(folder => join(folder, name))
    .find(isExecutable)

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
