/**
 * The service's own process: how it starts, reloads and ends, and what its sudden death leaves.
 *
 *   app                              router              server
 *   uid 2001 ── vpn-tun0 ═══════════════════════════════ UDP 51821 ══ exit1
 *   uid 2002 ── vpn-tun1 (leads nowhere)
 *                eth0 ────────────── 192.0.2.1 ───────── answers as `server`
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { canonicalState, diffState } from './lib/canonical-state.js';
import { captureDepartures } from './lib/departures.js';
import { connect, EVERYWHERE, pathOf } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, settledState, type VpnLab, vpnLab } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';

const PHYSICAL = pathOf('server', ADDRESSES.app);
const CALLERS = [0, 2001, 2002].map((uid) => ({
  match: { uid },
  system: true,
  permissions: ['ohos.permission.MANAGE_VPN'],
}));
const ask = (app: VpnApp) => app.call('ask', ...EVERYWHERE);

test('killed with SIGKILL: VPNs stand and stay closed; a new service sweeps all of it and nothing of others', {
  timeout: 180_000,
}, async (t) => {
  const lab = await vpnLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  // Neighbours that look like ours in one way each.
  await lab.app.ip(
    'rule add pref 12345 from 192.0.2.77 lookup main protocol static',
    'tuntap add dev vpn-tun7 mode tun',
    'route add unreachable 10.99.0.0/16 table 50000 protocol static',
    'route add 10.98.0.0/16 dev eth0 table 77 protocol 177',
    'rule add pref 9000 fwmark 0x80000000/0x80000000 lookup 77 protocol kernel',
    'rule add pref 31000 from 192.0.2.78 lookup main protocol kernel',
  );
  await lab.app.run('ip', [
    '-6',
    'rule',
    'add',
    'pref',
    '13100',
    'from',
    '2001:db8:77::/48',
    'lookup',
    'main',
    'protocol',
    'static',
  ]);
  await lab.app.run('nft', ['add table inet neighbour { chain c { type filter hook output priority 0; }; }']);
  const before = await canonicalState(lab.app);

  const [owner, user, other] = await Promise.all([2001, 2001, 2002].map((uid) => lab.process(uid)));
  assert.ok(owner && user && other);
  await connect(owner, exit, vpnConfig(exit.vnic, { dnsAddresses: [exit.ipv4] }));
  await other.call('setUp', vpnConfig(['10.77.0.2/24', 'fd77::2/64']));
  const up = await canonicalState(lab.app);
  await lab.vpnd.kill9();
  assert.deepEqual(diffState(up, await canonicalState(lab.app)), []);
  assert.deepEqual(await ask(user), pathOf('exit1', exit.client));

  await owner.kill9();
  await eventually('the TUN is gone', async () => {
    const links = await lab.app.json('ip', ['-j', 'link', 'show', 'type', 'tun']);
    // What is left: the other VPN's and the neighbour's. For a link of another type `ip -j` prints an empty object.
    return links.filter((link) => link.ifname !== undefined).length === 2 || undefined;
  });
  const departures = await captureDepartures(lab.app);
  const refused = new Set(await ask(user));
  assert.ok(
    [...refused].every((answer) => /^E(NET|HOST)UNREACH$/.test(answer)),
    [...refused].join(),
  );
  assert.deepEqual(await departures.stop(), []);

  const successor = await startVpnd(lab.app, { directory: dirname(lab.vpnd.socket) });
  await successor.process.waitFor(/ swept /);
  for (const neighbour of ['ip -4 rule 12345', 'ip -6 rule 13100', 'ip -4 route in table 50000', 'link vpn-tun7']) {
    await successor.process.waitFor(new RegExp(`warning collision what="${neighbour}\\b`));
  }
  await settledState(lab.app, before);
  assert.deepEqual(await ask(user), PHYSICAL);

  const next = await lab.process(2001);
  await connect(next, exit, vpnConfig(exit.vnic));
  assert.deepEqual(await ask(user), pathOf('exit1', exit.client));
  assert.equal((await successor.stop()).status, 0);
  await settledState(lab.app, before);
});

test('SIGTERM ends every VPN and exits 0; every host is as it was', { timeout: 180_000 }, async (t) => {
  const lab = await vpnLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const before = await Promise.all([lab.app, lab.router, lab.server].map(canonicalState));
  const [owner, root, other] = await Promise.all([2001, 0, 2002].map((uid) => lab.process(uid)));
  assert.ok(owner && root && other);
  await connect(owner, exit, vpnConfig(exit.vnic, { dnsAddresses: [exit.ipv4, exit.ipv6] }));
  await root.call('setUp', vpnConfig(['10.78.0.2/24', 'fd78::2/64'], { dnsAddresses: ['10.78.0.1'] }));
  const fd = await other.call('setUp', vpnConfig(['10.77.0.2/24'], { isBlocking: true }));
  const blocked = other.call('read', fd);

  const { status, stderr } = await lab.vpnd.stop();
  assert.equal(status, 0, stderr);
  assert.equal(await blocked, 'EFAULT');
  const after = await Promise.all([lab.app, lab.router, lab.server].map(canonicalState));
  after.forEach((state, index) => {
    assert.deepEqual(diffState(before[index] ?? '', state), []);
  });
  await assert.rejects(owner.call('destroy'), { code: 2200002 });
});

test('SIGHUP: a policy that disables VPNs ends the live ones; a bad one changes nothing and says so once', {
  timeout: 120_000,
}, async (t) => {
  const lab = await vpnLab(t, { vpnd: { policy: { callers: CALLERS } } });
  if (!lab) return;
  const before = await canonicalState(lab.app);
  const [owner, other] = await Promise.all([lab.process(2001), lab.process(2002)]);
  await owner.call('setUp', vpnConfig(['10.77.0.2/24']));
  const up = await canonicalState(lab.app);
  const reloaded = (count: number) =>
    eventually('the reload', async () => (logged(lab, 'policy-').length >= count ? true : undefined));

  const bad = '{\n  "callers": [],\n  "disabled": maybe\n}\n';
  writeFileSync(lab.vpnd.policyFile, bad);
  process.kill(lab.vpnd.pid, 'SIGHUP');
  await reloaded(1);
  const errors = lab.vpnd
    .log()
    .split('\n')
    .filter((line) => / error /.test(line));
  assert.equal(errors.length, 1, errors.join('\n'));
  assert.match(errors[0] ?? '', /policy\.json:3/);
  assert.deepEqual(diffState(up, await canonicalState(lab.app)), []);
  await other.call('destroy');

  // Whoever loses the permission loses no live VPN.
  lab.vpnd.reload({ callers: CALLERS.slice(0, 1) });
  await reloaded(2);
  assert.deepEqual(diffState(up, await canonicalState(lab.app)), []);
  await assert.rejects(owner.call('destroy'), { code: 202 });
  await assert.rejects(other.call('setUp', vpnConfig(['10.78.0.2/24'])), { code: 202 });

  lab.vpnd.reload({ callers: CALLERS, disabled: true });
  await reloaded(3);
  await settledState(lab.app, before);
  await assert.rejects(owner.call('setUp', vpnConfig(['10.77.0.2/24'])), { code: 201 });
  lab.vpnd.reload({ callers: CALLERS });
  await reloaded(4);
  await owner.call('setUp', vpnConfig(['10.77.0.2/24']));
});

test('a bad policy at start: exit 78 with file, line and reason', { timeout: 120_000 }, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const before = await canonicalState(lab.app);
  for (const [text, said] of [
    ['{\n  "callers": 5\n}', /:2: callers: is not a list/],
    ['{\n\n"disabeld": true }', /:3: disabeld: is unknown/],
    ['{\n\n\n  // no comments\n}', /:4: JSON has no comments/],
    ['', /:1: is empty|:1: a value is expected/],
    ['{"callers": [\n{"match": {"user": "no-such-user"}}]}', /:2: callers\[0\]\.match\.user: .*no-such-user/],
  ] as const) {
    const file = join(lab.lab.directory, 'bad-policy.json');
    writeFileSync(file, text, { mode: 0o644 });
    const { status, stderr } = await second(lab, ['--policy', file]);
    assert.equal(status, 78, stderr);
    assert.match(stderr, said);
    assert.ok(stderr.includes(file), stderr);
    assert.equal(stderr.trim().split('\n').length, 1, stderr);
  }
  assert.equal((await second(lab, ['--policy', '/no/such/file'])).status, 78);
  assert.deepEqual(diffState(before, await canonicalState(lab.app)), []);
});

test('a socket path in use by a live service: exit 73, its VPNs untouched; a stale one is replaced', {
  timeout: 120_000,
}, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const owner = await lab.process(2001);
  await owner.call('setUp', vpnConfig(['10.77.0.2/24'], { dnsAddresses: ['10.77.0.1'] }));
  const up = await canonicalState(lab.app);
  const states = [join(lab.lab.directory, 'other-state'), join(dirname(lab.vpnd.socket), 'state')];
  for (const [socket, state] of [
    [lab.vpnd.socket, states[0]],
    [join(lab.lab.directory, 'other.sock'), states[1]],
    ['/etc/passwd', states[0]],
  ]) {
    const { status, stderr } = await second(lab, ['--socket', socket ?? '', '--state-dir', state ?? '']);
    assert.equal(status, 73, stderr);
    assert.deepEqual(diffState(up, await canonicalState(lab.app)), []);
  }
  await owner.call('destroy');

  await lab.vpnd.kill9();
  const successor = await startVpnd(lab.app, { directory: dirname(lab.vpnd.socket) });
  await owner.call('setUp', vpnConfig(['10.77.0.2/24']));
  assert.equal((await successor.stop()).status, 0);
});

/** Another vpnd that is not expected to last. */
function second(lab: VpnLab, args: readonly string[]) {
  const defaults = [
    '--socket',
    join(lab.lab.directory, 'second.sock'),
    '--state-dir',
    join(lab.lab.directory, 'second'),
  ];
  return lab.app.node('dist/src/service/vpnd.js', [...defaults, ...args], { check: false });
}

/** Lines of the log with this event. */
function logged(lab: VpnLab, event: string): string[] {
  return lab.vpnd
    .log()
    .split('\n')
    .filter((line) => new RegExp(` ${event}`).test(line));
}
