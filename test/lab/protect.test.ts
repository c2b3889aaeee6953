/**
 * protect() in every state of a socket. Who answers tells the path; identity and mark are read by the process (SO_COOKIE,
 * SO_MARK) and by another program (`ss`).
 *
 *   app                              router              server
 *   uid 2001 ── vpn-tun0 ═══════════════════════════════ UDP 51821 ══ exit1     answers as `exit1`
 *                eth0 ────────────── 192.0.2.1 ───────── answers as `server`
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Transport } from './lib/app/native-socket.js';
import { connect } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { exitOf, type VpnLab, vpnLab } from './lib/vpn-lab.js';

const BYPASS = '80000000';
const { internet } = ADDRESSES;
const KINDS = (['tcp', 'udp'] as const).flatMap((transport) => [
  { transport, family: 1 as const, address: internet.ipv4, any: '0.0.0.0', physical: `server ${ADDRESSES.app.ipv4}` },
  { transport, family: 2 as const, address: internet.ipv6, any: '::', physical: `server ${ADDRESSES.app.ipv6}` },
]);

/** Cookie and mark of the process's only socket of this kind, as `ss` sees them. */
async function seenBySs({ app }: VpnLab, process: VpnApp, fd: number, transport: Transport) {
  const { stdout } = await app.run('ss', ['-Hanep', transport === 'tcp' ? '-t' : '-u']);
  const line = stdout.split('\n').find((each) => each.includes(`pid=${process.pid},fd=${fd})`)) ?? '';
  return {
    cookie: / sk:([0-9a-f]+)/.exec(line)?.[1],
    mark: / fwmark:0x([0-9a-f]+)/.exec(line)?.[1] ?? '0',
  };
}

test('protect before bind, after bind and after connect: the same socket, marked, physical, whatever comes after', {
  timeout: 180_000,
}, async (t) => {
  const lab = await vpnLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
  for (const { transport, family, address, any, physical } of KINDS) {
    for (const stage of ['created', 'bound', 'connected'] as const) {
      await t.test(`${transport}, IPv${family === 1 ? 4 : 6}, protected when ${stage}`, async () => {
        const fd = await user.call('open', family, transport);
        const { cookie } = await user.call('state', fd);
        const is = async (mark: string) => {
          assert.deepEqual(await user.call('state', fd), { cookie, mark });
          const seen = await seenBySs(lab, user, fd, transport);
          if (seen.cookie !== undefined) assert.deepEqual(seen, { cookie, mark });
        };
        await is('0');
        // A connection has its path before the VPN comes, and its protection: what is covered then does not survive.
        if (stage === 'connected') await user.call('connect', fd, address, 7);
        else await connect(owner, exit, vpnConfig(exit.vnic));
        if (stage === 'bound') await user.call('bind', fd, any);
        await is('0');
        await user.call('protect', fd);
        await is(BYPASS);
        await user.call('protect', fd);
        await is(BYPASS);
        if (stage === 'connected') await connect(owner, exit, vpnConfig(exit.vnic));
        if (stage === 'created') await user.call('bind', fd, any);
        const question = { transport, address, isConnected: stage === 'connected' };
        assert.equal(await user.call('askOn', fd, question), physical);
        await is(BYPASS);
        assert.notEqual((await seenBySs(lab, user, fd, transport)).cookie, undefined, 'ss sees it');
        await owner.call('destroy');
        await is(BYPASS);
        await connect(owner, exit, vpnConfig(exit.vnic));
        const again = await user.call('askOn', fd, { transport, address, isConnected: true });
        if (transport === 'udp') assert.equal(again, physical);
        else assert.match(again, /^again/);
        await owner.call('destroy');
        await user.call('close', fd);
      });
    }
  }

  await t.test(
    'an unconnected UDP socket: the datagram before goes in, the next one out, and so for good',
    async () => {
      await connect(owner, exit, vpnConfig(exit.vnic));
      for (const { transport, family, address, physical } of KINDS.filter((kind) => kind.transport === 'udp')) {
        const fd = await user.call('open', family, 'udp');
        const send = () => user.call('askOn', fd, { transport, address, unconnected: true });
        assert.equal(await send(), `exit1 ${family === 1 ? exit.client.ipv4 : exit.client.ipv6}`);
        await user.call('protect', fd);
        assert.equal(await send(), physical);
        assert.equal(await send(), physical);
        await user.call('close', fd);
      }
      await owner.call('destroy');
    },
  );

  await t.test('a connection made through the VPN: marked, and the same socket', async () => {
    await connect(owner, exit, vpnConfig(exit.vnic));
    for (const { transport, family, address } of KINDS) {
      const fd = await user.call('open', family, transport);
      await user.call('connect', fd, address, 7);
      const { cookie } = await user.call('state', fd);
      await user.call('protect', fd);
      assert.deepEqual(await user.call('state', fd), { cookie, mark: BYPASS });
      assert.deepEqual(await seenBySs(lab, user, fd, transport), { cookie, mark: BYPASS });
      await user.call('close', fd);
    }
    await owner.call('destroy');
  });

  await t.test('without any VPN it marks as well, and the mark holds for a VPN that comes later', async () => {
    const protectedFds: [number, (typeof KINDS)[number]][] = [];
    for (const kind of KINDS) {
      const fd = await user.call('open', kind.family, kind.transport);
      await user.call('protect', fd);
      protectedFds.push([fd, kind]);
    }
    await connect(owner, exit, vpnConfig(exit.vnic));
    for (const [fd, { transport, address, physical }] of protectedFds) {
      assert.equal(await user.call('askOn', fd, { transport, address }), physical);
    }
    await owner.call('destroy');
  });

  await t.test("the kit's sockets: one number and one socket from construction to the answer", async () => {
    await connect(owner, exit, vpnConfig(exit.vnic));
    for (const { transport, address, physical } of KINDS) {
      for (const isBound of [false, true]) {
        const fd = await user.call('openKit', transport);
        if (isBound) await user.call('bindKit', fd);
        await user.call('protect', fd);
        if (!isBound) await user.call('bindKit', fd);
        assert.equal(await user.call('askKit', fd, address), physical);
        const seen = await seenBySs(lab, user, fd, transport);
        assert.equal(seen.mark, BYPASS);
      }
    }
    await owner.call('destroy');
  });
});
