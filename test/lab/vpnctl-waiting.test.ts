/**
 * `vpnctl up` before there is a network, or a name server that can be asked (vpnctl-lab.ts): "not yet" is not "never". And
 * under lockdown, where a covered socket reaches no name server until there is a VPN.
 *
 *   app ─── router ─── server 198.51.100.2, a name server at 198.51.100.53
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { canonicalState, diffState } from './lib/canonical-state.js';
import { EVERYWHERE, pathOf } from './lib/exits.js';
import { startPeer } from './lib/peers.js';
import type { LabProcess } from './lib/process.js';
import type { Dns } from './lib/servers/specification.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';
import { INSIDE, officeConf, type User, userOf, type VpnctlLab, vpnctlLab, WG_PORT } from './lib/vpnctl-lab.js';
import { wireGuardKeys } from './lib/wireguard-go.js';

const TIMEOUT = { timeout: 180_000 };
const NAME = 'wg.example.org';
const OFF_LINK = '198.51.100.53';
const TUNNELLED = pathOf('server', INSIDE.client);
const BLOCKED = /^(ENETUNREACH|EHOSTUNREACH|EACCES|EPERM|silence|ETIMEDOUT)$/;
const MANAGE_VPN = 'ohos.permission.MANAGE_VPN';
const callers = [0, 2001].map((uid) => ({ match: { uid }, system: true, permissions: [MANAGE_VPN] }));
/** A user's VPN, and root's. */
const UIDS = [2001, 0] as const;

async function waitingLab(t: TestContext, lockdown?: number[]): Promise<VpnctlLab | undefined> {
  const policy = { callers, ...(lockdown && { lockdown }) };
  const lab = await vpnctlLab(t, { vpnd: { policy } });
  await lab?.server.configure('eth0', [`${OFF_LINK}/24`]);
  await lab?.app.run('sh', ['-c', `echo nameserver ${OFF_LINK} > /etc/resolv.conf`]);
  return lab;
}

function startDns(lab: VpnctlLab, more: Partial<Dns> = {}): Promise<LabProcess> {
  const dns = { kind: 'dns', name: 'outside', a: ADDRESSES.server.ipv4, address: OFF_LINK, ...more } as const;
  return startPeer(lab.server, dns);
}

async function cutOff({ app }: VpnctlLab): Promise<void> {
  await app.ip('link set eth0 down');
}

async function connect({ app }: VpnctlLab): Promise<void> {
  await app.configure('eth0', [`${ADDRESSES.app.ipv6}/64`]);
  await app.linkIsUp('eth0');
  await app.ip('route add default via 192.0.2.1', 'route add ::/0 via 2001:db8:1::1');
}

async function works(lab: VpnctlLab, uid: number): Promise<void> {
  const app = await lab.process(uid);
  await eventually(
    'all goes through the tunnel',
    async () => {
      const answers = await app.call('ask', ...EVERYWHERE);
      return JSON.stringify(answers) === JSON.stringify(TUNNELLED) || undefined;
    },
    90_000,
  );
}

const upLine = (waiting: string) => new RegExp(`^office \\(vpn-tun0\\): up, ${waiting}log in /\\S+\\n$`);
const office = (user: User, lab: VpnctlLab, endpoint: string, more = '') =>
  user.write('office.conf', officeConf(lab, { endpoint }) + more);

for (const uid of UIDS) {
  test(`uid ${uid}, no network yet: it comes up closed, says whom it waits for, and finds it`, TIMEOUT, async (t) => {
    const lab = await waitingLab(t);
    if (!lab) return;
    const user = userOf(lab, uid);
    await cutOff(lab);
    const second = `[Peer]\nPublicKey = ${wireGuardKeys().publicKey}\nEndpoint = two.example.org:7\nAllowedIPs = 10.99.0.0/16\n`;
    const path = office(user, lab, `${NAME}:${WG_PORT}`, second);
    const { status, stdout, stderr } = await user.vpnctl('up', path);
    assert.equal(status, 0, stderr);
    assert.match(stdout, upLine(`waiting for ${NAME} and two\\.example\\.org, `));
    assert.match(
      stderr,
      /^vpnctl: \S+office\.conf:8: warning: Endpoint wg\.example\.org cannot be resolved yet \(EAI_AGAIN\)/,
    );
    assert.equal((await user.status())?.peers[0]?.endpoint, undefined);
    // The network is there, and nobody who knows the name: nothing leaves.
    await connect(lab);
    const app = await lab.process(uid);
    for (const answer of await app.call('ask', ...EVERYWHERE)) assert.match(answer, BLOCKED);

    const dns = await startDns(lab);
    await works(lab, uid);
    await dns.kill();
    const peers = (await user.status())?.peers ?? [];
    assert.equal(
      peers.find(({ host }) => host === `${NAME}:${WG_PORT}`)?.endpoint,
      `${ADDRESSES.server.ipv4}:${WG_PORT}`,
    );
    assert.equal((await user.vpnctl('down')).status, 0);
  });
}

for (const uid of UIDS) {
  test(
    `uid ${uid}, no network and no name server yet, as before DHCP: both come later, and it finds the peer`,
    TIMEOUT,
    async (t) => {
      const lab = await waitingLab(t);
      if (!lab) return;
      const user = userOf(lab, uid);
      await cutOff(lab);
      await lab.app.run('sh', ['-c', ': > /etc/resolv.conf']);
      const { status, stdout, stderr } = await user.vpnctl('up', office(user, lab, `${NAME}:${WG_PORT}`));
      assert.equal(status, 0, stderr);
      assert.match(stdout, upLine(`waiting for ${NAME}, `));
      await startDns(lab);
      await connect(lab);
      await lab.app.run('sh', ['-c', `echo nameserver ${OFF_LINK} > /etc/resolv.conf`]);
      await works(lab, uid);
      assert.equal((await user.vpnctl('down')).status, 0);
      assert.equal((await lab.app.run('cat', ['/etc/resolv.conf'])).stdout, `nameserver ${OFF_LINK}\n`);
    },
  );
}

for (const family of ['ipv4', 'ipv6'] as const) {
  test(`no way to an address yet, ${family}: it comes up closed, and works when there is one`, TIMEOUT, async (t) => {
    const lab = await waitingLab(t);
    if (!lab) return;
    const user = userOf(lab, 2001);
    await cutOff(lab);
    const address = ADDRESSES.server[family];
    const endpoint = family === 'ipv6' ? `[${address}]:${WG_PORT}` : `${address}:${WG_PORT}`;
    const { status, stdout, stderr } = await user.vpnctl('up', office(user, lab, endpoint));
    assert.equal(status, 0, stderr);
    assert.match(stdout, upLine(`waiting for a route to ${address}, `));
    assert.match(stderr, new RegExp(`warning: Endpoint ${address}: there is no route to it`));
    await connect(lab);
    await works(lab, 2001);
    assert.equal((await user.vpnctl('down')).status, 0);
  });
}

test('a name that is resolved, but has no address with a route, is searched on', TIMEOUT, async (t) => {
  const lab = await waitingLab(t);
  if (!lab) return;
  const user = userOf(lab, 2001);
  await lab.app.run('sh', ['-c', `echo ${ADDRESSES.server.ipv4} ${NAME} >> /etc/hosts`]);
  await cutOff(lab);
  const { status, stdout, stderr } = await user.vpnctl('up', office(user, lab, `${NAME}:${WG_PORT}`));
  assert.equal(status, 0, stderr);
  assert.match(stdout, upLine(`waiting for a route to ${NAME}, `));
  await connect(lab);
  await works(lab, 2001);
});

test('a name that there is not ends it at once, and nothing is set up', TIMEOUT, async (t) => {
  const lab = await waitingLab(t);
  if (!lab) return;
  const user = userOf(lab, 2001);
  const before = await canonicalState(lab.app);
  const never: [what: string, dns: Partial<Dns>][] = [
    ['NXDOMAIN', { rcode: 3 }],
    ['no addresses', { a: '' }],
  ];
  for (const [what, more] of never) {
    const dns = await startDns(lab, more);
    const { status, stdout, stderr } = await user.vpnctl('up', office(user, lab, `${NAME}:${WG_PORT}`));
    assert.deepEqual([what, status, stdout], [what, 78, ''], stderr);
    assert.match(stderr, new RegExp(`^vpnctl: \\S+: Endpoint ${NAME} cannot be resolved \\(ENOTFOUND\\); [^\\n]+\\n$`));
    await dns.kill();
  }
  assert.deepEqual(diffState(before, await canonicalState(lab.app)), []);
});

for (const [uid, lockdown] of [
  [2001, [2001]],
  [0, [0]],
] as const) {
  test(`uid ${uid} under lockdown of ${lockdown}: the first look-up goes past it`, TIMEOUT, async (t) => {
    const lab = await waitingLab(t, [...lockdown]);
    if (!lab) return;
    const user = userOf(lab, uid);
    const path = office(user, lab, `${NAME}:${WG_PORT}`);
    const upAndDown = async (what: string) => {
      const { status, stdout, stderr } = await user.vpnctl('up', path);
      assert.deepEqual([what, status, stderr], [what, 0, '']);
      assert.match(stdout, upLine(''));
      await works(lab, uid);
      assert.equal((await user.vpnctl('down')).status, 0);
    };
    await t.test('a name server that is not on the link', async () => {
      const dns = await startDns(lab);
      await upAndDown('off-link');
      await dns.kill();
    });
    await t.test('a name that there is not', async () => {
      const dns = await startDns(lab, { rcode: 3 });
      const { status, stdout, stderr } = await user.vpnctl('up', path);
      assert.deepEqual([status, stdout], [78, ''], stderr);
      assert.match(stderr, /cannot be resolved \(ENOTFOUND\)/);
      await dns.kill();
    });
    await t.test('a resolver of the machine', async () => {
      await lab.app.run('sh', ['-c', 'echo nameserver 127.0.0.53 > /etc/resolv.conf']);
      const stub = await startPeer(lab.app, {
        kind: 'dns',
        name: 'stub',
        a: ADDRESSES.server.ipv4,
        address: '127.0.0.53',
      });
      await upAndDown('127.0.0.53');
      await stub.kill();
    });
    await t.test('nobody who answers: it comes up and waits', async () => {
      const { status, stdout, stderr } = await user.vpnctl('up', path);
      assert.equal(status, 0, stderr);
      assert.match(stdout, upLine(`waiting for ${NAME}, `));
      assert.equal((await user.vpnctl('down')).status, 0);
    });
    await t.test('a name in /etc/hosts', async () => {
      await lab.app.run('sh', ['-c', `echo ${ADDRESSES.server.ipv4} ${NAME} >> /etc/hosts`]);
      await upAndDown('hosts');
    });
  });
}
