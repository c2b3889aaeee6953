/**
 * What setUp hands over: the descriptor's mode, its reads, and its end. One host and no far end:
 *
 *   uid 2001 ── vpn-tun0 10.9.0.2, fd09::2 ── fd in the app, read by hand
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, type VpnLab, vpnLab } from './lib/vpn-lab.js';

const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const ADDRESSES = ['10.9.0.2/24', 'fd09::2/64'];
const SYS_READ = process.arch === 'arm64' ? 63 : 0;

/** As the kernel tells everybody. */
function openFlags(app: VpnApp, fd: number): number {
  const [, flags = ''] = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/${app.pid}/fdinfo/${fd}`, 'utf8')) ?? [];
  return Number.parseInt(flags, 8);
}

/** Whether a thread of the process sits in read(2) of this descriptor. */
function isReading(app: VpnApp, fd: number): boolean {
  return readdirSync(`/proc/${app.pid}/task`).some((task) => {
    const [call, argument] = readFileSync(`/proc/${app.pid}/task/${task}/syscall`, 'utf8').split(' ');
    return call === String(SYS_READ) && Number(argument) === fd;
  });
}

const tunLinks = async ({ app }: VpnLab) => (await app.json('ip', ['-j', 'link', 'show', 'type', 'tun'])).length;

test('isBlocking false: O_NONBLOCK is set, a read without a packet says EAGAIN', { timeout: 180_000 }, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const owner = await lab.process(2001);
  for (const config of [vpnConfig(ADDRESSES), vpnConfig(ADDRESSES, { isBlocking: false })]) {
    const fd = await owner.call('setUp', config);
    assert.equal(readlinkSync(`/proc/${owner.pid}/fd/${fd}`), '/dev/net/tun');
    assert.equal(openFlags(owner, fd) & (O_NONBLOCK | O_CLOEXEC), O_NONBLOCK | O_CLOEXEC);
    assert.equal(await owner.call('read', fd), 'EAGAIN');
    await owner.call('destroy');
    assert.equal(await owner.call('read', fd), 'EBADFD');
    await owner.call('close', fd);
  }
});

test('isBlocking true: a read waits for a packet; at destroy it ends with EFAULT, later ones with EBADFD', {
  timeout: 180_000,
}, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
  const fd = await owner.call('setUp', vpnConfig(ADDRESSES, { isBlocking: true }));
  assert.equal(openFlags(owner, fd) & (O_NONBLOCK | O_CLOEXEC), O_CLOEXEC);

  const packet = owner.call('read', fd);
  await eventually('a thread in read', async () => isReading(owner, fd) || undefined);
  await user.call('ask', { transport: 'udp', address: '203.0.113.10', unconnected: true, timeoutMs: 0 });
  assert.equal(await packet, 20 + 8 + 1);

  const nothing = owner.call('read', fd);
  await eventually('a thread in read', async () => isReading(owner, fd) || undefined);
  await assert.rejects(user.call('setUp', vpnConfig(ADDRESSES)), { code: 2203002 });
  assert.ok(isReading(owner, fd), 'it still waits');
  await owner.call('destroy');
  assert.equal(await nothing, 'EFAULT');
  assert.equal(await owner.call('read', fd), 'EBADFD');
  assert.equal(openFlags(owner, fd) & O_NONBLOCK, 0);
});

test('nothing is readable that no one sent, also with IPv6', { timeout: 180_000 }, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
  for (const addresses of [ADDRESSES, ['fd09::2/64'], ['10.9.0.2/24']]) {
    const fd = await owner.call('setUp', vpnConfig(addresses, { isIPv4Accepted: addresses[0] !== 'fd09::2/64' }));
    const before = (await owner.call('recorded')).length;
    await owner.call('record', fd);
    // Router solicitations, listener reports and address checks would come within four seconds.
    await new Promise((resolve) => setTimeout(resolve, 4500));
    const address = addresses.includes('10.9.0.2/24') ? '203.0.113.10' : '2001:db8:f::10';
    await user.call('ask', { transport: 'udp', address, timeoutMs: 0 });
    const packets = await eventually('the packet that was sent', async () => {
      const seen = (await owner.call('recorded')).slice(before);
      return seen.length > 0 ? seen : undefined;
    });
    assert.deepEqual(
      packets.map(({ protocol, destination }) => `${protocol} ${destination}`),
      [`udp ${address}`],
    );
    const local = await lab.app.run('ip', ['-6', 'address', 'show', 'dev', 'vpn-tun0', 'scope', 'link']);
    assert.equal(local.stdout, '', 'a link-local address');
    await owner.call('destroy');
  }
});

test('a holder of the descriptor cannot keep the interface or bring it back', { timeout: 180_000 }, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  for (const ending of ['destroy', 'SIGKILL'] as const) {
    const owner = await lab.process(2001);
    const fd = await owner.call('setUp', vpnConfig(ADDRESSES));
    assert.deepEqual(await owner.call('keepDevice', fd), ['ok', 'ok'], 'the kernel asks for no right here');
    assert.match((await lab.app.run('ip', ['-d', 'link', 'show', 'type', 'tun'])).stdout, /persist on/);
    if (ending === 'destroy') await owner.call('destroy');
    else await owner.kill9();
    await eventually('no TUN', async () => ((await tunLinks(lab)) === 0 ? true : undefined));
    if (ending === 'destroy') {
      assert.deepEqual(await owner.call('keepDevice', fd), ['EBADFD', 'EBADFD']);
      assert.match(await owner.call('attach', 'vpn-tun0'), /^(EPERM|EACCES)$/);
    }
    assert.equal(await tunLinks(lab), 0);
  }
});

test('the service keeps no copy of the descriptor', { timeout: 180_000 }, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const owner = await lab.process(2001);
  const fd = await owner.call('setUp', vpnConfig(ADDRESSES));
  const held = () =>
    readdirSync(`/proc/${lab.vpnd.pid}/fd`).filter((each) => {
      try {
        return readlinkSync(`/proc/${lab.vpnd.pid}/fd/${each}`) === '/dev/net/tun';
      } catch {
        return false;
      }
    });
  assert.deepEqual(held(), []);
  await owner.call('close', fd);
  await eventually('no TUN', async () => ((await tunLinks(lab)) === 0 ? true : undefined));
});
