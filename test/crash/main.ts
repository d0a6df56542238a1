// `npm run crash -- --rounds N --seed S`: kills both programs at drawn moments and audits the cloud's log after each
// round. Exits with 1 on any violation. Needs `npm run build`.

import { Command } from 'commander'
import { isClean } from './auditor.ts'
import { runRounds } from './rounds.ts'

interface Given {
  readonly rounds: string
  readonly seed: string
}

const whole = (text: string, name: string): number => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 0) throw new Error(`--${name} ${text}: must be a whole number`)
  return value
}

const crash = async (given: Given): Promise<void> => {
  const [rounds, seed] = [whole(given.rounds, 'rounds'), whole(given.seed, 'seed')]
  const asked = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => asked.abort())
  console.log(`seed ${seed}, ${rounds} rounds`)
  const done = await runRounds({ rounds, seed, signal: asked.signal, tell: line => console.log(line) })
  const last = done.at(-1)
  const kills = done.reduce((sum, round) => sum + round.kills.length, 0)
  const isGood = done.every(isClean)
  console.log(
    `${isGood ? 'clean' : 'VIOLATED'}: ${done.length} rounds, ${kills} kills, ${last?.acknowledged ?? 0} acknowledged; seed ${seed}`,
  )
  if (!isGood) process.exitCode = 1
}

await new Command('npm run crash --')
  .description('Kills edge and cloud with SIGKILL while devices publish, and audits what the cloud holds.')
  .option('--rounds <count>', 'rounds', '10')
  .option('--seed <number>', 'of what is killed and when', String(Math.floor(Math.random() * 2 ** 32)))
  .action(crash)
  .parseAsync()
