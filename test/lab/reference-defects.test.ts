/**
 * Ten defects that were found by reading the reference implementation; here each attack or mistake fails. The numbers are
 * those of that list.
 *
 *   app                              router              server
 *   uid 2001 ── vpn-tun0 ═══════════════════════════════ UDP 51821 ══ exit1     answers as `exit1`
 *   uid 4004 (no system application)
 *                eth0 ────────────── 192.0.2.1 ───────── answers as `server`
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import type { VpnConfig } from '../../src/model/vpn-types.js';
import { canonicalState, diffState } from './lib/canonical-state.js';
import { captureDepartures } from './lib/departures.js';
import { connect, EVERYWHERE, pathOf, startServers } from './lib/exits.js';
import { startFakeService } from './lib/fake-service.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { startApp, type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { exitOf, settledState, type VpnLab, vpnLab } from './lib/vpn-lab.js';

const STRANGER = 4004;
const VNIC = ['10.9.0.2/24', 'fd09::2/64'];
const ask = (app: VpnApp) => app.call('ask', ...EVERYWHERE);

/** Runs with a lab of its own, or is skipped where there can be none. */
function defect(number: number, name: string, run: (lab: VpnLab) => Promise<void>, networks: number[] = []): void {
  test(`${number}. ${name}`, { timeout: 120_000 }, async (t) => {
    const lab = await vpnLab(t, { networks });
    if (lab) await run(lab);
  });
}

defect(1, 'isBlocking is applied to the descriptor, both ways', async (lab) => {
  const owner = await lab.process(2001);
  for (const isBlocking of [true, false]) {
    const fd = await owner.call('setUp', vpnConfig(VNIC, { isBlocking }));
    const [, flags = ''] = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/${owner.pid}/fdinfo/${fd}`, 'utf8')) ?? [];
    assert.equal((Number.parseInt(flags, 8) & 0o4000) === 0, isBlocking);
    await owner.call('destroy');
  }
});

defect(2, 'protect succeeds only when the socket is marked: not without an answer, not with an error', async (lab) => {
  for (const [behaviour, code] of [
    ['closes', 2200002],
    ['fails', 2200003],
  ] as const) {
    const fake = await startFakeService(lab.app, behaviour);
    const app = await startApp(lab.app, 2001, fake);
    const fd = await app.call('open', 1, 'udp');
    await assert.rejects(app.call('protect', fd), { code }, behaviour);
    await assert.rejects(app.call('setUp', vpnConfig(VNIC)), { code }, behaviour);
    await assert.rejects(app.call('destroy'), { code }, behaviour);
    assert.equal((await app.call('state', fd)).mark, '0');
  }
  const app = await lab.process(2001);
  const fd = await app.call('open', 1, 'udp');
  for (const other of [0, -1, 9999]) await assert.rejects(app.call('protect', other), { code: 2203004 });
  process.kill(lab.vpnd.pid, 'SIGSTOP');
  const unanswered = (['protect', 'destroy'] as const).map((call) =>
    assert.rejects(call === 'protect' ? app.call(call, fd) : app.call(call), { code: 2200002 }),
  );
  await app.call('state', fd);
  await lab.vpnd.kill9();
  await Promise.all(unanswered);
  assert.equal((await app.call('state', fd)).mark, '0');
});

defect(3, 'who may not use VPNs gets no socket marked, however it asks, and nobody any other mark', async (lab) => {
  const [stranger, user] = await Promise.all([lab.process(STRANGER), lab.process(2001)]);
  const fd = await stranger.call('open', 1, 'udp');
  await assert.rejects(stranger.call('protect', fd), { code: 202 });
  await assert.rejects(stranger.call('request', 'protect', {}, [fd]), { code: 202 });
  await assert.rejects(stranger.call('request', 'setUp', { config: vpnConfig(VNIC) }, [fd]), { code: 202 });
  await assert.rejects(stranger.call('request', 'destroy', {}), { code: 202 });
  assert.equal((await stranger.call('state', fd)).mark, '0');

  const own = await user.call('open', 1, 'udp');
  await user.call('request', 'protect', { mark: 0x01000000, network: 100, fwmark: 1 }, [own]);
  assert.equal((await user.call('state', own)).mark, '80000000');
});

defect(
  4,
  'nobody but the caller of setUp gets the TUN; out of descriptors the service waits, it does not spin',
  async (lab) => {
    const [owner, same, stranger] = await Promise.all([2001, 2001, STRANGER].map((uid) => lab.process(uid)));
    assert.ok(owner && same && stranger);
    await owner.call('setUp', vpnConfig(VNIC));
    await assert.rejects(same.call('setUp', vpnConfig(VNIC)), { code: 2203002 });
    const holders = readdirSync('/proc')
      .filter((entry) => /^\d+$/.test(entry) && holdsTun(Number(entry), lab.app.pid))
      .map(Number);
    assert.deepEqual(holders, [owner.pid]);
    const { stdout } = await lab.app.run('ss', ['-Hxlp']);
    const listening = stdout.split('\n').filter((line) => line.includes(`pid=${lab.vpnd.pid},`));
    assert.equal(listening.length, 1, stdout);

    // Fewer than it has open: every accept fails, and the connection stays in the queue.
    const limit = (files: number) => lab.app.run('prlimit', ['--pid', String(lab.vpnd.pid), `--nofile=${files}:`]);
    await limit(8);
    await stranger.call('crowd', lab.vpnd.socket, 5);
    const ticks = () => {
      const fields = readFileSync(`/proc/${lab.vpnd.pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
      return Number(fields[11]) + Number(fields[12]);
    };
    await new Promise((resolve) => setTimeout(resolve, 300));
    const [before, start] = [ticks(), performance.now()];
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const [used, all] = [ticks() - before, (performance.now() - start) / 10];
    assert.ok(used < all / 5, `${used} of ${all} ticks used while nothing happens`);
    await limit(1024);
    await (await lab.process(2001)).call('destroy');
  },
);

defect(
  5,
  'the IPv6 default route takes every address; IPv6 that is not accepted is refused',
  async (lab) => {
    const exit = exitOf(lab, 1);
    const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
    await connect(owner, exit, vpnConfig(exit.vnic));
    const { stdout } = await lab.app.run('ip', ['-6', 'route', 'show', 'table', 'all', 'dev', 'vpn-tun0']);
    assert.match(stdout, /^default table \d+ /m);
    assert.deepEqual(await ask(user), pathOf('exit1', exit.client));
    await owner.call('destroy');

    await connect(owner, exit, vpnConfig([exit.vnic[0] ?? ''], { isIPv6Accepted: false }));
    const departures = await captureDepartures(lab.app);
    const answers = await ask(user);
    const expected = EVERYWHERE.map(({ address }) =>
      address.includes(':') ? 'ENETUNREACH' : `exit1 ${exit.client.ipv4}`,
    );
    assert.deepEqual(answers, expected);
    assert.deepEqual(
      (await departures.stop()).filter((line) => line.includes('2001:db8')),
      [],
    );
  },
  [1],
);

defect(
  6,
  "a DNS server's family is that of its address, whatever the flags and the order",
  async (lab) => {
    const exit = exitOf(lab, 1);
    const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
    await startServers(lab.router, 'lan', ['192.0.2.1', '2001:db8:1::1']);
    const questions = ['192.0.2.1', '2001:db8:1::1'].map((address) => ({ transport: 'dns-udp' as const, address }));
    for (const dnsAddresses of [
      [exit.ipv6, exit.ipv4],
      [exit.ipv4, exit.ipv6],
    ]) {
      await connect(owner, exit, vpnConfig(exit.vnic, { dnsAddresses, isIPv4Accepted: true, isIPv6Accepted: true }));
      assert.deepEqual(await user.call('ask', ...questions), ['exit1', 'exit1']);
      await owner.call('destroy');
    }
  },
  [1],
);

defect(7, 'applications that cannot be resolved are an error, not a VPN for nobody', async (lab) => {
  const before = await canonicalState(lab.app);
  const owner = await lab.process(2001);
  for (const more of [
    { trustedApplications: ['no.such.app'] },
    { trustedApplications: ['uid:2001', 'no.such.app'] },
    { blockedApplications: ['no.such.app'] },
    { trustedApplications: ['uid:2002'] },
  ]) {
    await assert.rejects(owner.call('setUp', vpnConfig(VNIC, more)), { code: 2200001 });
    assert.deepEqual(diffState(before, await canonicalState(lab.app)), []);
  }
});

defect(8, "the death of another process of the owner's user leaves the VPN alone", async (lab) => {
  const [owner, other, unrelated] = await Promise.all([2001, 2001, 2001].map((uid) => lab.process(uid)));
  assert.ok(owner && other && unrelated);
  await owner.call('setUp', vpnConfig(VNIC));
  const up = await canonicalState(lab.app);
  await other.call('protect', await other.call('open', 1, 'udp'));
  await assert.rejects(other.call('setUp', vpnConfig(VNIC)), { code: 2203002 });
  await Promise.all([other.kill9(), unrelated.kill9()]);
  // The service has heard of both deaths when a later connection has come and gone.
  const last = await lab.process(2001);
  await last.call('protect', await last.call('open', 1, 'udp'));
  await last.kill9();
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.deepEqual(diffState(up, await canonicalState(lab.app)), []);
});

defect(9, 'a setUp that fails on the way leaves nothing, and what stood in its way stays', async (lab) => {
  const owner = await lab.process(2001);
  const clean = await canonicalState(lab.app);
  const config = vpnConfig(VNIC, { dnsAddresses: ['10.9.0.1'] });
  const table = await defaultTable(lab, owner, config);
  await settledState(lab.app, clean);
  const obstacles: [what: string, put: () => Promise<unknown>, take: () => Promise<unknown>][] = [
    [
      'a link of that name',
      () => lab.app.ip('tuntap add dev vpn-tun0 mode tun'),
      () => lab.app.ip('tuntap delete dev vpn-tun0 mode tun'),
    ],
    [
      "a stranger's route in the VPN's table",
      () => lab.app.ip(`route add unreachable default table ${table} metric 4294967294 protocol static`),
      () => lab.app.ip(`route delete unreachable default table ${table} metric 4294967294 protocol static`),
    ],
    [
      'the same of IPv6',
      () => lab.app.ip(`route add unreachable ::/0 table ${table} metric 4294967294 protocol static`),
      () => lab.app.ip(`route delete unreachable ::/0 table ${table} metric 4294967294 protocol static`),
    ],
    [
      'a rule of a stranger, the same as one of ours to the letter',
      () => lab.app.ip('rule add pref 13199 goto 14000 protocol kernel'),
      () => lab.app.ip('rule delete pref 13199 goto 14000 protocol kernel'),
    ],
    [
      "a stranger's nft table of that name",
      () => lab.app.run('nft', ['add table inet vpnd { map dns_user { type uid : mark; }; }']),
      () => lab.app.run('nft', ['delete table inet vpnd']),
    ],
  ];
  for (const [what, put, take] of obstacles) {
    await put();
    const before = await canonicalState(lab.app);
    await assert.rejects(owner.call('setUp', config), { code: 2200003 }, what);
    assert.deepEqual(diffState(before, await canonicalState(lab.app)), [], what);
    await take();
  }
  // The caller dies while its VPN is made.
  const doomed = await lab.process(2002);
  process.kill(lab.vpnd.pid, 'SIGSTOP');
  doomed.call('setUp', config).catch(() => {});
  await doomed.call('state', await doomed.call('open', 1, 'udp'));
  await doomed.kill9();
  process.kill(lab.vpnd.pid, 'SIGCONT');
  await owner.call('setUp', config);
  await owner.call('destroy');
  await settledState(lab.app, clean);
});

defect(
  10,
  'the mark is one bit of a field of our own: foreign bits are kept, and mean nothing',
  async (lab) => {
    const exit = exitOf(lab, 1);
    const root = await lab.process(0);
    await connect(root, exit, vpnConfig(exit.vnic));
    for (const mark of [0x00ffffff, 0x00020000, 1]) {
      const fd = await root.call('open', 1, 'udp');
      await root.call('setMark', fd, mark);
      const question = { transport: 'udp' as const, address: ADDRESSES.internet.ipv4, unconnected: true };
      assert.equal(await root.call('askOn', fd, question), `exit1 ${exit.client.ipv4}`, 'not protected');
      await root.call('protect', fd);
      assert.equal((await root.call('state', fd)).mark, (0x80000000 + mark).toString(16));
      assert.equal(await root.call('askOn', fd, question), `server ${ADDRESSES.app.ipv4}`);
    }
  },
  [1],
);

/** Whether a process in the namespace of the given one has a TUN open. */
function holdsTun(pid: number, inNamespaceOf: number): boolean {
  try {
    if (readlinkSync(`/proc/${pid}/ns/net`) !== readlinkSync(`/proc/${inNamespaceOf}/ns/net`)) return false;
    return readdirSync(`/proc/${pid}/fd`).some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === '/dev/net/tun');
  } catch {
    return false;
  }
}

/** The number of the first VPN's table with the default routes. */
async function defaultTable(lab: VpnLab, owner: VpnApp, config: VpnConfig): Promise<string> {
  await owner.call('setUp', config);
  const { stdout } = await lab.app.run('ip', ['route', 'show', 'table', 'all', 'type', 'unreachable']);
  await owner.call('destroy');
  return /default table (\d+)/.exec(stdout)?.[1] ?? '';
}
