// Devices over MQTT, as for our own edge: the same generator, the same window, payloads that a tally can read.

import { type Produced, produce, senmlPayload } from '../harness/generator.ts'
import { type Batch, CONNECTIONS, WINDOW } from './peer.ts'

export const produceMqtt = (port: number, { records, firstProducer, onProgress }: Batch): Promise<Produced> =>
  produce({
    port,
    connections: CONNECTIONS,
    window: WINDOW,
    records,
    clientPrefix: `device-${firstProducer}`,
    payload: (producer, sequence) => senmlPayload(firstProducer + producer, sequence),
    topic: producer => `bench/${firstProducer + producer}`,
    ...(onProgress === undefined ? {} : { onProgress }),
  })
