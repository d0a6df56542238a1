// The real programs through three rounds of kills, and the auditor itself: one that finds nothing proves nothing.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Found, isClean, judge } from './auditor.ts'
import { type Ledger, payloadOf } from './ledger.ts'
import { runRounds } from './rounds.ts'

const ledger = (sends: number[], acknowledged: number): Ledger => ({
  producer: 0,
  sends,
  acknowledged,
  wrong: [],
})
const found = (...sequences: number[]): Found[] =>
  sequences.map(sequence => ({ topic: 'crash/0/sequence', payload: payloadOf(0, sequence) }))
const judged = (sequences: number[], of: Ledger) => {
  const broken: string[] = []
  const { records: _, ...counts } = judge(found(...sequences), [of], broken)
  return { ...counts, broken: broken.length }
}
const clean = { lost: 0, disordered: 0, doubled: 0, resent: 0, broken: 0 }

test('what was acknowledged and is not there is lost; what was not acknowledged may be there or not', () => {
  assert.equal(judged([0, 1, 2], ledger([1, 1, 1, 1], 3)), clean)
  assert.equal(judged([0, 1, 2, 3], ledger([1, 1, 1, 1], 3)), clean)
  assert.equal(judged([0, 2], ledger([1, 1, 1, 1], 3)), { ...clean, lost: 1 })
  assert.equal(judged([], ledger([1, 1], 2)), { ...clean, lost: 2 })
})

test('a message first seen behind a later one is disordered', () => {
  assert.equal(judged([0, 2, 1], ledger([1, 1, 1], 3)), { ...clean, disordered: 1 })
  assert.equal(judged([0, 2, 1], ledger([1, 2, 2], 3)), { ...clean, disordered: 1 })
})

test('a message may be there again only where it was sent again', () => {
  assert.equal(judged([0, 1, 2, 1, 2, 3], ledger([1, 2, 2, 1], 4)), { ...clean, resent: 2 })
  assert.equal(judged([0, 1, 1], ledger([1, 1], 2)), { ...clean, doubled: 1 })
  assert.equal(judged([0, 1, 1, 1], ledger([1, 2], 2)), { ...clean, doubled: 1 })
})

test('a record that nobody sent, or with other bytes, breaks the log', () => {
  assert.equal(judged([0, 1], ledger([1], 1)), { ...clean, broken: 1 })
  const broken: string[] = []
  judge(
    [
      {
        topic: 'crash/0/sequence',
        payload: Buffer.from(String(payloadOf(0, 0)).replace('filling', 'Filling')),
      },
    ],
    [ledger([1], 0)],
    broken,
  )
  judge([{ topic: 'other', payload: payloadOf(0, 0) }], [ledger([1], 0)], broken)
  assert.is(broken.length, 2)
})

const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 32))

test(`three rounds of kills lose, double and disorder nothing (SEED=${seed})`, async () => {
  const rounds = await runRounds({ rounds: 3, seed, tell: line => console.log(line) })
  assert.is(rounds.length, 3)
  for (const round of rounds) {
    assert.ok(isClean(round), JSON.stringify(round))
    assert.ok(round.kills.length >= 3)
    assert.ok(round.records >= round.acknowledged)
  }
  assert.ok(
    rounds.every(({ acknowledged }, i) => acknowledged > (rounds[i - 1]?.acknowledged ?? 0)),
    'each round adds',
  )
  assert.ok((rounds.at(-1)?.reconnects ?? 0) > 0, 'devices lost their connection')
})

test.run()
