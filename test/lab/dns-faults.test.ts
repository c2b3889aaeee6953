/**
 * What becomes of names, and of /etc/resolv.conf, when something dies: a server of the VPN's, the resolver, vpnd in the middle of
 * its work. lib/dns-lab.ts has the picture; root's VPN leads to exit2, user 2001's to exit1.
 *
 *   getent ── /etc/resolv.conf ── systemd-resolved ✝ ── vpnd ✝ ── vpn-tunB ═══ exit2 10.10.0.21 ✝, 10.10.0.11
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BACK_ENDS, type DnsLab, dnsLab, dnsOf, MACHINE, serversOf } from './lib/dns-lab.js';
import { connect, type Exit } from './lib/exits.js';
import { resolvectl, startResolved } from './lib/resolvers.js';
import { route, startApp, type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';
import { startVpnd, type Vpnd } from './lib/vpnd.js';

/** Nobody has this address. */
const deadServer = ({ ipv4 }: Exit) => ipv4.replace(/1$/, '21');
const linkOf = async ({ app }: DnsLab) => {
  const addresses = await app.json<{ ifname: string; addr_info: { local: string }[] }[]>('ip', ['-j', 'address']);
  return addresses.find(({ addr_info }) => addr_info.some(({ local }) => local === '10.10.0.2'))?.ifname ?? '';
};

for (const backEnd of BACK_ENDS) {
  test(`${backEnd}: with the first of two servers dead every name is still answered by the VPN's`, {
    timeout: 300_000,
  }, async (t) => {
    const lab = await dnsLab(t, backEnd);
    if (!lab) return;
    for (const [owner, exit] of [
      [2001, exitOf(lab, 1)],
      [0, exitOf(lab, 2)],
    ] as const) {
      const config = vpnConfig(exit.vnic, { dnsAddresses: [deadServer(exit), ...serversOf(exit).slice(1, 2)] });
      await connect(await lab.process(owner), exit, config);
    }
    const { exit1, exit2, outside } = await lab.asked(async () => {
      for (const [uid, exit] of [
        [2001, 'exit1'],
        [2002, 'exit2'],
      ] as const) {
        for (const number of [1, 2, 3, 4]) {
          const name = `n${number}.u${uid}.example.net`;
          assert.equal(await lab.lookUp({ uid, name, options: 'timeout:1 attempts:3' }), exit, name);
        }
      }
    }, lab.exits.map(deadServer));
    const names = (uid: number) => [1, 2, 3, 4].map((number) => `n${number}.u${uid}.example.net`);
    assert.deepEqual({ exit1, exit2, outside }, { exit1: names(2001), exit2: names(2002), outside: [] });
  });

  test(`${backEnd}: vpnd killed at any moment of setUp, started again, set up again and destroyed, 20 times: the original`, {
    timeout: 600_000,
  }, async (t) => {
    const lab = await dnsLab(t, backEnd);
    if (!lab) return;
    const exit = exitOf(lab, 2);
    const original = await lab.file();
    const directory = lab.vpnd.policyFile.replace(/\/[^/]*$/, '');
    let { vpnd } = lab as { vpnd: Vpnd };
    let setUpMs = 200;
    for (let round = 0; round < 20; round++) {
      const victim = await startApp(lab.app, 0, vpnd);
      const began = performance.now();
      const failed = connect(victim, exit, vpnConfig(exit.vnic, dnsOf(exit))).then(
        () => {},
        () => {},
      );
      await new Promise((resolve) => setTimeout(resolve, (setUpMs * (round + 1)) / 20));
      await vpnd.kill9();
      await failed;
      vpnd = await startVpnd(lab.app, { directory });
      assert.equal(await lab.file(), original, `round ${round}: started again after ${performance.now() - began} ms`);
      await victim.kill9();

      const root = await startApp(lab.app, 0, vpnd);
      const before = performance.now();
      await root.call('setUp', vpnConfig(exit.vnic, dnsOf(exit)));
      setUpMs = performance.now() - before;
      if (backEnd !== 'systemd-resolved') assert.notEqual(await lab.file(), original);
      await root.call('destroy');
      assert.equal(await lab.file(), original, `round ${round}: destroyed`);
      await root.kill9();
    }
    assert.equal(await lab.lookUp({ uid: 2002, name: 'end.example.net' }), 'machine');
    assert.deepEqual(await leftovers(lab), []);
  });
}

test('file: vpnd killed before each of its changes, in setUp, in destroy and at start: the original', {
  timeout: 600_000,
}, async (t) => {
  const lab = await dnsLab(t, 'file');
  if (!lab) return;
  const exit = exitOf(lab, 2);
  const original = await lab.file();
  const directory = lab.vpnd.policyFile.replace(/\/[^/]*$/, '');
  await lab.vpnd.kill9();
  const dying = (change: number) => ({
    directory,
    env: {
      RESOLV_CHANGE: String(change),
      NODE_OPTIONS: `--import ${lab.app.path('dist/test/lab/lib/vpnd-that-dies.js')}`,
    },
  });
  const states = new Set<string>();
  let deaths = 0;
  for (let change = 0, lived = false; !lived; change++) {
    assert.ok(change < 40);
    // Dies again at start, where it puts back what the one before has left, then with a successor that lives.
    const first = await startVpnd(lab.app, dying(change)).catch(() => undefined);
    if (first) {
      const root = await startApp(lab.app, 0, first);
      const work = async () => {
        await root.call('setUp', vpnConfig(exit.vnic, dnsOf(exit)));
        await root.call('destroy');
      };
      lived = await work().then(
        () => true,
        () => false,
      );
      await root.kill9();
      if (lived) await first.kill9();
    }
    if (!lived) deaths++;
    states.add(`${(await lab.file()) === original} ${await leftovers(lab)}`);
    for (let again = 0; again < 2; again++)
      await startVpnd(lab.app, dying(again)).then(
        (each) => each.kill9(),
        () => {},
      );
    const last = await startVpnd(lab.app, { directory });
    assert.equal(await lab.file(), original, `change ${change}`);
    assert.deepEqual(await leftovers(lab), [], `change ${change}`);
    await last.kill9();
  }
  // Between backup and write, and with the write done, were among them.
  assert.ok(deaths >= 6, `${deaths} deaths`);
  for (const state of ['true resolv.conf.before-vpnd', 'false resolv.conf.before-vpnd']) {
    assert.ok(
      [...states].some((each) => each.startsWith(state)),
      `${state} among ${[...states].join('; ')}`,
    );
  }
});

test('systemd-resolved: killed under a split VPN of root, every name is answered before, meanwhile and after', {
  timeout: 300_000,
}, async (t) => {
  const lab = await dnsLab(t, 'systemd-resolved');
  if (!lab) return;
  const exit = exitOf(lab, 2);
  const root: VpnApp = await lab.process(0);
  const routes = [route('10.77.0.0/16'), route('fd77::/48')];
  await connect(root, exit, vpnConfig(exit.vnic, dnsOf(exit, { routes, searchDomains: ['corp.example'] })));
  const link = await linkOf(lab);
  const isTold = async () => (await resolvectl(lab.app, 'dns', link)).includes(serversOf(exit)[0] ?? '') || undefined;
  await isTold();
  const everyName = async (phase: string, isThere: boolean) => {
    const { exit1, exit2, outside } = await lab.asked(async () => {
      for (const uid of [2002, 0]) {
        for (const options of ['timeout:2', 'timeout:2 use-vc']) {
          const way = `${options.includes('vc') ? 'tcp' : 'udp'}-${uid}-${phase}`;
          assert.equal(await lab.lookUp({ uid, name: `${way}.elsewhere.example`, options }), 'exit2', way);
          assert.equal(await lab.lookUp({ uid, name: `${way}.corp.example`, options }), 'exit2', way);
        }
      }
      if (isThere) await resolvectl(lab.app, 'query', `bus-${phase}.elsewhere.example`);
    });
    assert.deepEqual({ exit1, outside }, { exit1: [], outside: [] }, phase);
    assert.equal(exit2.length, isThere ? 9 : 8, phase);
  };
  await everyName('before', true);
  for (const round of [1, 2]) {
    await lab.resolved?.kill('SIGKILL');
    await everyName(`dead${round}`, false);
    await lab.app.run('rm', ['-rf', '/run/systemd/resolve/netif']);
    lab.resolved = await startResolved(lab.app);
    await eventually('resolved is told again', isTold);
    await everyName(`again${round}`, true);
  }
  await root.call('destroy');
  assert.equal(await lab.lookUp({ uid: 2002, name: 'end.example.net' }), 'machine');
});

test('systemd-resolved: a local network that claims a domain as its own gets none of its names', {
  timeout: 300_000,
}, async (t) => {
  const lab = await dnsLab(t, 'systemd-resolved');
  if (!lab) return;
  const exit = exitOf(lab, 2);
  await resolvectl(lab.app, 'dns', 'eth0', ...MACHINE);
  await resolvectl(lab.app, 'domain', 'eth0', '~example.net');
  await resolvectl(lab.app, 'default-route', 'eth0', 'yes');
  await connect(await lab.process(0), exit, vpnConfig(exit.vnic, dnsOf(exit)));
  const { outside } = await lab.asked(async () => {
    assert.equal(await lab.lookUp({ uid: 2002, name: 'claimed.example.net' }), 'exit2');
    // By the link that claims it, which is shut: no answer is right.
    await resolvectl(lab.app, 'query', 'claimed2.example.net').catch(() => {});
    await resolvectl(lab.app, 'query', '--interface=eth0', 'claimed3.example.net').catch(() => {});
  });
  assert.deepEqual(outside, []);
});

/** What stands beside resolv.conf. */
async function leftovers({ app }: DnsLab): Promise<string[]> {
  const { stdout } = await app.run('sh', ['-c', 'ls /etc | grep "^resolv.conf." || true']);
  return stdout.split('\n').filter((name) => name !== '');
}
