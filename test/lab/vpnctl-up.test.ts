/**
 * `vpnctl up`, `down` and `status` as an ordinary user runs them, against a real WireGuard server (vpnctl-lab.ts). What leaves by
 * eth0 is captured; what is left behind is read from the kernel and from the user's folders.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { canonicalState, diffState } from './lib/canonical-state.js';
import { nothingIsClosing } from './lib/closing.js';
import { captureDepartures, kinds } from './lib/departures.js';
import { EVERYWHERE, pathOf } from './lib/exits.js';
import { startPeer } from './lib/peers.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually, settledState } from './lib/vpn-lab.js';
import { INSIDE, officeConf, type User, userOf, type VpnctlLab, vpnctlLab, WG_PORT } from './lib/vpnctl-lab.js';

const TIMEOUT = { timeout: 180_000 };
const UID = 2001;
const PHYSICAL = pathOf('server', ADDRESSES.app);
const TUNNELLED = pathOf('server', INSIDE.client);
const MANAGE_VPN = 'ohos.permission.MANAGE_VPN';

async function up(user: User, lab: VpnctlLab, more: Parameters<typeof officeConf>[1] = {}): Promise<void> {
  const { status, stdout, stderr } = await user.vpnctl('up', user.write('office.conf', officeConf(lab, more)));
  assert.deepEqual([status, stderr], [0, ''], stderr);
  assert.match(stdout, /^office \(vpn-tun0\): up, log in \/\S+\/vpn-manager\/office\.log\n$/);
}

/** What there is in the user's folder for sockets. */
function runtimeFiles(user: User): string[] {
  return readdirSync(join(user.runtime, 'vpn-manager')).sort();
}

async function pidOf(user: User): Promise<number> {
  const tunnel = await user.status();
  assert.ok(tunnel, 'there is a tunnel');
  return tunnel.pid;
}

test(
  'an ordinary user: all of it through the tunnel, DNS too, and nothing else leaves than its datagrams',
  TIMEOUT,
  async (t) => {
    const lab = await vpnctlLab(t);
    if (!lab) return;
    const user = userOf(lab, UID);
    const before = await canonicalState(lab.app);
    const app = await lab.process(UID);
    assert.deepEqual(await app.call('ask', ...EVERYWHERE), PHYSICAL);
    await nothingIsClosing(lab.app);
    await up(user, lab);

    const departures = await captureDepartures(lab.app);
    await t.test('the user is covered, and others are not', async () => {
      assert.deepEqual(await app.call('ask', ...EVERYWHERE), TUNNELLED);
      const asked = (['dns-udp', 'dns-tcp'] as const).flatMap((transport) =>
        ['192.0.2.53', ADDRESSES.internet.ipv4, ADDRESSES.internet.ipv6].map((address) => ({ transport, address })),
      );
      assert.deepEqual(kinds(await app.call('ask', ...asked)), ['inside']);
      const sent = kinds(await departures.stop());
      assert.deepEqual(sent, [`udp ${ADDRESSES.app.ipv4} > ${ADDRESSES.server.ipv4}:${WG_PORT}`]);
      const other = await lab.process(2002);
      assert.deepEqual(await other.call('ask', ...EVERYWHERE), PHYSICAL);
    });

    await t.test('status tells about the tunnel', async () => {
      const { tunnel, seen } = await eventually('both have counted the same', async () => {
        const tunnel = await user.status();
        const [seen] = (await lab.wireguard.show()).peers;
        // The last keepalive of either side may be on its way.
        const difference = (seen?.receivedBytes ?? 0) - (tunnel?.peers[0]?.sentBytes ?? 0);
        return Math.abs(difference) <= 64 ? { tunnel, seen } : undefined;
      });
      const { peers, publicKey, cipher, link, name, listenPort } = tunnel ?? assert.fail('no tunnel');
      assert.deepEqual({ publicKey, link, name }, { publicKey: lab.keys.publicKey, link: 'vpn-tun0', name: 'office' });
      assert.match(cipher, /^node|^libcrypto/);
      const [peer] = peers;
      assert.equal(peers.length, 1);
      assert.equal(peer?.publicKey, lab.wireguard.publicKey);
      assert.equal(peer.endpoint, `${ADDRESSES.server.ipv4}:${WG_PORT}`);
      assert.deepEqual(peer.allowedIps, ['0.0.0.0/0', '::/0']);
      assert.equal(seen?.endpoint, `${ADDRESSES.app.ipv4}:${listenPort}`);
      assert.ok(Math.abs((seen?.latestHandshake ?? 0) * 1000 - Date.parse(peer.lastHandshake ?? '')) < 15_000);

      const { stdout } = await user.vpnctl('status');
      assert.match(stdout, /^vpn-tun0 {2}uid 2001 .*\n {2}wireguard "office" of "\S+office\.conf" .*\n {2}peer /);
      assert.match(
        stdout,
        /handshake \d+ (s|min)\b.* ago {2}received [\d.]+ (B|KiB) {2}sent [\d.]+ (B|KiB) {2}allowed 0\.0\.0\.0\/0 ::\/0/,
      );
    });

    await t.test('no secret is in ps, environments, logs and status', async () => {
      const pid = await pidOf(user);
      const texts = [
        ...['cmdline', 'environ', 'comm'].map((file) => readFileSync(`/proc/${pid}/${file}`, 'latin1')),
        readFileSync(join(user.runtime, 'vpn-manager/office.log'), 'utf8'),
        ...(await Promise.all([user.vpnctl('status'), user.vpnctl('status', '--json')])).map(({ stdout }) => stdout),
        lab.vpnd.log(),
      ];
      assert.match(texts[0] ?? '', /tunnel-process\.js\0office\0$/);
      for (const secret of [lab.keys.privateKey, lab.presharedKey]) {
        const forms = [secret, Buffer.from(secret, 'base64').toString('hex'), secret.slice(0, 20)];
        for (const text of texts) for (const form of forms) assert.ok(!text.includes(form));
      }
      assert.equal(readFileSync(`/proc/${pid}/stat`, 'latin1').split(' ')[5], String(pid), 'a session of its own');
    });

    await t.test("no other process of the user's reads its memory", async () => {
      const mapsOf = async (pid: number) => {
        const command = ['--reuid=2001', '--regid=2001', '--clear-groups', '--', 'cat', `/proc/${pid}/maps`];
        return (await lab.app.run('setpriv', command, { check: false })).stderr;
      };
      assert.equal(await mapsOf(app.pid), '');
      assert.match(await mapsOf(await pidOf(user)), /Permission denied/);
    });

    await t.test('down: as it was, and nothing is left', async () => {
      const { status, stdout } = await user.vpnctl('down', 'office');
      assert.deepEqual([status, stdout], [0, 'office (vpn-tun0): down\n']);
      assert.deepEqual(diffState(before, await canonicalState(lab.app)), []);
      assert.deepEqual(await app.call('ask', ...EVERYWHERE), PHYSICAL);
      assert.deepEqual(runtimeFiles(user), []);
      assert.deepEqual(await user.vpnctl('down'), { status: 0, stdout: 'nothing is up\n', stderr: '' });
      assert.deepEqual(await user.vpnctl('down', 'office'), { status: 1, stdout: 'office is not up\n', stderr: '' });
      assert.equal((await user.vpnctl('status')).stdout, 'no VPN is up\n');
    });
  },
);

for (const lockdown of [false, true]) {
  const after = lockdown ? 'stays blocked under lockdown' : 'is then open again';
  test(
    `kill -9 of the tunnel's process: traffic is blocked until its VPN is down, and ${after}`,
    TIMEOUT,
    async (t) => {
      const callers = [0, UID].map((uid) => ({ match: { uid }, system: true, permissions: [MANAGE_VPN] }));
      const policy = { callers, lan: 'off', ...(lockdown && { lockdown: [UID] }) };
      const lab = await vpnctlLab(t, { vpnd: { policy } });
      if (!lab) return;
      const user = userOf(lab, UID);
      const before = await canonicalState(lab.app);
      const app = await lab.process(UID);
      const ask = () => app.call('ask', ...EVERYWHERE);
      await up(user, lab);
      assert.deepEqual(await ask(), TUNNELLED);

      const pid = await pidOf(user);
      // Between the death and the service's work there is as much time as the service needs; here, as the test wants.
      process.kill(lab.vpnd.pid, 'SIGSTOP');
      process.kill(pid, 'SIGKILL');
      await eventually('no TUN', async () => {
        const links = await lab.app.json('ip', ['-j', 'link', 'show', 'type', 'tun']);
        return links.length === 0 || undefined;
      });
      // The kernel would answer its keepalives, which come 10 s after the last data, for a port that nobody has any more.
      process.kill(lab.wireguard.process.pid, 'SIGSTOP');
      const departures = await captureDepartures(lab.app);
      const isRefused = (answer: string) => /^E(NET|HOST)UNREACH$|^EACCES$|^EPERM$/.test(answer);
      assert.deepEqual(
        (await ask()).filter((answer) => !isRefused(answer)),
        [],
      );
      assert.deepEqual(await departures.stop(), []);
      process.kill(lab.vpnd.pid, 'SIGCONT');
      await settledState(lab.app, before);
      const later = await captureDepartures(lab.app);
      const now = await ask();
      if (lockdown)
        assert.deepEqual(
          now.filter((answer) => !isRefused(answer)),
          [],
        );
      else assert.deepEqual(now, PHYSICAL);
      assert.equal((await later.stop()).length === 0, lockdown);
      process.kill(lab.wireguard.process.pid, 'SIGCONT');

      assert.deepEqual(
        runtimeFiles(user),
        ['office.log', 'vpn-tun0.control', 'vpn-tun0.sock'],
        'files of a dead process',
      );
      assert.deepEqual(await user.vpnctl('down'), { status: 0, stdout: 'nothing is up\n', stderr: '' });
      assert.deepEqual(runtimeFiles(user), ['office.log']);
      await up(user, lab);
      assert.deepEqual(await ask(), TUNNELLED);
      assert.equal((await user.vpnctl('down')).status, 0);
      assert.deepEqual(runtimeFiles(user), []);
      await settledState(lab.app, before);
    },
  );
}

test('what is wrong is one line, exit 65, 66, 69, 78 or 1, and nothing is set up', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const before = await canonicalState(lab.app);
  const departures = await captureDepartures(lab.app);
  const write = (text: string) => user.write('bad.conf', text);
  const good = officeConf(lab);
  const cases: [exitCode: number, words: string[], said: RegExp][] = [
    [65, ['up', write(good.replace('PrivateKey', 'PublicKey'))], /bad\.conf:2: /],
    [66, ['up', join(user.home, 'none.conf')], /none\.conf: there is no such file/],
    [66, ['up', 'nowhere'], /nowhere: there is no nowhere\.conf in /],
    [64, ['up'], /up needs one FILE or NAME/],
    [64, ['up', '--colour', 'x'], /colour/],
    [64, ['down', 'a', 'b'], /one FILE, NAME or LINK/],
  ];
  for (const [exitCode, words, said] of cases) {
    const { status, stdout, stderr } = await user.vpnctl(...words);
    assert.deepEqual([status, stdout], [exitCode, ''], stderr);
    assert.match(stderr, said);
    if (exitCode !== 64) assert.match(stderr, /^vpnctl: [^\n]+\n$/);
  }
  // Each has its own file, for it is written before any of them is read.
  const later: [exitCode: number, text: string, said: RegExp][] = [
    [78, `${good}\n[Interface]\nPostUp = touch ${user.home}/ran`, /PostUp runs a command/],
    [78, good.replace(/Endpoint = .*/, 'Endpoint = no.such.name.invalid:51820'), /cannot be resolved/],
    [78, good.replace('[Peer]', 'ListenPort = 4500\n[Peer]'), /bad\.conf:\d+: ListenPort 4500: another program has it/],
  ];
  // That there is no such name somebody has to know: nobody who answers is "not yet".
  await lab.router.ip('address add 192.0.2.53/24 dev eth0');
  await startPeer(lab.router, { kind: 'dns', name: 'router', a: '', rcode: 3, address: '192.0.2.53' });
  const other = await lab.process(2002);
  await other.call('bind', await other.call('open', 1, 'udp'), '0.0.0.0', 4500);
  for (const [exitCode, text, said] of later) {
    const { status, stdout, stderr } = await user.vpnctl('up', write(text));
    assert.deepEqual([status, stdout], [exitCode, ''], stderr);
    assert.match(stderr, said);
    assert.match(stderr, /^vpnctl: [^\n]+\n$/);
  }
  const stranger = userOf(lab, 2005);
  const refused = await stranger.vpnctl('up', stranger.write('office.conf', good));
  assert.deepEqual([refused.status, refused.stdout], [1, '']);
  assert.match(refused.stderr, /Non-system applications use system APIs\./);
  const alone = await lab.app.node('dist/src/cli/vpnctl.js', ['up', user.write('office.conf', good)], {
    uid: UID,
    env: { VPND_SOCKET: '/no/such/socket', XDG_RUNTIME_DIR: user.runtime },
    check: false,
  });
  assert.equal(alone.status, 69, alone.stderr);
  assert.deepEqual(readdirSync(user.home).sort(), ['bad.conf', 'office.conf'], 'no command was run');
  assert.deepEqual(
    (await departures.stop()).filter((line) => line.includes(`:${WG_PORT}`)),
    [],
  );
  assert.deepEqual(diffState(before, await canonicalState(lab.app)), []);
});
