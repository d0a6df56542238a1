// Why a stream ended early, and what its supervisor may do about it. Codes and texts: schemas/faults.ts.

import { describeFault, type Facts, type FaultCode, type Severity, severityOf } from '../../schemas/faults.ts'

export interface Fault extends Error {
  readonly severity: Severity
  readonly code: FaultCode
  readonly facts: Facts
}

export const fault = (code: FaultCode, facts: Facts = {}, cause?: unknown): Fault =>
  Object.assign(new Error(describeFault(code, facts), { cause }), {
    name: 'Fault',
    severity: severityOf(code),
    code,
    facts,
  })

export const isFault = (thrown: unknown): thrown is Fault =>
  thrown instanceof Error && thrown.name === 'Fault' && 'severity' in thrown

/** An error without a code is a defect of ours: as fatal as a coded one. */
export const isFatal = (thrown: unknown): boolean => !isFault(thrown) || thrown.severity === 'fatal'

export const reasonOf = (thrown: unknown): string =>
  thrown instanceof Error ? thrown.message : String(thrown)

/** For the `default` of an exhausted switch. */
export const unreachable = (value: never): never => {
  throw new Error(`unreachable: ${JSON.stringify(value)}`)
}
