/**
 * The descriptor as it is handed over, destroy, and the connection of a process, as /proc and `ip -j` tell. What the descriptor
 * does afterwards is test/lab/tun-descriptor.test.ts, how processes end test/lab/process-end.test.ts.
 *
 *   app (vpnd, the apps) ── router ── server
 */
import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { ADDRESSES } from '../lab/lib/standard-lab.js';
import { O_CLOEXEC } from './lib/app.js';
import { assertSucceeded, FORMS } from './lib/rows.js';
import { scene, USERS, until } from './lib/scene.js';

const A = { address: { address: '10.0.0.5' }, prefixLength: 24 };
const A6 = { address: { address: '2001:db8:5::5' }, prefixLength: 64 };
const CONFIG = { addresses: [A] };
const TO = ADDRESSES.internet.ipv4;

test('the life of a VPN', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const app = await stage.app(USERS.system);

  await t.test('the descriptor is a TUN without packet information, close-on-exec', async () => {
    const fd = await app.setUp({ addresses: [A, A6] });
    const { file, flags, link } = app.descriptor(fd);
    assert.deepEqual([file, link], ['/dev/net/tun', 'vpn-tun0']);
    assert.equal(flags & O_CLOEXEC, O_CLOEXEC);
    const tun = await stage.link('vpn-tun0');
    assert.deepEqual([tun?.linkinfo?.info_kind, tun?.linkinfo?.info_data.type], ['tun', 'tun']);
    assert.equal(tun?.linkinfo?.info_data.pi, false);
    assert.equal(tun?.linkinfo?.info_data.persist, false);
    await app.destroy();
  });

  await t.test('closing the descriptor is up to the app; destroy works after it', async () => {
    await stage.unchanged(async () => {
      const fd = await app.setUp(CONFIG);
      await app.do(({ fs }, open) => fs.closeSync(open), fd);
      await app.destroy();
    });
  });

  await t.test('destroy is success without a VPN, as often as one likes', async () => {
    await stage.unchanged(async () => {
      for (const form of FORMS) {
        for (let times = 0; times < 3; times++) {
          assertSucceeded(await app.attempt(form, 'destroy'), form, 'undefined');
        }
      }
    });
  });

  await t.test("destroy never touches another user's VPN, root's included", async () => {
    const [root, other] = [await stage.app(USERS.root), await stage.app(USERS.other)];
    await app.setUp(CONFIG);
    await root.setUp({ addresses: [{ address: { address: '10.1.0.5' }, prefixLength: 24 }] });
    await stage.unchanged(async () => {
      for (let times = 0; times < 3; times++) await other.destroy();
    });
    await root.destroy();
    assert.equal(await stage.way(USERS.system, TO), 'vpn-tun0');
    assert.equal((await stage.link('vpn-tun0'))?.ifname, 'vpn-tun0');
    await app.destroy();
  });

  await t.test('a process has one connection to the service, close-on-exec, whatever objects it makes', async () => {
    const one = await stage.newApp(USERS.system);
    const sockets = () => readdirSync(`/proc/${one.pid}/fd`).filter((fd) => isSocket(one.pid, fd));
    const before = sockets();
    await one.do(async ({ vpn }) => {
      for (let count = 0; count < 20; count++) await vpn.createVpnConnection({}).destroy();
    });
    await until('only one connection is left', () => sockets().length === before.length + 1);
    const [fd] = sockets().filter((each) => !before.includes(each));
    assert.equal(one.descriptor(Number(fd)).flags & O_CLOEXEC, O_CLOEXEC);
    await one.end();
  });
});

function isSocket(pid: number, fd: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('socket:');
  } catch {
    return false;
  }
}
