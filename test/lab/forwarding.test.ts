/**
 * Containers behind a bridge beside VPNs: root's VPN carries what they send, as if they were users without one; what is
 * published stays reachable; the policy may exempt or block a bridge; a user's VPN changes nothing for them.
 *
 *   container1, container2 ── docker0 172.17.0.1/16 fd17::1/64, app, eth0 ── LAN with lanhost ── router ── server, exit1
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { canonicalState } from './lib/canonical-state.js';
import { nothingIsClosing } from './lib/closing.js';
import {
  BRIDGE,
  BRIDGE_ADDRESS,
  type Container,
  loadDockerTables,
  PUBLISHED_PORT,
  startContainer,
  startDocker,
} from './lib/docker-bridge.js';
import type { Exit } from './lib/exits.js';
import { connect } from './lib/exits.js';
import type { LabHost } from './lib/host.js';
import { type DepartedPacket, describePacket } from './lib/leak-check.js';
import { isTunnelDatagram, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { Answer, Probe } from './lib/prober/operations.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, settledState } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const { app: own, lanHost, router } = POLICY_ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const EVERY = ['tcp', 'udp', 'icmp'] as const;
const BY_DNS = ['dns-udp', 'dns-tcp'] as const;
/** A container's DHCP-less leases, an off-link server, the router as a LAN resolver. */
const RESOLVERS = [internet, router];
const CALLERS = [0, 2001].map((uid) => ({
  match: { uid },
  system: true,
  permissions: ['ohos.permission.MANAGE_VPN'],
}));

interface DockerLab extends PolicyLab {
  containers: [Container, Container];
  exit: Exit;
  /** Asks from inside a host. */
  from(host: LabHost, probe: Probe): Promise<Answer>;
}

async function dockerLab(t: TestContext, policy: object = {}): Promise<DockerLab | undefined> {
  const lab = await policyLab(t, { networks: [1], vpnd: { policy: { callers: CALLERS, ...policy } } });
  if (!lab) return undefined;
  await startDocker(lab.app);
  const containers: [Container, Container] = [
    await startContainer(lab.lab, lab.app, 1),
    await startContainer(lab.lab, lab.app, 2),
  ];
  const from = async (host: LabHost, probe: Probe) => (await lab.stranger(host)).call('probe', probe);
  return { ...lab, containers, from, exit: exitOf(lab, 1) };
}

const dnsOf = ({ ipv4, ipv6 }: Exit) => ({ dnsAddresses: [ipv4, ipv6] });
/** Answers to what came in by published ports and by the host's own services. */
const isInbound = ({ sourcePort = 0, protocol, icmpType = -1 }: DepartedPacket) =>
  sourcePort === PUBLISHED_PORT || sourcePort === 22 || (protocol.startsWith('icmp') && [0, 129].includes(icmpType));
const FACTS = { isProtected: isTunnelDatagram, isInbound };

/** The container reaches the "internet" as whom, everywhere the same. */
async function reaches({ from, containers }: DockerLab, side: string, source: { ipv4: string; ipv6: string }) {
  for (const family of FAMILIES) {
    for (const protocol of EVERY) {
      const answer = await from(containers[0].host, { protocol, target: internet[family] });
      assert.deepEqual(answer, { side, source: source[family] }, `${protocol} ${internet[family]}`);
    }
  }
}

/** A published port, from off-link and from the LAN, and by the host itself. */
async function publishes(lab: DockerLab) {
  const port = PUBLISHED_PORT;
  for (const family of FAMILIES) {
    for (const protocol of ['tcp', 'udp'] as const) {
      for (const [host, source] of [
        [lab.server, ADDRESSES.server[family]],
        [lab.lanHost, lanHost[family]],
      ] as const) {
        const answer = await lab.from(host, { protocol, target: own[family], port });
        assert.deepEqual(answer, { side: 'container1', source }, `${host.name} ${protocol} ${family}`);
      }
      for (const uid of [0, 2001, 2002]) {
        const answer = await lab.probe({ uid, protocol, target: own[family], port });
        assert.equal(
          'side' in answer && answer.side,
          'container1',
          `${uid} ${protocol} ${family} ${JSON.stringify(answer)}`,
        );
      }
    }
  }
}

/** Between host, containers and the LAN, in every direction. */
async function talksNearby(lab: DockerLab) {
  const [first, second] = lab.containers;
  for (const family of FAMILIES) {
    for (const protocol of ['tcp', 'udp'] as const) {
      for (const uid of [0, 2001, 2002]) {
        const answer = await lab.probe({ uid, protocol, target: first[family], port: 80 });
        assert.deepEqual(
          answer,
          { side: 'container1', source: BRIDGE_ADDRESS[family] },
          `${uid} ${protocol} ${family}`,
        );
      }
      // A wildcard-bound UDP server answers with the address of the link, also without a VPN.
      for (const target of [BRIDGE_ADDRESS[family], ...(protocol === 'tcp' ? [own[family]] : [])]) {
        const answer = await lab.from(first.host, { protocol, target, port: 22 });
        assert.deepEqual(answer, { side: 'app', source: first[family] }, `${protocol} ${target}`);
      }
      const beside = await lab.from(second.host, { protocol, target: first[family], port: 80 });
      assert.deepEqual(beside, { side: 'container1', source: second[family] }, `${protocol} ${family}`);
      const near = await lab.from(first.host, { protocol, target: lanHost[family] });
      assert.deepEqual(near, { side: 'lanhost', source: own[family] }, `${protocol} ${family}`);
    }
  }
}

async function asks({ from, containers }: DockerLab, side: (resolver: (typeof RESOLVERS)[number]) => string) {
  for (const family of FAMILIES) {
    for (const protocol of BY_DNS) {
      for (const resolver of RESOLVERS) {
        const answer = await from(containers[0].host, { protocol, target: resolver[family] });
        assert.deepEqual(answer, { side: side(resolver) }, `${protocol} ${resolver[family]}`);
      }
    }
  }
}

test('root’s VPN carries what containers send, their DNS too; what is published or near stays reachable', {
  timeout: 240_000,
}, async (t) => {
  const lab = await dockerLab(t);
  if (!lab) return;
  const { app, exit } = lab;
  await reaches(lab, 'server', own);
  const before = await canonicalState(app);
  // What containers acknowledge goes by way of the host.
  for (const { host } of lab.containers) await nothingIsClosing(host);
  const since = await lab.moment();
  const root = await lab.process(0);
  await connect(root, exit, vpnConfig(exit.vnic, dnsOf(exit)));

  await reaches(lab, 'exit1', exit.client);
  await asks(lab, () => 'exit1');
  await publishes(lab);
  await talksNearby(lab);
  assert.deepEqual(await lab.leaks(FACTS, undefined, since), []);

  await root.call('destroy');
  await settledState(app, before);
  await reaches(lab, 'server', own);
  await publishes(lab);
  await talksNearby(lab);
});

test('a user’s VPN leaves what is forwarded alone', { timeout: 240_000 }, async (t) => {
  const lab = await dockerLab(t);
  if (!lab) return;
  const { app, exit } = lab;
  const before = await canonicalState(app);
  const user = await lab.process(2001);
  await connect(user, exit, vpnConfig(exit.vnic, dnsOf(exit)));
  await reaches(lab, 'server', own);
  await asks(lab, (resolver) => (resolver === internet ? 'server' : 'router'));
  await publishes(lab);
  await talksNearby(lab);
  const covered = await lab.probe({ uid: 2001, protocol: 'tcp', target: internet.ipv4 });
  assert.deepEqual(covered, { side: 'exit1', source: exit.client.ipv4 });
  await user.call('destroy');
  await settledState(app, before);
});

test('a bridge that the policy exempts forwards directly, one that it blocks not at all, also when the policy changes', {
  timeout: 240_000,
}, async (t) => {
  const lab = await dockerLab(t, { forwarding: { [BRIDGE]: 'direct' } });
  if (!lab) return;
  const { exit, vpnd, containers } = lab;
  const root = await lab.process(0);
  await connect(root, exit, vpnConfig(exit.vnic, dnsOf(exit)));
  await reaches(lab, 'server', own);
  await asks(lab, (resolver) => (resolver === internet ? 'server' : 'router'));
  await publishes(lab);
  await talksNearby(lab);
  assert.ok((await lab.exceptions()).some(({ kind }) => kind === 'forwarded'));
  const uncovered = await lab.probe({ uid: 2002, protocol: 'tcp', target: internet.ipv4 });
  assert.deepEqual(uncovered, { side: 'exit1', source: exit.client.ipv4 });

  vpnd.reload({ callers: CALLERS, forwarding: { [BRIDGE]: 'block' } });
  const isBlocked = async () =>
    (await lab.app.run('nft', ['list', 'chain', 'inet', 'vpnd', 'forward_blocked'])).stdout.includes(BRIDGE) ||
    undefined;
  await eventually('the bridge is blocked', isBlocked);
  const since = await lab.moment();
  for (const target of [internet.ipv4, internet.ipv6, lanHost.ipv4, lanHost.ipv6]) {
    for (const protocol of [...EVERY, ...BY_DNS]) {
      const answer = await lab.from(containers[0].host, { protocol, target, timeoutMs: 300 });
      assert.ok('error' in answer, `${protocol} ${target}: ${JSON.stringify(answer)}`);
    }
  }
  assert.deepEqual(await lab.leaks(FACTS, undefined, since), []);
  await publishes(lab);
  for (const family of FAMILIES) {
    const beside = await lab.from(containers[1].host, { protocol: 'tcp', target: containers[0][family], port: 80 });
    assert.deepEqual(beside, { side: 'container1', source: containers[1][family] }, 'neighbours on one bridge');
    const host = await lab.from(containers[0].host, { protocol: 'tcp', target: BRIDGE_ADDRESS[family], port: 22 });
    assert.deepEqual(host, { side: 'app', source: containers[0][family] });
  }
});

test('a flow of a container goes on through setUp and destroy, and never leaves with an address of the tunnel outside it', {
  timeout: 240_000,
}, async (t) => {
  const lab = await dockerLab(t);
  if (!lab) return;
  const { app, exit, containers } = lab;
  const container = await lab.stranger(containers[0].host);
  const flows = await Promise.all(
    FAMILIES.map(async (family) => {
      const socket = await container.call('open', family === 'ipv4' ? 1 : 2, 'udp');
      await container.call('bind', socket, containers[0][family], 4000);
      return { family, socket };
    }),
  );
  const askOn = (family: (typeof FAMILIES)[number], socket: number) =>
    container.call('askOn', socket, {
      transport: 'udp',
      address: internet[family],
      unconnected: true,
      timeoutMs: 300,
    });
  const goesBy = async (side: string, source: { ipv4: string; ipv6: string }) => {
    for (const { family, socket } of flows) {
      const isBy = async () => (await askOn(family, socket)) === `${side} ${source[family]}` || undefined;
      await eventually(`${family} by ${side}`, isBy);
    }
  };
  const root = await lab.process(0);
  await goesBy('server', own);
  for (const order of ['Docker first', 'VPN first']) {
    const since = await lab.moment();
    await connect(root, exit, vpnConfig(exit.vnic));
    await goesBy('exit1', exit.client);
    if (order === 'Docker first') {
      // A firewall is loaded anew: from now on it is Docker's table that comes behind ours.
      await app.run('nft', [
        'delete table ip nat; delete table ip6 nat; delete table ip filter; delete table ip6 filter',
      ]);
      await loadDockerTables(app);
    }
    await goesBy('exit1', exit.client);
    await root.call('destroy');
    for (const { family, socket } of flows) await askOn(family, socket);
    const tunnel = new Set<string>(Object.values(exit.client));
    const departed: DepartedPacket[] = await lab.departed();
    assert.deepEqual(departed.filter(({ source }) => tunnel.has(source)).map(describePacket), [], order);
    await goesBy('server', own);
    const unknown = await lab.leaks({ ...FACTS, isUncovered: () => true }, undefined, since);
    assert.deepEqual(unknown, []);
  }
});

/** A namespace behind a cable of its own, without a bridge and without anybody's NAT. */
async function startGuest({ lab, app }: PolicyLab): Promise<LabHost> {
  const host = await lab.host('guest');
  await lab.link(host, 'eth0', ['10.77.0.2/30', 'fd77::2/64'], app, 'guest0', ['10.77.0.1/30', 'fd77::1/64']);
  await host.ip('route add default via 10.77.0.1', 'route add ::/0 via fd77::1');
  await app.sysctl('net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  return host;
}

test('a guest without bridge and NAT gets the vNIC’s address, also when no local network is allowed', {
  timeout: 240_000,
}, async (t) => {
  const lab = await policyLab(t, { vpnd: { policy: { callers: CALLERS, lan: 'off' } } });
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const guest = await lab.stranger(await startGuest(lab));
  const since = await lab.moment();
  const root = await lab.process(0);
  await connect(root, exit, vpnConfig(exit.vnic, dnsOf(exit)));
  for (const family of FAMILIES) {
    for (const protocol of EVERY) {
      const answer = await guest.call('probe', { protocol, target: internet[family] });
      assert.deepEqual(answer, { side: 'exit1', source: exit.client[family] }, `${protocol} ${family}`);
    }
    for (const protocol of BY_DNS) {
      assert.deepEqual(await guest.call('probe', { protocol, target: internet[family] }), { side: 'exit1' });
    }
  }
  const near = await guest.call('probe', { protocol: 'udp', target: lanHost.ipv4, timeoutMs: 300 });
  assert.ok('error' in near, JSON.stringify(near));
  assert.deepEqual(await lab.leaks(FACTS, undefined, since), []);
});

test('what containers send by a family that root’s VPN does not take is blocked, what is published in it is reachable', {
  timeout: 240_000,
}, async (t) => {
  const lab = await dockerLab(t);
  if (!lab) return;
  const { exit, containers } = lab;
  const since = await lab.moment();
  const root = await lab.process(0);
  const [ipv4 = ''] = exit.vnic;
  await connect(root, exit, vpnConfig([ipv4], { isIPv6Accepted: false, dnsAddresses: [exit.ipv4] }));
  for (const protocol of [...EVERY, ...BY_DNS]) {
    for (const target of [internet.ipv6, router.ipv6]) {
      if (target === router.ipv6 && !protocol.startsWith('dns')) continue;
      const answer = await lab.from(containers[0].host, { protocol, target, timeoutMs: 300 });
      assert.ok('error' in answer, `${protocol} ${target}: ${JSON.stringify(answer)}`);
    }
  }
  await publishes(lab);
  await talksNearby(lab);
  const answer = await lab.from(containers[0].host, { protocol: 'tcp', target: internet.ipv4 });
  assert.deepEqual(answer, { side: 'exit1', source: exit.client.ipv4 });
  assert.deepEqual(await lab.leaks(FACTS, undefined, since), []);
});
