/**
 * Sockets that asked a resolver before a VPN came, or went: the kernel remembers where their queries were translated to. By the
 * file back end, because a program that keeps a socket has read its resolver long ago. lib/dns-lab.ts has the picture.
 *
 *   uid 2001, port 5353 of its own ─┬─ vpn-tunA ═══ exit1 (2001's VPN)
 *                                   ├─ vpn-tunB ═══ exit2 (root's VPN)
 *                                   └─ eth0 ─────── lanhost, the far ones
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DnsLab, dnsLab, dnsOf, MACHINE } from './lib/dns-lab.js';
import { connect, PLACES } from './lib/exits.js';
import { POLICY_ADDRESSES } from './lib/policy-lab.js';
import { startApp, type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';

const { lanHost } = POLICY_ADDRESSES;
const RESOLVERS = [
  [MACHINE[0], 'machine'],
  [MACHINE[1], 'machine'],
  [lanHost.ipv4, 'lanhost'],
  [lanHost.ipv6, 'lanhost'],
  [PLACES[0], 'server'],
  [PLACES[1], 'server'],
] as const;

/** Sockets of its own port, one a resolver, that ask without being connected. */
async function boundSockets(lab: DnsLab, uid: number) {
  const prober = await lab.prober({ uid });
  const sockets: [number, string][] = [];
  for (const [index, [address]] of RESOLVERS.entries()) {
    const fd = await prober.call('open', address.includes(':') ? 2 : 1, 'udp');
    await prober.call('bind', fd, address.includes(':') ? '::' : '0.0.0.0', 20_000 + 10 * (uid - 2000) + index);
    sockets.push([fd, address]);
  }
  return () =>
    Promise.all(
      sockets.map(([fd, address]) =>
        prober.call('askOn', fd, { transport: 'dns-udp', address, unconnected: true, timeoutMs: 10_000 }),
      ),
    );
}

const all = (name: string) => RESOLVERS.map(() => name);
const OWN = RESOLVERS.map(([, name]) => name);

test('a socket with a port of its own asks whom its VPN says, from the first query after setUp to the last before destroy', {
  timeout: 300_000,
}, async (t) => {
  const lab = await dnsLab(t, 'file');
  if (!lab) return;
  const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
  const [user, root] = (await Promise.all([2001, 0].map((uid) => lab.process(uid)))) as [VpnApp, VpnApp];
  const [ask, askOther] = [await boundSockets(lab, 2001), await boundSockets(lab, 2002)];
  const expected = async (what: string, mine: string[], others: string[], work: () => Promise<unknown>) => {
    const asked = await lab.asked(async () => {
      await work();
      assert.deepEqual(await Promise.all([ask(), askOther()]), [mine, others], what);
    });
    if (others !== OWN) assert.deepEqual(asked.outside, [], what);
  };
  const up = (app: VpnApp, exit: typeof one) => () => connect(app, exit, vpnConfig(exit.vnic, dnsOf(exit)));
  const down = (app: VpnApp) => () => app.call('destroy');
  await expected('before', OWN, OWN, async () => {});
  await expected("the user's", all('exit1'), OWN, up(user, one));
  await expected('none', OWN, OWN, down(user));
  await expected("root's", all('exit2'), all('exit2'), up(root, two));
  await expected('both', all('exit1'), all('exit2'), up(user, one));
  await expected("root's again", all('exit2'), all('exit2'), down(user));
  await expected('both again', all('exit1'), all('exit2'), up(user, one));
  await expected("the user's again", all('exit1'), OWN, down(root));
  await expected('none again', OWN, OWN, down(user));

  // Without servers of its own the user asks the local network's resolver past the tunnel, until root's VPN takes over.
  await expected("root's once more", all('exit2'), all('exit2'), up(root, two));
  await connect(user, one, vpnConfig(one.vnic));
  assert.deepEqual(await ask(), ['machine', 'machine', 'lanhost', 'lanhost', 'exit1', 'exit1']);
  await expected("root's at last", all('exit2'), all('exit2'), down(user));
});

test('a vpnd that was killed leaves nothing that its successor, or no VPN, would send to its servers', {
  timeout: 300_000,
}, async (t) => {
  const lab = await dnsLab(t, 'file');
  if (!lab) return;
  const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
  // Others translate as well, as for containers: the kernel goes on with what it has begun.
  await lab.app.run('nft', ['table inet others { chain c { type nat hook output priority 0; }; }']);
  const ask = await boundSockets(lab, 2001);
  const root = await lab.process(0);
  await connect(root, two, vpnConfig(two.vnic, dnsOf(two)));
  assert.deepEqual(await ask(), all('exit2'));
  await lab.vpnd.kill9();
  const directory = lab.vpnd.policyFile.replace(/\/[^/]*$/, '');
  const successor = await startVpnd(lab.app, { directory });
  await successor.process.waitFor(/ ready /, 60_000);
  await root.kill9();
  assert.deepEqual(await ask(), OWN);
  const user = await startApp(lab.app, 2001, successor);
  await connect(user, one, vpnConfig(one.vnic, dnsOf(one)));
  const { outside } = await lab.asked(async () => assert.deepEqual(await ask(), all('exit1')));
  assert.deepEqual(outside, []);
});

const SLOW = ['192.168.50.54', 'fd50::54'] as const;
/** How a program keeps a socket for its questions. */
const KINDS = ['bound', 'connected', 'unbound'] as const;

test('an answer that comes after setUp does not open the way to the resolver that it comes from', {
  timeout: 300_000,
}, async (t) => {
  const lab = await dnsLab(t, 'file');
  if (!lab) return;
  await lab.lanHost.configure('eth0', [`${SLOW[0]}/24`, `${SLOW[1]}/64`]);
  const one = exitOf(lab, 1);
  const resolver = await lab.stranger(lab.lanHost);
  const [user, prober] = await Promise.all([lab.process(2001), lab.prober({ uid: 2001 })]);
  for (const address of SLOW) {
    const family = address.includes(':') ? 2 : 1;
    const server = await resolver.call('open', family, 'udp');
    await resolver.call('bind', server, address, 53);
    const sockets = await Promise.all(KINDS.map(() => prober.call('open', family, 'udp')));
    const ask = (index: number, isConnected: boolean, timeoutMs: number) => {
      const more = KINDS[index] === 'connected' ? { isConnected } : { unconnected: true };
      return prober.call('askOn', sockets[index] ?? 0, { transport: 'dns-udp', address, timeoutMs, ...more });
    };
    await prober.call('bind', sockets[0] ?? 0, family === 2 ? '::' : '0.0.0.0', 25_000 + family);
    const asked = await lab.moment();
    for (const index of KINDS.keys()) assert.equal(await ask(index, false, 200), 'silence');
    // A datagram may wait for the neighbour's address longer than it was waited for.
    const ports = await eventually('the questions', async () => {
      const found: number[] = (await lab.departed())
        .slice(asked.get('eth0') ?? 0)
        .flatMap(({ destination, sourcePort }) => (destination === address && sourcePort ? [sourcePort] : []));
      return found.length >= KINDS.length ? found : undefined;
    });
    assert.equal(ports.length, KINDS.length);

    await connect(user, one, vpnConfig(one.vnic, dnsOf(one)));
    const client = POLICY_ADDRESSES.app[family === 2 ? 'ipv6' : 'ipv4'];
    for (const port of ports) {
      await resolver.call('askOn', server, {
        transport: 'udp',
        address: client,
        port,
        unconnected: true,
        timeoutMs: 200,
      });
    }
    const { outside } = await lab.asked(async () => {
      for (const index of KINDS.keys()) {
        // The first may be told of the answer, or of the socket's end.
        await ask(index, true, 2000);
        // The one that cannot be told from a server's lives on, and is refused until the kernel forgets the answer.
        const expected = KINDS[index] === 'bound' ? /^(exit1|EPERM)$/ : /^(exit1|ECONNABORTED)$/;
        assert.match(await ask(index, false, 20_000), expected, KINDS[index]);
      }
      const fresh = await prober.call('probe', { protocol: 'dns-udp', target: address, timeoutMs: 20_000 });
      assert.deepEqual(fresh, { side: 'exit1' });
    });
    assert.deepEqual(outside, []);
    await user.call('destroy');
  }
});
