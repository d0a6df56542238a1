// The two things about MQTT 3.1.1 bytes that neither library offers: a limit on the size of an incoming packet, and
// a PUBLISH as buffers, so that the payload is not copied.

/** Reads fixed headers only (section 2.2). False once a packet is larger than `packetBytesMax`. */
export type PacketMeter = (chunk: Buffer) => boolean

/**
 * Both mqtt.js and aedes gather a packet until it is whole, up to 256 MB: this sees the announced length first.
 */
export const packetMeter = (packetBytesMax: number): PacketMeter => {
  /** Bytes of the current packet's rest that have not come yet. */
  let rest = 0
  let lengthDigits = -1
  let length = 0
  return chunk => {
    for (let at = 0; at < chunk.length; ) {
      if (rest > 0) {
        const passed = Math.min(rest, chunk.length - at)
        rest -= passed
        at += passed
      } else if (lengthDigits < 0) {
        lengthDigits = 0
        length = 0
        at += 1
      } else {
        const digit = chunk[at] ?? 0
        at += 1
        length += (digit & 0x7f) * 128 ** lengthDigits
        lengthDigits += 1
        // A fifth digit is malformed: the parser behind says so, nothing large can come of it.
        if ((digit & 0x80) !== 0 && lengthDigits < 4) continue
        lengthDigits = -1
        rest = length
        if (length > packetBytesMax) return false
      }
    }
    return true
  }
}

export interface PublishPacket {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1
  readonly retain?: boolean
  /** 1 to 65,535; unused with QoS 0. */
  readonly messageId: number
}

/** Everything before the payload of a PUBLISH (section 3.3). */
export const publishHead = ({ topic, payload, qos, retain = false, messageId }: PublishPacket): Buffer => {
  const topicBytes = Buffer.byteLength(topic)
  const remaining = 2 + topicBytes + (qos === 1 ? 2 : 0) + payload.length
  const head = Buffer.allocUnsafe(1 + 4 + 2 + topicBytes + 2)
  let at = head.writeUInt8(0x30 | (qos << 1) | (retain ? 1 : 0), 0)
  for (let left = remaining; ; ) {
    const digit = left % 128
    left = Math.floor(left / 128)
    at = head.writeUInt8(left > 0 ? digit | 0x80 : digit, at)
    if (left === 0) break
  }
  at = head.writeUInt16BE(topicBytes, at)
  at += head.write(topic, at)
  if (qos === 1) at = head.writeUInt16BE(messageId, at)
  return head.subarray(0, at)
}

/** DISCONNECT: says to the broker that the will is not meant. */
export const DISCONNECT_PACKET = Buffer.of(0xe0, 0x00)
