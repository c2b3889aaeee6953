/**
 * The descriptor, destroy, and what a VPN lives and dies with, as far as /proc and `ip -j` tell. How processes end is
 * test/lab/process-end.test.ts.
 *
 *   app (vpnd, the apps) ── router ── server
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { ADDRESSES } from '../lab/lib/standard-lab.js';
import { startVpnd } from '../lab/lib/vpnd.js';
import { O_CLOEXEC } from './lib/app.js';
import { assertSucceeded, FORMS } from './lib/rows.js';
import { POLICY, scene, until, USERS } from './lib/scene.js';

const A = { address: { address: '10.0.0.5' }, prefixLength: 24 };
const A6 = { address: { address: '2001:db8:5::5' }, prefixLength: 64 };
const CONFIG = { addresses: [A] };
const TO = ADDRESSES.internet.ipv4;

test('the life of a VPN', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const app = await stage.app(USERS.system);

  await t.test('the descriptor is a TUN without packet information, close-on-exec, and the service keeps no copy', async () => {
    const fd = await app.setUp({ addresses: [A, A6] });
    const { file, flags, link } = app.descriptor(fd);
    assert.deepEqual([file, link], ['/dev/net/tun', 'vpn-tun0']);
    assert.equal(flags & O_CLOEXEC, O_CLOEXEC);
    const tun = await stage.link('vpn-tun0');
    assert.deepEqual([tun?.linkinfo?.info_kind, tun?.linkinfo?.info_data.type], ['tun', 'tun']);
    assert.equal(tun?.linkinfo?.info_data.pi, false);
    assert.equal(tun?.linkinfo?.info_data.persist, false);
    const files = readdirSync(`/proc/${stage.vpnd.pid}/fd`).map((each) => {
      try {
        return readlinkSync(`/proc/${stage.vpnd.pid}/fd/${each}`);
      } catch {
        return '';
      }
    });
    assert.ok(!files.includes('/dev/net/tun'), files.join(' '));
    await app.destroy();
  });

  await t.test('nothing is readable that no one sent, and one read is one packet', async () => {
    const fd = await app.setUp({ addresses: [A, A6] });
    const tun = await stage.link('vpn-tun0');
    assert.equal(tun?.inet6_addr_gen_mode, 'none');
    assert.deepEqual(tun?.addr_info.filter(({ scope }) => scope === 'link'), []);
    assert.equal(await app.do((agent, open) => agent.packet(open, 2500), fd), '');
    const packets = await app.do(
      async (agent, open, to) => {
        const { socket } = await agent.udp(to);
        for (const size of [1, 100, 1000]) socket.send(Buffer.alloc(size));
        const lengths: number[] = [];
        for (let count = 0; count < 3; count++) lengths.push((await agent.packet(open)).length / 2);
        socket.close();
        return lengths;
      },
      fd,
      TO,
    );
    assert.deepEqual(packets, [29, 128, 1028]);
    await app.destroy();
  });

  await t.test('after destroy a waiting read ends with EFAULT, a later one with EBADFD, and the interface stays away', async () => {
    const fd = await app.setUp({ ...CONFIG, isBlocking: true });
    await app.do(({ fs, kept }, open) => {
      kept.read = new Promise((resolve) => {
        fs.read(open, Buffer.alloc(2048), 0, 2048, null, (error, length) => resolve(error?.code ?? `read ${length}`));
      });
    }, fd);
    await until('the read waits', () => waits(app.pid, /^tun_/));
    await app.destroy();
    assert.equal(await app.do(({ kept }) => kept.read as Promise<string>), 'EFAULT');
    const later = await app.do(({ fs }, open) => {
      try {
        return String(fs.readSync(open, Buffer.alloc(2048)));
      } catch (error) {
        const { code, errno } = error as NodeJS.ErrnoException;
        return `${code} ${errno}`;
      }
    }, fd);
    // EBADFD is 77; libuv has no name for it.
    assert.match(later, /-77$/);
    assert.equal(await stage.link('vpn-tun0'), undefined);
    // The number belongs to the app: still open, until it closes it.
    assert.equal(app.descriptor(fd).file, '/dev/net/tun');
    await app.do(({ fs }, open) => fs.closeSync(open), fd);
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

  await t.test('destroy from another process of the user ends the VPN', async () => {
    const second = await stage.newApp(USERS.system);
    await stage.unchanged(async () => {
      await app.setUp(CONFIG);
      await second.destroy();
    });
    await second.end();
  });

  await t.test("a user's calls are worked in order of arrival", async () => {
    const outcomes = await app.do(async (agent) => {
      const call = (method: 'setUp' | 'destroy') =>
        method === 'setUp' ? agent.attempt('promise', method, agent.config()) : agent.attempt('promise', method);
      return Promise.all([call('setUp'), call('destroy'), call('setUp'), call('setUp'), call('destroy')]);
    });
    assert.deepEqual(
      outcomes.map(({ error, data }) => error?.code ?? typeof data),
      ['number', 'object', 'number', 2203002, 'object'],
    );
    assert.equal(await stage.link('vpn-tun0'), undefined);
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

  await t.test('the death of vpnd changes nothing; its successor first removes what is tagged as its own', async () => {
    const before = await stage.way(USERS.system, TO);
    await app.setUp(CONFIG);
    await stage.vpnd.kill9();
    assert.equal(await stage.way(USERS.system, TO), 'vpn-tun0');
    const lost = await app.attempt('promise', 'destroy');
    assert.equal(lost.error?.code, 2200002);
    const directory = stage.vpnd.socket.replace(/\/[^/]*$/, '');
    const successor = await startVpnd(stage.host, { policy: POLICY, directory });
    // The same process, the same object: a new connection is made. The first answer comes after the sweep.
    await app.destroy();
    assert.equal(await stage.link('vpn-tun0'), undefined);
    assert.equal(await stage.way(USERS.system, TO), before);
    await app.setUp(CONFIG);
    await app.destroy();
    assert.equal((await successor.stop()).status, 0);
  });
});

/** Whether a thread of the process sleeps in a kernel function of that name. */
function waits(pid: number, where: RegExp): boolean {
  const tasks = readdirSync(`/proc/${pid}/task`);
  return tasks.some((task) => where.test(readFileSync(`/proc/${pid}/task/${task}/wchan`, 'utf8')));
}

function isSocket(pid: number, fd: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('socket:');
  } catch {
    return false;
  }
}
