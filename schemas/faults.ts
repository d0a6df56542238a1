// Every coded error in one table: how bad it is, what it means and what mends it.
//
//   transient  the world misbehaved: wait, then try again
//   fatal      our code or the disk is broken: retrying cannot help
//   refused    the caller asked for what it may not or cannot have: say so, change nothing

export type Severity = 'transient' | 'fatal' | 'refused'

interface Meaning {
  readonly severity: Severity
  /** `{name}` is filled in from the fault's facts. */
  readonly says: string
}

const table = {
  // log
  log_gap: {
    severity: 'fatal',
    says: 'the log in {file} lacks offset {expected} and holds {found}: run "log verify", then restore or repair the data folder',
  },
  log_version: {
    severity: 'fatal',
    says: '{file} was written by format {found}, this program knows {known}: run the program that wrote it, or move the folder away',
  },
  log_locked: {
    severity: 'fatal',
    says: '{file} is in use by another process (pid {pid}): stop that one first',
  },
  log_unreadable: {
    severity: 'fatal',
    says: '{file} cannot be read as a log ({because}): check the disk, run "log verify", restore the folder from a backup',
  },
  log_closed: { severity: 'transient', says: 'the log is closed' },
  commit_failed: { severity: 'transient', says: 'writing to {file} failed: {because}' },
  disk_full: {
    severity: 'transient',
    says: 'no space left for {file}: free space on its disk; nothing acknowledged is affected',
  },
  stream_full: {
    severity: 'transient',
    says: 'stream "{stream}" holds {bytes} bytes of at most {bytesMax}: raise streams.{stream}.maxBytes, or restore the uplink',
  },
  stream_unknown: {
    severity: 'refused',
    says: 'no stream is named "{stream}": declare [streams.{stream}] in the configuration',
  },
  record_too_large: {
    severity: 'refused',
    says: 'a record of {bytes} bytes is over the limit of {bytesMax}',
  },
  folder_unwritable: {
    severity: 'fatal',
    says: 'cannot write to {folder} ({because}): create it and give this user the right to write there',
  },
  // frames and protocol
  frame_malformed: { severity: 'refused', says: 'malformed frame: {because}' },
  frame_crc: {
    severity: 'refused',
    says: 'frame {stream} {first} has CRC {found}, its bytes give {expected}',
  },
  frame_chain: { severity: 'refused', says: 'frame {stream} {first} does not continue the chain at {after}' },
  frame_sequence: { severity: 'refused', says: 'frame {stream} starts at {found}, {expected} is next' },
  frame_epoch: {
    severity: 'refused',
    says: 'frame {stream} is of epoch {found}, the hello announced {expected}',
  },
  hello_malformed: { severity: 'refused', says: 'malformed hello: {because}' },
  hello_missing: { severity: 'refused', says: 'frames before a hello' },
  mark_refused: { severity: 'refused', says: 'mark {offset} of stream {stream} refused: {because}' },
  senml_malformed: { severity: 'refused', says: 'not SenML: {because}' },
  // link and broker
  link_lost: { severity: 'transient', says: 'connection to {address} lost: {because}' },
  link_unreachable: { severity: 'transient', says: 'cannot reach {address}: {because}' },
  link_refused: { severity: 'transient', says: '{address} refused the connection: {because}' },
  link_down: { severity: 'transient', says: 'not connected' },
  lane_full: {
    severity: 'transient',
    says: 'lane "{lane}" to {address} is full: more waits for the connection than it can carry',
  },
  port_in_use: {
    severity: 'fatal',
    says: '{address} is in use by another program: stop it, or set {key} to another port',
  },
  listen_failed: { severity: 'fatal', says: 'cannot listen on {address} ({because}): set {key}' },
  // configuration and identity
  config_missing: { severity: 'fatal', says: 'no configuration at {file}: {mend}' },
  config_invalid: { severity: 'fatal', says: '{file}: {because}' },
  identity_missing: { severity: 'fatal', says: 'no identity in {folder}: run "{mend}"' },
  identity_invalid: { severity: 'fatal', says: '{file}: {because}' },
  token_invalid: { severity: 'refused', says: 'the token is not valid: {because}' },
  enrol_refused: { severity: 'refused', says: '{address} refused the enrolment: {because}' },
  cloud_untrusted: {
    severity: 'refused',
    says: '{address} is not the cloud that the token names ({because}): nothing secret was sent; check the token and the address',
  },
  csr_invalid: { severity: 'refused', says: 'the certificate request is not valid: {because}' },
  gateway_unknown: { severity: 'refused', says: 'no gateway is named "{gateway}"' },
  gateway_exists: { severity: 'refused', says: 'a gateway named "{gateway}" exists already' },
  gateway_invalid: { severity: 'refused', says: 'not a valid gateway: {because}' },
  gateway_state: { severity: 'refused', says: 'gateway "{gateway}" is {state}: {mend}' },
  cursor_invalid: { severity: 'refused', says: 'the cursor is not valid: {because}' },
  cursor_unknown: {
    severity: 'refused',
    says: 'no cursor is named "{cursor}": PUT /api/cursors/{cursor} makes it',
  },
  request_refused: { severity: 'refused', says: 'request refused: {because}' },
  limit_reached: { severity: 'refused', says: '{limit} is reached ({max}): {mend}' },
  query_refused: { severity: 'refused', says: 'question "{name}" refused: {because}' },
  worker_lost: { severity: 'transient', says: 'worker "{name}" stopped: {because}' },
} as const satisfies Record<string, Meaning>

export type FaultCode = keyof typeof table
export type Facts = Readonly<Record<string, unknown>>

export const severityOf = (code: FaultCode): Severity => table[code].severity

export const describeFault = (code: FaultCode, facts: Facts): string =>
  table[code].says.replace(/\{(\w+)\}/g, (_, name: string) => String(facts[name] ?? '?'))
