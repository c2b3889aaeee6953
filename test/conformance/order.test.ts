/**
 * Which code comes when several would fit.
 *
 *   app (vpnd, the apps) ── router ── server
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { libc } from '../../src/kernel/ffi.js';
import { unixPair } from '../../src/kernel/unix-socket.js';
import { RawClient } from '../lab/lib/raw-client.js';
import { assertRefused, FORMS } from './lib/rows.js';
import { POLICY, scene, USERS } from './lib/scene.js';

const ADDRESS = { address: { address: '10.0.0.5' }, prefixLength: 24 };
const GOOD = { addresses: [ADDRESS] };
const WRONG_TYPE = { addresses: [ADDRESS], mtu: '1400' };
const WRONG_VALUE = { addresses: [ADDRESS], mtu: 1 };

test('the order of the codes', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const system = await stage.app(USERS.system);
  const ordinary = await stage.app(USERS.ordinary);
  await ordinary.connectUnasked(stage.vpnd.socket);
  const guest = await stage.app(USERS.guest);
  const guestWithoutPermission = await stage.app(USERS.guestWithoutPermission);
  const noPermission = await stage.app(USERS.noPermission);

  for (const form of FORMS) {
    await t.test(`setUp in the ${form} form: 401, 2200002, 202, 201, 2203001, 2200001, 2203002`, async () => {
      const unserved = await stage.newApp(USERS.ordinary, stage.host, '/run/nobody/listens');
      assertRefused(await unserved.attempt(form, 'setUp', WRONG_TYPE), form, 401, /mtu/);
      assertRefused(await unserved.attempt(form, 'setUp', WRONG_VALUE), form, 2200002, /start it.* with: .*vpnd/);
      await unserved.end();
      assertRefused(await ordinary.attempt(form, 'setUp', WRONG_TYPE), form, 401, /mtu/);
      assertRefused(await ordinary.attempt(form, 'setUp', WRONG_VALUE), form, 202, /system application/);
      // An ordinary user, with VPNs disabled: still 202.
      await stage.policy({ ...POLICY, disabled: true });
      assertRefused(await ordinary.attempt(form, 'setUp', GOOD), form, 202, /system application/);
      assertRefused(await guest.attempt(form, 'setUp', GOOD), form, 201, /disabled/);
      await stage.policy(POLICY);
      assertRefused(await guestWithoutPermission.attempt(form, 'setUp', WRONG_VALUE), form, 201, /MANAGE_VPN/);
      assertRefused(await guest.attempt(form, 'setUp', WRONG_VALUE), form, 2203001, /guest/);
      await system.setUp(GOOD);
      await stage.unchanged(async () => {
        assertRefused(await system.attempt(form, 'setUp', WRONG_VALUE), form, 2200001, /mtu/);
        assertRefused(await system.attempt(form, 'setUp', GOOD), form, 2203002, /vpn-tun0/);
      });
      await system.destroy();
    });

    await t.test(`protect in the ${form} form: 401, 2200001, 2203004, 2200002, 202, 201`, async () => {
      const unserved = await stage.newApp(USERS.ordinary, stage.host, '/run/nobody/listens');
      assertRefused(await unserved.attempt(form, 'protect', '4'), form, 401, /socketFd/);
      assertRefused(await unserved.attempt(form, 'protect', 1.5), form, 2200001, /socketFd/);
      assertRefused(await unserved.attempt(form, 'protect', 0), form, 2203004, /socketFd/);
      assertRefused(await unserved.attempt(form, 'protect', 1), form, 2203004, /socketFd/);
      await unserved.end();
      for (const [app, code] of [
        [ordinary, 202],
        [noPermission, 201],
      ] as const) {
        assertRefused(await app.attempt(form, 'protect', 0), form, 2203004, /socketFd/);
        const outcome = await app.do(async (agent, how) => {
          const { socket: udp, fd } = await agent.udp();
          const result = await agent.attempt(how, 'protect', fd);
          udp.close();
          return result;
        }, form);
        assertRefused(outcome, form, code, /uid/);
      }
    });

    await t.test(`destroy in the ${form} form: 401, 2200002, 202, 201`, async () => {
      const unserved = await stage.newApp(USERS.ordinary, stage.host, '/run/nobody/listens');
      assertRefused(await unserved.attempt('promise', 'destroy', null), form, 401, /callback/);
      assertRefused(await unserved.attempt(form, 'destroy'), form, 2200002, /start it.* with: .*vpnd/);
      await unserved.end();
      await stage.policy({ ...POLICY, disabled: true });
      assertRefused(await ordinary.attempt(form, 'destroy'), form, 202, /system application/);
      await stage.policy(POLICY);
      assertRefused(await noPermission.attempt(form, 'destroy'), form, 201, /MANAGE_VPN/);
    });
  }

  await t.test('the service parses again: shape first, then the order', async () => {
    const [mailbox, theirs] = unixPair();
    const ask = async (uid: number, config: unknown, more = {}) => {
      const peer = new RawClient(stage.host, stage.vpnd.socket, { uid, gid: uid });
      await peer.call('hello', { protocol: 1 });
      const answer = await peer.call('setUp', { config, ...more }, [theirs]);
      peer.close();
      return [answer?.error?.code, answer?.error?.data?.field];
    };
    await stage.unchanged(async () => {
      assert.deepEqual(await ask(USERS.ordinary, WRONG_TYPE), [401, 'config.mtu']);
      for (const offload of [null, 1, 'true', {}]) {
        assert.deepEqual(await ask(USERS.ordinary, WRONG_TYPE, { offload }), [401, 'config.mtu']);
        assert.deepEqual(await ask(USERS.ordinary, WRONG_VALUE, { offload }), [401, 'offload']);
      }
      assert.deepEqual(await ask(USERS.ordinary, WRONG_VALUE, { offload: true }), [202, undefined]);
      assert.deepEqual(await ask(USERS.ordinary, WRONG_VALUE), [202, undefined]);
      assert.deepEqual(await ask(USERS.guest, WRONG_VALUE), [2203001, undefined]);
      assert.deepEqual(await ask(USERS.system, WRONG_VALUE), [2200001, 'config.mtu']);
    });
    libc.close(mailbox);
    libc.close(theirs);
  });

  await t.test('a guest may protect and destroy', async () => {
    await guest.destroy();
    const outcome = await guest.attempt('promise', 'protect', 1);
    assertRefused(outcome, 'promise', 2203004, /socketFd/);
  });
});
