/**
 * Who runs the network writes the main table: by DHCP options, by leases, by router advertisements. None of it moves covered
 * traffic, of a user's VPN and of root's.
 *
 *   app eth0 ── LAN with attacker (has PLACES) ── router ── server 192.0.2.77, exit1       app eth1 ── cafe
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { leasePublicPrefix, pushRoutes } from './lib/attackers/dhcp.js';
import { routerAdvertisement } from './lib/attackers/frames.js';
import { isArpReply, isDatagramTo, isSearch, raise, searchesFor, VICTIMS } from './lib/attackers/victim.js';
import { connect, startServers } from './lib/exits.js';
import type { DepartedPacket } from './lib/leak-check.js';
import { ADVERTISED_PREFIX, type Moment, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { Answer, Probe } from './lib/prober/operations.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { route, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';

const { internet, server } = ADDRESSES;
const { attacker } = POLICY_ADDRESSES;
const PROTOCOLS = ['tcp', 'udp', 'icmp', 'dns-udp', 'dns-tcp'] as const;
/** In somebody's private network behind the VPN, and in a larger one that the attacker claims to be the link's. */
const INSIDE = { ipv4: '10.200.0.1', ipv6: 'fdc8::1' };

const side = (answer: Answer): string => ('side' in answer ? answer.side : answer.error);

/** All of them are answered by the exit, which saw the vNIC's address. */
async function goesThroughTunnel(lab: PolicyLab, uids: readonly number[], targets: readonly string[]): Promise<void> {
  const { client, name } = exitOf(lab, 1);
  for (const uid of uids) {
    for (const target of targets) {
      const source = target.includes(':') ? client.ipv6 : client.ipv4;
      for (const protocol of PROTOCOLS) {
        const wanted = protocol.startsWith('dns') ? { side: name } : { side: name, source };
        const answer = await lab.probe({ uid, protocol, target, timeoutMs: 20_000 });
        assert.deepEqual(answer, wanted, `${uid} ${protocol} ${target}`);
      }
      const alone: Probe = { protocol: 'udp', target, unconnected: true, timeoutMs: 20_000 };
      assert.deepEqual(await lab.probe({ uid, ...alone }), { side: name, source }, `${uid} datagram ${target}`);
    }
  }
}

/** The same by somebody whom the VPN leaves alone: without it the attack would show nothing. */
async function attackWorks(lab: PolicyLab, uid: number, targets: readonly string[]): Promise<Moment> {
  for (const target of targets) {
    const answer = await lab.probe({ uid, protocol: 'udp', target, timeoutMs: 20_000 });
    assert.equal(side(answer), 'attacker', `uid ${uid} to ${target}`);
  }
  return lab.moment();
}

/** A private network of the usual size: when its copy is in the LAN table, what else was on-link has been looked at. */
async function lanIsRead(lab: PolicyLab, number: number): Promise<void> {
  await lab.app.configure('eth0', [`192.168.${number}.200/24`]);
  await eventually('the copy of a local network', async () => {
    const { stdout } = await lab.app.run('ip', ['route', 'show', 'table', '65000']);
    return stdout.includes(`192.168.${number}.0/24`) || undefined;
  });
}

const EVERYWHERE = [internet.ipv4, internet.ipv6, server.ipv4, server.ipv6];

for (const victim of VICTIMS) {
  const { whose, covered, uncovered } = victim;
  const lab = (t: TestContext) => policyLab(t, { more: [INSIDE.ipv4, INSIDE.ipv6] });

  test(`${whose}: more specific routes from DHCP (TunnelVision) move nothing`, { timeout: 180_000 }, async (t) => {
    const net = await lab(t);
    if (!net) return;
    const { app, facts } = await raise(net, victim);
    await pushRoutes(net.app, 'eth0', attacker);
    let since = await attackWorks(net, uncovered, EVERYWHERE);
    await goesThroughTunnel(net, covered, EVERYWHERE);
    assert.deepEqual(await net.leaks(facts, undefined, since), []);

    // The routes were there before the VPN, and it takes only some prefixes.
    await app.call('destroy');
    const routes = [route('203.0.113.0/24'), route('2001:db8:f::/64')];
    const some = await raise(net, victim, { routes });
    since = await attackWorks(net, covered[0] ?? 0, [server.ipv4, server.ipv6]);
    await goesThroughTunnel(net, covered, [internet.ipv4, internet.ipv6]);
    assert.deepEqual(await net.leaks(some.facts, undefined, since), []);
  });

  test(`${whose}: a lease of a public or of a huge private network (LocalNet) is no LAN`, {
    timeout: 180_000,
  }, async (t) => {
    const net = await lab(t);
    if (!net) return;
    // Of IPv6 only a link's own addresses are answered for.
    const claimed = [internet.ipv6, server.ipv6].map((address) => `${address}/64`);
    await net.attacker.configure('eth0', [`${INSIDE.ipv4}/8`, `${INSIDE.ipv6}/8`, ...claimed]);
    await net.attacker.ip(...['203.0.113.0/24', '198.51.100.0/24'].map((prefix) => `route add ${prefix} dev eth0`));
    await startServers(net.attacker, 'attacker', Object.values(INSIDE));
    const { facts, exit } = await raise(net, victim);
    await leasePublicPrefix(net.app, 'eth0');
    await net.app.configure('eth0', ['10.0.0.200/8', 'fd00::200/8']);
    const hosts = [`${internet.ipv4}/32`, `${internet.ipv6}/128`];
    await net.app.ip(...hosts.map((prefix) => `route add ${prefix} dev eth0 scope link`));
    await lanIsRead(net, 77);
    const targets = [...EVERYWHERE, ...Object.values(INSIDE)];
    const since = await attackWorks(net, uncovered, targets);
    await goesThroughTunnel(net, covered, targets);
    const left = await net.departed();
    for (const target of [...EVERYWHERE, ...Object.values(INSIDE)]) {
      assert.deepEqual(searchesFor(after(left, since), target), [], 'nobody looks for it on the link');
    }
    // Some seconds later the attacker's kernel asks again for whom it has answered, and is told.
    const isTold = (packet: DepartedPacket) => isArpReply(packet) && packet.source !== exit.client.ipv4;
    const isUncovered = (packet: DepartedPacket) => isTold(packet) || (facts.isUncovered?.(packet) ?? false);
    assert.deepEqual(await net.leaks({ ...facts, isUncovered }, undefined, since), []);
  });

  test(`${whose}: routes and a lease for the address of its name server do not get at its queries`, {
    timeout: 180_000,
  }, async (t) => {
    const net = await lab(t);
    if (!net) return;
    for (const [index, servers] of [Object.values(INSIDE), Object.values(internet)].entries()) {
      const { app, facts } = await raise(net, victim, { dnsAddresses: servers });
      // A private network of a size that is let through, around the server, and a host route to it.
      const lease = ['10.200.0.200/16', 'fdc8::200/64'];
      await net.app.configure('eth0', lease);
      await net.attacker.configure('eth0', ['10.200.0.1/16', 'fdc8::1/64']);
      const push = servers.map((address) => `${address} dev eth0 scope link metric 5`);
      await net.app.ip(...push.map((each) => `route add ${each}`));
      await lanIsRead(net, 70 + index);
      const since = await net.moment();
      const { router, lanHost } = POLICY_ADDRESSES;
      for (const uid of covered) {
        for (const target of [...servers, router.ipv4, router.ipv6, lanHost.ipv4, lanHost.ipv6, '127.0.0.53', '::1']) {
          for (const protocol of ['dns-udp', 'dns-tcp'] as const) {
            const answer = await net.probe({ uid, protocol, target, timeoutMs: 20_000 });
            assert.deepEqual(answer, { side: 'exit1' }, `${uid} ${protocol} ${target}`);
          }
        }
      }
      await goesThroughTunnel(net, covered, servers);
      const left = after(await net.departed(), since);
      assert.deepEqual(
        left.filter(({ destinationPort }) => destinationPort === 53),
        [],
      );
      assert.deepEqual(
        servers.flatMap((address) => searchesFor(left, address)),
        [],
      );
      assert.deepEqual(await net.leaks(facts, undefined, since), []);
      await app.call('destroy');
      await net.app.ip(
        ...push.map((each) => `route del ${each}`),
        ...lease.map((each) => `address del ${each} dev eth0`),
      );
      await net.attacker.ip(...['10.200.0.1/16', 'fdc8::1/64'].map((each) => `address del ${each} dev eth0`));
    }
  });

  test(`${whose}: with a spoofed name of its server (ServerIP) only its own socket goes to that address`, {
    timeout: 180_000,
  }, async (t) => {
    const net = await lab(t);
    if (!net) return;
    const exit = exitOf(net, 1);
    const owner = await net.process(victim.owner);
    // The client believes that the VPN's server has this address, which is one that users want to reach.
    await connect(owner, { ...exit, address: internet.ipv4 }, vpnConfig(exit.vnic, victim.config));
    const begin = await net.moment();
    await goesThroughTunnel(net, covered, [internet.ipv4]);
    const isTunnel = isDatagramTo(internet.ipv4, exit);
    const ports = new Set(
      after(await net.departed(), begin)
        .filter(isTunnel)
        .map(({ sourcePort }) => sourcePort),
    );
    assert.equal(ports.size, 1, 'one socket is protected');
    const probes: Probe[] = (['tcp', 'udp'] as const).map((protocol) => {
      return { protocol, target: internet.ipv4, port: exit.port, timeoutMs: 20_000 };
    });
    for (const uid of covered) {
      // Nobody is at that port behind the exit: the exit says so, from inside the tunnel.
      for (const probe of probes) assert.deepEqual(await net.probe({ uid, ...probe }), { error: 'ECONNREFUSED' });
    }
    const isProtected = (packet: DepartedPacket) => isTunnel(packet) && ports.has(packet.sourcePort);
    assert.deepEqual(await net.leaks({ isProtected, isUncovered: isSearch }, undefined, begin), []);
  });

  test(`${whose}: IPv6 that a router advertisement brings after setUp is not for those it covers`, {
    timeout: 180_000,
  }, async (t) => {
    const net = await lab(t);
    if (!net) return;
    for (const link of ['eth0', 'eth1']) {
      await net.app.run('ip', ['-6', 'address', 'flush', 'dev', link, 'scope', 'global']);
      await net.app.run('ip', ['-6', 'route', 'flush', '::/0', 'dev', link]);
    }
    const ipv4 = exitOf(net, 1).vnic.filter((each) => !each.includes(':'));
    const { facts } = await raise(net, victim, { addresses: ipv4 });
    const without = await net.probe({ uid: uncovered, protocol: 'tcp', target: internet.ipv6 });
    assert.deepEqual(without, { error: 'ENETUNREACH' }, 'no IPv6 so far');
    await net.app.sysctl('net.ipv6.conf.eth0.accept_ra=2');
    const villain = await net.stranger(net.attacker);
    await net.attacker.configure('eth0', ['fe80::bad/64']);
    const frame = routerAdvertisement(await net.mac(net.attacker), 'fe80::bad', ADVERTISED_PREFIX);
    assert.equal(await villain.call('sendFrame', 'eth0', frame), 'ok');
    const address = await eventually('an address by autoconfiguration', async () => {
      const { stdout } = await net.app.run('ip', ['-6', '-o', 'address', 'show', 'dev', 'eth0', '-tentative']);
      return /2001:db8:bad:[0-9a-f:]+/.exec(stdout)?.[0];
    });
    const since = await attackWorks(net, uncovered, [internet.ipv6, server.ipv6]);
    for (const uid of covered) {
      for (const protocol of PROTOCOLS) {
        for (const how of [{}, { source: address }, { bindTo: 'eth0' }, { bindTo: 'eth0', source: address }]) {
          for (const target of [internet.ipv6, `${ADVERTISED_PREFIX}66`]) {
            const answer = await net.probe({ uid, protocol, target, timeoutMs: 300, ...how });
            assert.ok('error' in answer, `${uid} ${protocol} ${target} ${JSON.stringify({ ...how, ...answer })}`);
          }
        }
      }
    }
    await goesThroughTunnel(net, covered, [internet.ipv4]);
    assert.deepEqual(await net.leaks(facts, undefined, since), []);
  });
}

function after(packets: readonly DepartedPacket[], since: Moment): DepartedPacket[] {
  return [...since].flatMap(([link, count]) => packets.filter((packet) => packet.link === link).slice(count));
}
