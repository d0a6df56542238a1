// Exactly once from a device: a QoS 2 message that comes again, over a connection, a kill or a restart, is stored once.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { connected, publish } from './raw.ts'
import { drained, killed, linesOf, QUIET, stopped, streamOf, verified, withInstallation } from './support.ts'

const payloadsOf = async (...[installation, gateway]: Parameters<typeof linesOf>): Promise<unknown[]> =>
  (await linesOf(installation, gateway)).map(({ payload }) => payload)

test('a QoS 2 message resent with DUP after a SIGKILL is stored once; after PUBREL its id carries a new message', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('twice')
    const edge = await gateway.start(QUIET)
    const session = { clientId: 'valve', clean: false }
    const before = await connected(gateway.localPort, session)
    before.send(publish('plant/valve', 2, 7, 'close'))
    await before.packet('pubrec')
    await killed(edge)

    await gateway.start(QUIET)
    const after = await connected(gateway.localPort, session)
    after.send(publish('plant/valve', 2, 7, 'close', true))
    await after.packet('pubrec')
    // As some clients do: without DUP, although it came before.
    after.send(publish('plant/valve', 2, 7, 'close'))
    await after.packet('pubrec', 2)
    assert.is(streamOf(await gateway.status()).head, 1)
    after.send({ cmd: 'pubrel', messageId: 7 })
    await after.packet('pubcomp')
    after.send(publish('plant/valve', 2, 7, 'open'))
    await after.packet('pubrec', 3)
    after.send({ cmd: 'pubrel', messageId: 7 })
    await after.packet('pubcomp', 2)
    after.close()

    await drained(gateway, { head: 2 })
    assert.equal(await payloadsOf(installation, 'twice'), ['close', 'open'])
    await verified(installation, [gateway])
  })
})

test('a PUBREL that was answered stays answered over a SIGKILL: the id is free, and PUBCOMP comes again', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('freed')
    const edge = await gateway.start(QUIET)
    const session = { clientId: 'valve', clean: false }
    const before = await connected(gateway.localPort, session)
    before.send(publish('plant/valve', 2, 9, 'first'))
    await before.packet('pubrec')
    before.send({ cmd: 'pubrel', messageId: 9 })
    await before.packet('pubcomp')
    await killed(edge)

    const again = await gateway.start(QUIET)
    const after = await connected(gateway.localPort, session)
    // The PUBCOMP may not have arrived: the device asks again, and is answered although nothing is held.
    after.send({ cmd: 'pubrel', messageId: 9 })
    await after.packet('pubcomp')
    after.send(publish('plant/valve', 2, 9, 'second'))
    await after.packet('pubrec')
    after.close()
    // An orderly stop keeps what is held just as well.
    assert.is((await stopped(again)).code, 0)
    await gateway.start(QUIET)
    const last = await connected(gateway.localPort, session)
    last.send(publish('plant/valve', 2, 9, 'second', true))
    await last.packet('pubrec')
    last.send({ cmd: 'pubrel', messageId: 9 })
    await last.packet('pubcomp')
    last.close()
    await drained(gateway, { head: 2 })
    assert.equal(await payloadsOf(installation, 'freed'), ['first', 'second'])
  })
})

test('ids belong to their client, and a clean session forgets them', async () => {
  await withInstallation(async installation => {
    await installation.startCloud()
    const gateway = await installation.enrol('apart')
    const edge = await gateway.start(QUIET)
    const publishOnce = async (
      clientId: string,
      clean: boolean,
      payload: string,
      dup = false,
    ): Promise<void> => {
      const device = await connected(gateway.localPort, { clientId, clean })
      device.send(publish('plant/valve', 2, 5, payload, dup))
      await device.packet('pubrec')
      device.close()
    }
    await publishOnce('one', false, 'of one')
    await publishOnce('other', false, 'of the other')
    await killed(edge)
    await gateway.start(QUIET)
    await publishOnce('one', false, 'of one', true)
    // It has a new session: id 5 is not the one that was held.
    await publishOnce('other', true, 'of the other, anew')
    await drained(gateway, { head: 3 })
    assert.equal(await payloadsOf(installation, 'apart'), ['of one', 'of the other', 'of the other, anew'])
  })
})

test.run()
