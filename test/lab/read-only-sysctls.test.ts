/**
 * A service that cannot write /proc/sys, as in every ordinary container:
 *
 *   app (/proc/sys read-only)                 router                 server                    exit1
 *   vpn-tun0 ══════════════════════════════════════════════════════ UDP 51821 ═══════════════ 10.9.0.1, fd09::1 `exit1`
 *   lo 127.0.0.53, ::1 `stub` ── eth0
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { VpnConfig } from '../../src/model/vpn-types.js';
import { packetOf, routerAdvertisement, udpFrame } from './lib/attackers/frames.js';
import { raise, VICTIMS } from './lib/attackers/victim.js';
import { canonicalState } from './lib/canonical-state.js';
import { connect, EVERYWHERE, pathOf, startServers } from './lib/exits.js';
import type { LabHost } from './lib/host.js';
import { ADVERTISED_PREFIX, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { AppError, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, settledState, type VpnLab, vpnLab } from './lib/vpn-lab.js';

const TIMEOUT = { timeout: 240_000 };
const STUBS = ['127.0.0.53', '::1'];
const OWNERS = [2001, 0];
const STATIONS = { from: '02:00:00:00:00:01', to: '02:00:00:00:00:02' };
const PORT = 5004;

async function containerLab(t: TestContext): Promise<VpnLab | undefined> {
  const lab = await vpnLab(t);
  if (!lab) return undefined;
  await startServers(lab.app, 'stub', STUBS);
  await lab.app.run('mount', ['--bind', '/proc/sys', '/proc/sys']);
  await readOnly(lab.app, 'ro');
  return lab;
}

const readOnly = (app: LabHost, word: 'ro' | 'rw') => app.run('mount', ['-o', `remount,bind,${word}`, '/proc/sys']);

/** From outside the container. */
async function outside(app: LabHost, ...assignments: string[]): Promise<void> {
  await readOnly(app, 'rw');
  await app.sysctl(...assignments);
  await readOnly(app, 'ro');
}

/** Sets it up, asks everybody by it, and takes it down. */
async function works(lab: VpnLab, owner: number, more: Omit<VpnConfig, 'addresses'>, isDual: boolean): Promise<void> {
  const what = `VPN of ${owner}, ${JSON.stringify(more)}, IPv6: ${isDual}`;
  const exit = exitOf(lab, 1);
  const [app, user] = await Promise.all([lab.process(owner), lab.process(2001)]);
  const addresses = exit.vnic.filter((address) => isDual || !address.includes(':'));
  const isAsked = (address: string) => isDual || !address.includes(':');
  await connect(app, exit, vpnConfig(addresses, more));
  const everywhere = EVERYWHERE.filter(({ address }) => isAsked(address));
  const expected = pathOf('exit1', exit.client).filter((_, index) => isAsked(EVERYWHERE[index]?.address ?? ''));
  assert.deepEqual(await user.call('ask', ...everywhere), expected, what);
  if (more.dnsAddresses) {
    const questions = [...STUBS, ADDRESSES.internet.ipv4].filter(isAsked).flatMap((address) => [
      { address, transport: 'dns-udp' as const },
      { address, transport: 'dns-tcp' as const },
    ]);
    const answers = await user.call('ask', ...questions);
    assert.deepEqual([...new Set(answers)], ['exit1'], what);
  }
  await app.call('destroy');
}

/** What setUp is refused with. */
async function refusal(
  lab: VpnLab,
  owner: number,
  addresses: readonly string[],
  more: Omit<VpnConfig, 'addresses'> = {},
): Promise<string> {
  const app = await lab.process(owner);
  const error = await app.call('setUp', vpnConfig(addresses, more)).then(
    () => assert.fail('it was set up'),
    (error) => error,
  );
  assert.ok(error instanceof AppError, String(error));
  assert.equal(error.code, 2200003, error.message);
  return error.message;
}

test(
  'VPNs of users and of root work without a word to /proc/sys, with IPv6 and DNS and without',
  TIMEOUT,
  async (t) => {
    const lab = await containerLab(t);
    if (!lab) return;
    const exit = exitOf(lab, 1);
    const before = await canonicalState(lab.app);
    for (const filter of [0, 2]) {
      await outside(lab.app, ...['all', 'default', 'eth0'].map((link) => `net.ipv4.conf.${link}.rp_filter=${filter}`));
      for (const owner of OWNERS) {
        await works(lab, owner, { dnsAddresses: [exit.ipv4, exit.ipv6] }, true);
        await works(lab, owner, { dnsAddresses: [exit.ipv4] }, false);
        await works(lab, owner, {}, false);
      }
    }
    await outside(lab.app, ...['all', 'default', 'eth0'].map((link) => `net.ipv4.conf.${link}.rp_filter=0`));
    await settledState(lab.app, before);
    assert.match(lab.vpnd.log(), /sysctls-not-set .*net\.ipv6\.conf\.vpn-tun0\.disable_ipv6=1/);
    assert.doesNotMatch(lab.vpnd.log(), / error /);
  },
);

test(
  'IPv6 that is off for new links and cannot be switched on is refused by name, and IPv4 alone works',
  TIMEOUT,
  async (t) => {
    const lab = await containerLab(t);
    if (!lab) return;
    const exit = exitOf(lab, 1);
    const before = await canonicalState(lab.app);
    await outside(lab.app, 'net.ipv6.conf.default.disable_ipv6=1');
    for (const owner of OWNERS) {
      const message = await refusal(lab, owner, exit.vnic);
      assert.match(message, /net\.ipv6\.conf\.default\.disable_ipv6=0/);
      assert.match(message, /read-only/);
      await works(lab, owner, {}, false);
    }
    await outside(lab.app, 'net.ipv6.conf.default.disable_ipv6=0');
    await settledState(lab.app, before);
  },
);

test(
  "root's VPN needs src_valid_mark where the outside is filtered strictly, and says so by name",
  TIMEOUT,
  async (t) => {
    const lab = await containerLab(t);
    if (!lab) return;
    const exit = exitOf(lab, 1);
    const before = await canonicalState(lab.app);
    for (const [where, other] of [
      ['eth0', 'all'],
      ['all', 'eth0'],
    ] as const) {
      await outside(lab.app, `net.ipv4.conf.${where}.rp_filter=1`, `net.ipv4.conf.${other}.rp_filter=0`);
      const message = await refusal(lab, 0, exit.vnic);
      assert.match(message, /net\.ipv4\.conf\.eth0\.src_valid_mark=1/);
      assert.match(message, /rp_filter/);
      await works(lab, 2001, { dnsAddresses: [exit.ipv4, exit.ipv6] }, true);
    }
    await outside(lab.app, 'net.ipv4.conf.all.src_valid_mark=1');
    await works(lab, 0, { dnsAddresses: [exit.ipv4, exit.ipv6] }, true);
    await outside(
      lab.app,
      'net.ipv4.conf.all.src_valid_mark=0',
      'net.ipv4.conf.all.rp_filter=0',
      'net.ipv4.conf.eth0.rp_filter=0',
    );
    await settledState(lab.app, before);
  },
);

test("root's VPN without IPv4 needs it where the outside is filtered loosely, too", TIMEOUT, async (t) => {
  const lab = await containerLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const ipv6 = exit.vnic.filter((address) => address.includes(':'));
  await outside(lab.app, 'net.ipv4.conf.all.rp_filter=2');
  const message = await refusal(lab, 0, ipv6, { isIPv4Accepted: false });
  assert.match(message, /net\.ipv4\.conf\.eth0\.src_valid_mark=1/);
  await outside(lab.app, 'net.ipv4.conf.all.src_valid_mark=1');
  const [root, user] = await Promise.all([lab.process(0), lab.process(2001)]);
  await connect(root, exit, vpnConfig(ipv6, { isIPv4Accepted: false }));
  const question = { address: ADDRESSES.internet.ipv6, transport: 'tcp' as const };
  assert.deepEqual(await user.call('ask', question), [`exit1 ${exit.client.ipv6}`]);
});

for (const victim of VICTIMS) {
  test(
    `${victim.whose}: what comes out of its tunnel configures nothing where accept_ra and IPv6 stay on`,
    TIMEOUT,
    async (t) => {
      const callers = [{ match: { uid: victim.owner }, system: true, permissions: ['ohos.permission.MANAGE_VPN'] }];
      const lab = await policyLab(t, { vpnd: { policy: { callers } } });
      if (!lab) return;
      const { app } = lab;
      await app.run('mount', ['--bind', '/proc/sys', '/proc/sys']);
      await outside(app, 'net.ipv6.conf.default.accept_ra=2', 'net.ipv6.conf.default.autoconf=1');
      const listener = await lab.prober({ uid: victim.covered.at(-1) ?? 0 });
      const [everywhere6, everywhere4] = [
        await listener.call('listen', 'udp', '::', PORT),
        await listener.call('listen', 'udp', '0.0.0.0', PORT + 1),
      ];
      for (const addresses of [exitOf(lab, 1).vnic, exitOf(lab, 1).vnic.filter((each) => !each.includes(':'))]) {
        const isDual = addresses.length > 1;
        const { app: owner, fd, device, exit } = await raise(lab, victim, { addresses });
        const { stdout } = await app.run('sysctl', ['-n', `net.ipv6.conf.${device}.accept_ra`]);
        assert.equal(stdout.trim(), '2', 'it could not be switched off');
        const before = await app.run('ip', ['-6', '-d', 'route', 'show', 'table', 'all', 'dev', device]);
        const inject = (frame: string) => owner.call('inject', fd, packetOf(frame));
        const say = (source: string, destination: string, destinationPort: number, word: string) =>
          inject(udpFrame(STATIONS, { source, destination, sourcePort: 7, destinationPort }, word));
        await inject(routerAdvertisement(STATIONS.from, 'fe80::bad', ADVERTISED_PREFIX));
        await say('fe80::bad', 'ff02::1', PORT, isDual ? 'dual' : 'refused');
        await say(ADDRESSES.internet.ipv4, exit.client.ipv4, PORT + 1, 'last');
        await eventually('what was sent last', async () => (await listener.call('heard', everywhere4))[0]);
        if (isDual) await eventually('the group', async () => (await listener.call('heard', everywhere6))[0]);
        assert.deepEqual(await listener.call('heard', everywhere6), ['dual']);
        const { stdout: given } = await app.run('ip', ['-6', '-o', 'address', 'show', 'dev', device]);
        assert.doesNotMatch(given, /2001:db8:bad/);
        const after = await app.run('ip', ['-6', '-d', 'route', 'show', 'table', 'all', 'dev', device]);
        assert.equal(after.stdout, before.stdout);
        await owner.call('destroy');
      }
    },
  );
}
