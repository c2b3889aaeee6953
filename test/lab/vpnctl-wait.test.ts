/**
 * `vpnctl up --wait`, and what status and log say of handshakes that do not come, of lockdown, of a service that is gone and a
 * process that hangs. The lab is vpnctl-lab.ts; whether there is a handshake, wireguard-go is asked.
 */
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { LabHost } from './lib/host.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';
import { officeConf, type User, userOf, type VpnctlLab, vpnctlLab, WG_PORT } from './lib/vpnctl-lab.js';
import { wireGuardPresharedKey } from './lib/wireguard-go.js';

const TIMEOUT = { timeout: 400_000 };
const UID = 2001;
const MANAGE_VPN = 'ohos.permission.MANAGE_VPN';
const IPV6_ENDPOINT = `[${ADDRESSES.server.ipv6}]:${WG_PORT}`;

async function handshakeOf({ wireguard }: VpnctlLab): Promise<number> {
  return (await wireguard.show()).peers[0]?.latestHandshake ?? 0;
}

/** Nothing is sent into it by itself: no default route, no DNS. */
function quietConf(lab: VpnctlLab, endpoint?: string): string {
  const conf = officeConf(lab, endpoint === undefined ? {} : { endpoint });
  return conf.replace(/^DNS.*\n/m, '').replace(/^AllowedIPs.*$/m, 'AllowedIPs = 10.7.0.0/24, fd07::/64');
}

/** What is sent to the server's port is dropped, or not. */
async function drop(host: LabHost, isDropped: boolean): Promise<void> {
  const table = `table inet mute { chain in { type filter hook input priority 0; udp dport ${WG_PORT} drop; }; }`;
  await host.run('nft', ['-f', '-'], { input: isDropped ? table : 'delete table inet mute' });
}

const logOf = (user: User) => readFileSync(join(user.runtime, 'vpn-manager/office.log'), 'utf8');

for (const [uid, endpoint] of [
  [UID, undefined],
  [UID, IPV6_ENDPOINT],
  [0, undefined],
] as const) {
  test(
    `up --wait comes back with a handshake that nobody's packet began: uid ${uid}, ${endpoint ?? 'IPv4'}`,
    TIMEOUT,
    async (t) => {
      const lab = await vpnctlLab(t);
      if (!lab) return;
      const user = userOf(lab, uid);
      const file = user.write('office.conf', quietConf(lab, endpoint));
      for (const words of [['--wait'], ['--wait=60']]) {
        const before = await handshakeOf(lab);
        const { status, stdout, stderr } = await user.vpnctl('up', ...words, file);
        assert.deepEqual([status, stderr], [0, '']);
        assert.match(stdout, /^office \(vpn-tun0\): up, log in /);
        const after = await handshakeOf(lab);
        assert.ok(after > 0 && after >= before);
        const [peer] = (await user.status())?.peers ?? [];
        assert.ok(peer?.lastHandshake, 'status has it, too');
        assert.equal(peer.problem, undefined);
        assert.equal((await user.vpnctl('down')).status, 0);
      }
    },
  );
}

test('no handshake: 75, the VPN stays and goes on trying, and status and log say why', {
  timeout: 600_000,
}, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const good = quietConf(lab);
  const otherKey = wireGuardPresharedKey();
  const cases: [what: string, text: string, isDropped: boolean, said: RegExp][] = [
    ['IPv4, dropped on the way', good, true, /nothing comes back/],
    ['IPv6, dropped on the way', quietConf(lab, IPV6_ENDPOINT), true, /nothing comes back/],
    ['another preshared key', good.replace(lab.presharedKey, otherKey), false, /it answers, but not with our keys/],
  ];
  for (const [what, text, isDropped, said] of cases) {
    if (isDropped) await drop(lab.server, true);
    const { status, stdout, stderr } = await user.vpnctl('up', '--wait=1', user.write('office.conf', text));
    assert.equal(status, 75, `${what}: ${stderr}`);
    assert.match(stdout, /^office \(vpn-tun0\): up, log in /);
    assert.match(stderr, /^vpnctl: office \(vpn-tun0\): no handshake within 1 s[^\n]*It goes on trying[^\n]*\n$/);
    const problem = await eventually(
      `${what}: status says why`,
      async () => {
        const [peer] = (await user.status())?.peers ?? [];
        return peer?.problem;
      },
      90_000,
    );
    assert.match(problem, said, what);
    const shown = await user.vpnctl('status');
    assert.match(shown.stdout, /no handshake yet .*\n {2}no handshake: \S/);
    const lines = logOf(user)
      .split('\n')
      .filter((line) => line.includes('no handshake with '));
    assert.equal(lines.length, 1, logOf(user));
    assert.match(lines[0] ?? '', said);
    if (isDropped) {
      await drop(lab.server, false);
      await eventually(
        'a handshake after all',
        async () => {
          const [peer] = (await user.status())?.peers ?? [];
          return peer?.lastHandshake !== undefined && peer.problem === undefined ? true : undefined;
        },
        60_000,
      );
      assert.match(logOf(user), /Z handshake with \S+:51820\n/);
    }
    assert.equal((await user.vpnctl('down')).status, 0);
  }
});

test('up --wait with a wrong number, or in the foreground, is refused', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const file = user.write('office.conf', officeConf(lab));
  for (const words of [['--wait=0'], ['--wait=x'], ['--wait='], ['--wait=-1'], ['--wait', '--foreground']]) {
    const { status, stdout, stderr } = await user.vpnctl('up', ...words, file);
    assert.deepEqual([status, stdout], [64, ''], stderr);
    assert.match(stderr, /^vpnctl: --wait/);
  }
  assert.equal((await user.vpnctl('status')).stdout, 'no VPN is up\n');
});

test('status tells who is under lockdown', TIMEOUT, async (t) => {
  const callers = [0, UID, 2002].map((uid) => ({ match: { uid }, system: true, permissions: [MANAGE_VPN] }));
  const lab = await vpnctlLab(t, { vpnd: { policy: { callers, lockdown: [UID] } } });
  if (!lab) return;
  const [user, other, root] = [UID, 2002, 0].map((uid) => userOf(lab, uid));
  assert.ok(user && other && root);
  const line = (who: string) => `lockdown  ${who}: what no VPN covers is blocked, but for local networks\n`;
  const said = async (each: User) => (await each.vpnctl('status')).stdout;
  assert.equal(await said(user), `no VPN is up\n${line('uid 2001')}`);
  assert.equal(await said(root), `no VPN is up\n${line('uid 2001')}`);
  assert.equal(await said(other), 'no VPN is up\n');
  const json = JSON.parse((await user.vpnctl('status', '--json')).stdout) as { lockdown: number[] };
  assert.deepEqual(json.lockdown, [UID]);
  assert.equal((await user.vpnctl('up', user.write('office.conf', officeConf(lab)))).status, 0);
  assert.match(await said(user), /^vpn-tun0 [\s\S]*\nlockdown {2}uid 2001: /);
  lab.vpnd.reload({ callers, lockdown: [0] });
  await eventually('everyone', async () => (await said(other)) === `no VPN is up\n${line('everyone')}` || undefined);
  lab.vpnd.reload({ callers });
  await eventually('nobody', async () => (await said(other)) === 'no VPN is up\n' || undefined);
});

test('a service that is gone, and a process that hangs', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const file = user.write('office.conf', officeConf(lab));
  assert.equal((await user.vpnctl('up', file)).status, 0);
  const { pid } = (await user.status()) ?? assert.fail('no tunnel');

  process.kill(pid, 'SIGSTOP');
  const hung = await user.vpnctl('status');
  assert.equal(hung.status, 0, hung.stderr);
  assert.match(
    hung.stdout,
    new RegExp(`^vpn-tun0 .*\n {2}its process ${pid} does not answer: it hangs, or somebody has stopped it; `),
  );
  process.kill(pid, 'SIGCONT');

  await lab.vpnd.kill9();
  const alone = await user.vpnctl('status');
  assert.equal(alone.status, 69);
  assert.match(
    alone.stdout,
    new RegExp(`^vpn-tun0 {2}process ${pid} .* goes on without the service\n {2}wireguard "office" `),
  );
  assert.match(alone.stderr, /^vpnctl: [^\n]*no answer at [^\n]*\n$/);
  const { problem, tunnels } = JSON.parse((await user.vpnctl('status', '--json')).stdout) as {
    problem: string;
    tunnels: { link: string; pid: number }[];
  };
  assert.match(problem, /no answer at /);
  assert.deepEqual(
    tunnels.map((tunnel) => [tunnel.link, tunnel.pid]),
    [['vpn-tun0', pid]],
  );
});

test('down ends the VPN of a process that hangs', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  assert.equal((await user.vpnctl('up', user.write('office.conf', officeConf(lab)))).status, 0);
  const { pid } = (await user.status()) ?? assert.fail('no tunnel');
  process.kill(pid, 'SIGSTOP');
  t.after(() => process.kill(pid, 'SIGCONT'));
  const { status, stdout } = await user.vpnctl('down', 'office.conf');
  assert.deepEqual([status, stdout], [0, 'office (vpn-tun0): down\n']);
  assert.equal((await user.vpnctl('status')).stdout, 'no VPN is up\n');
});

test('a tunnel whose sockets are gone with a session is told apart from one that hangs', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  assert.equal((await user.vpnctl('up', user.write('office.conf', officeConf(lab)))).status, 0);
  const { pid } = (await user.status()) ?? assert.fail('no tunnel');
  rmSync(join(user.runtime, 'vpn-manager'), { recursive: true });
  const { stdout } = await user.vpnctl('status');
  assert.match(
    stdout,
    new RegExp(`^vpn-tun0 .*\n {2}its process ${pid} cannot be asked: its sockets are gone with a session`),
  );
  const second = await user.vpnctl('up', join(user.home, 'office.conf'));
  assert.match(
    second.stderr,
    /^vpnctl: VPN already exists\. "office" \(vpn-tun0\) is up; end it first: vpnctl down\n$/,
  );
  assert.equal((await user.vpnctl('down')).status, 0);
});
