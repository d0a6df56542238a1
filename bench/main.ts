// The benchmark harness: `npm run bench -- SCENARIO [flags]`. The last line is the result as one JSON object.

import { Command } from 'commander'
import { drain } from './drain.ts'
import { machine, type Scenario } from './scenario.ts'

const scenarios: readonly Scenario[] = [drain]

interface Given {
  readonly records?: string
  readonly projections: boolean
  readonly json?: boolean
}

const say = (text: string): void => void process.stdout.write(`${text}\n`)

const command = new Command('bench').description(
  'Real processes, default configuration, mTLS on; generators are raw sockets.',
)
command
  .command('list')
  .description('all scenarios')
  .action(() => {
    for (const { name, says } of scenarios) say(`${name.padEnd(10)} ${says}`)
  })
for (const scenario of scenarios) {
  command
    .command(scenario.name)
    .description(scenario.says)
    .option('--records <count>', `records (${scenario.recordsByDefault})`)
    .option('--no-projections', 'without the views')
    .option('--json', 'nothing but the result')
    .action(async ({ records, projections, json }: Given) => {
      const flags = { records: Number(records ?? scenario.recordsByDefault), projections, tiny: false }
      if (json !== true) say(JSON.stringify({ scenario: scenario.name, ...flags, machine: machine() }))
      const result = await scenario.run(flags, line => {
        if (json !== true) process.stderr.write(`${line}\n`)
      })
      say(JSON.stringify(result))
    })
}
await command.parseAsync()
