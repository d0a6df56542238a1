// What a producer knows of its messages: how often it sent each, and which were acknowledged. The auditor is given this
// and nothing else of the producer's.

export interface Ledger {
  readonly producer: number
  /** By sequence from 0: how often it was sent. */
  readonly sends: number[]
  /** Sequences 0…n−1 were acknowledged; PUBACKs of one connection come in order. */
  acknowledged: number
  /** Answers that no broker may give. */
  readonly wrong: string[]
}

export const openLedger = (producer: number): Ledger => ({ producer, sends: [], acknowledged: 0, wrong: [] })

export const TOPIC_ROOT = 'crash'

/** SenML, so that the cloud's views work on it as well; of differing lengths, so that frames and pages differ. */
export const payloadOf = (producer: number, sequence: number): Buffer => {
  const filling = 'x'.repeat((sequence * 7_919 + producer * 31) % 240)
  return Buffer.from(
    JSON.stringify([
      { bn: `crash/${producer}/`, n: 'sequence', v: sequence },
      { n: 'filling', vs: filling },
    ]),
  )
}
