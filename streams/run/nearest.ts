// The name that a person most likely meant.

/**
 * The closest of `names`, or undefined when none is close: at most a third of the letters, and two more,
 * differ.
 */
export const nearest = (wanted: string, names: readonly string[]): string | undefined => {
  let best: string | undefined
  let bestDistance = Math.floor(wanted.length / 3) + 2
  for (const name of names) {
    const found = plain(name) === plain(wanted) ? 0 : distance(wanted.toLowerCase(), name.toLowerCase())
    if (found >= bestDistance) continue
    best = name
    bestDistance = found
  }
  return best
}

/** window_bytes_max, WindowBytesMax and window-bytes-max are one name in different dress. */
const plain = (name: string): string => name.toLowerCase().replaceAll(/[-_.]/g, '')

/** Levenshtein: insertions, deletions and replacements of one letter. */
const distance = (one: string, other: string): number => {
  let row = Array.from({ length: other.length + 1 }, (_, i) => i)
  for (let i = 1; i <= one.length; i++) {
    const next = [i]
    for (let j = 1; j <= other.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (one[i - 1] === other[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[other.length] ?? 0
}
