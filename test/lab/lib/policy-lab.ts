/**
 * Where leaks are looked for. Every host has the "internet" addresses (PLACES) and says its own name, by TCP, UDP, ping and
 * DNS, IPv4 and IPv6, so that every answer tells its path:
 *
 *   app                            router `router`                          server `server`
 *   eth0 192.168.50.2/24 ───┐      br0 192.168.50.1/24, fd50::1/64
 *        fd50::2/64         ├─────      eth1 198.51.100.1/24 ────────────── eth0 198.51.100.2/24, PLACES
 *                           │           UDP 51820+N ══════════════════════ exitN 10.(8+N).0.1, PLACES
 *   lanHost `lanhost`  .9 ──┤
 *   attacker `attacker` .66 ┘ (has PLACES too)
 *   eth1 192.168.60.2/24 ───────── cafe `cafe` 192.168.60.1/24, fd60::1/64, PLACES: another network, worse metric
 *        fd60::2/64
 *
 * Everything that leaves `app` by eth0 or eth1 is captured from the beginning; leak-check.ts judges it.
 */
import { mkdirSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { cgroup2Root } from '../../../src/kernel/cgroup.js';
import type { TestCgroup } from './cgroup.js';
import { CLOSING } from './closing.js';
import { PLACES, startExit, startServers } from './exits.js';
import type { LabHost } from './host.js';
import { Lab } from './lab.js';
import { type DepartedPacket, describePacket, type Facts, type LeakException, unexplained } from './leak-check.js';
import { startPeer } from './peers.js';
import { requireRoot } from './prerequisites.js';
import type { Answer, Probe } from './prober/operations.js';
import { type Prober, type ProberOptions, startProber } from './prober.js';
import { ADDRESSES, type StandardLab } from './standard-lab.js';
import { startApp } from './vpn-app.js';
import type { VpnLab, VpnLabOptions } from './vpn-lab.js';
import { startVpnd } from './vpnd.js';

/** Addresses that differ from the standard lab's. */
export const POLICY_ADDRESSES = {
  app: { ipv4: '192.168.50.2', ipv6: 'fd50::2' },
  appOnCafe: { ipv4: '192.168.60.2', ipv6: 'fd60::2' },
  router: { ipv4: '192.168.50.1', ipv6: 'fd50::1' },
  lanHost: { ipv4: '192.168.50.9', ipv6: 'fd50::9' },
  attacker: { ipv4: '192.168.50.66', ipv6: 'fd50::66' },
  cafe: { ipv4: '192.168.60.1', ipv6: 'fd60::1' },
} as const;
export const PHYSICAL_LINKS = ['eth0', 'eth1'] as const;
/** What the attacker's router advertisements bring; it has an address there. */
export const ADVERTISED_PREFIX = '2001:db8:bad::';
/** Where `app` has a whoami server of root's on every address: its inbound service. */
export const INBOUND_PORT = 22;

export interface PolicyLab extends VpnLab {
  lanHost: LabHost;
  attacker: LabHost;
  cafe: LabHost;
  /** A process in `app`, the same one for the same user and cgroup for as long as it lives. */
  prober(options: ProberOptions): Promise<Prober>;
  /** One question from `app`, by the prober of that user and cgroup. */
  probe(question: Probe & Pick<ProberOptions, 'uid' | 'cgroup'>): Promise<Answer>;
  /** A prober of root in another host: the attacker's tool, and the far end of inbound traffic. */
  stranger(host: LabHost): Promise<Prober>;
  /** The station address of a host's eth0. */
  mac(host: LabHost): Promise<string>;
  /** A cgroup of this name, below one of this lab's; gone with the test. @example cgroup('app.slice/app-firefox-1.scope') */
  cgroup(name: string): TestCgroup;
  /** Everything that left `app` by a physical link so far. */
  departed(): Promise<DepartedPacket[]>;
  /** What `vpnctl leaks --json` prints to root. */
  exceptions(): Promise<LeakException[]>;
  /** One line for each packet that left, is not explained by the exceptions, and left after `since` (default: the beginning). */
  leaks(facts?: Facts, exceptions?: readonly LeakException[], since?: Moment): Promise<string[]>;
  /** Now, when closed connections have said their last: what has left so far is not looked at again. */
  moment(): Promise<Moment>;
}

/** How many packets each capture had. */
export type Moment = ReadonlyMap<string, number>;

/** Undefined when no lab can be built here; the test is skipped then. It is taken down with the test. */
export async function policyLab(t: TestContext, options: VpnLabOptions = {}): Promise<PolicyLab | undefined> {
  if (!requireRoot(t)) return undefined;
  const { networks = [1], more = [] } = options;
  const lab = await Lab.create();
  t.after(() => lab.close());
  const hosts = await buildHosts(lab);
  const { app } = hosts;
  const cgroups = cgroupTree(t);
  const [vpnd, exits] = await Promise.all([
    startVpnd(app, options.vpnd),
    Promise.all(networks.map((network, index) => startExit(hosts, index + 1, { network, more }))),
    ...sides(hosts).map(({ host, name, addresses }) => startServers(host, name, addresses)),
    ...sides(hosts).map(({ host, name }) => answerPings(host, name)),
    startPeer(app, { kind: 'whoami', name: 'app', port: INBOUND_PORT }),
  ]);
  await Promise.all(exits.map(({ host, name }) => answerPings(host, name)));
  const captures = await Promise.all(PHYSICAL_LINKS.map((link) => app.capture(link)));

  const probers = new Map<string, Promise<Prober>>();
  const once = (key: string, start: () => Promise<Prober>) => {
    const known = probers.get(key);
    if (known) return known;
    const made = start();
    probers.set(key, made);
    const forget = () => probers.delete(key);
    made.then((prober) => prober.process.exited).then(forget, forget);
    return made;
  };
  const prober = (wanted: ProberOptions) =>
    once(`${wanted.uid} ${wanted.mayUsePacketSockets} ${wanted.cgroup?.path}`, () =>
      startProber(app, { vpnd, ...wanted }),
    );
  // Not by a filter of tcpdump's: it counts what comes before the filter is in, and the capture then waits for it.
  const strangers = await stations([hosts.router, hosts.lanHost, hosts.attacker, hosts.cafe]);
  const departedBy = async (link: string, index: number): Promise<DepartedPacket[]> => {
    const packets = (await captures[index]?.peek()) ?? [];
    return packets.filter(({ station = '' }) => !strangers.has(station)).map((packet) => ({ ...packet, link }));
  };
  const departed = async () => (await Promise.all(PHYSICAL_LINKS.map(departedBy))).flat();
  const exceptions = async () => {
    const env = { VPND_SOCKET: vpnd.socket };
    const { stdout } = await app.node('dist/src/cli/vpnctl.js', ['leaks', '--json'], { env });
    const list: unknown = JSON.parse(stdout);
    if (!Array.isArray(list)) throw new Error(`vpnctl leaks --json printed no list: ${stdout}`);
    return list as LeakException[];
  };
  return {
    ...hosts,
    vpnd,
    exits,
    process: (uid) => startApp(app, uid, vpnd),
    prober,
    probe: async ({ uid, cgroup, ...probe }) => (await prober({ uid, ...(cgroup && { cgroup }) })).call('probe', probe),
    stranger: (host) => once(host.name, () => startProber(host, { uid: 0 })),
    mac: async (host) => String((await host.json('ip', ['-j', 'link', 'show', 'eth0']))[0]?.address),
    cgroup: cgroups,
    departed,
    exceptions,
    leaks: async (facts = {}, known, since = new Map()) => {
      const byLink = await Promise.all(
        PHYSICAL_LINKS.map(async (link, index) => (await departedBy(link, index)).slice(since.get(link) ?? 0)),
      );
      return unexplained(byLink.flat(), known ?? (await exceptions()), facts).map(describePacket);
    },
    moment: async () => {
      await farEndsHaveClosed(app);
      const counts = PHYSICAL_LINKS.map(async (link, index) => [link, (await departedBy(link, index)).length] as const);
      return new Map(await Promise.all(counts));
    },
  };
}

/** And those that begin: what nobody confirms is said again after a second. */
const UNSETTLED = ['state', 'syn-recv', ...CLOSING];
const PATIENCE_MS = 3000;

/** A connection that a test has closed acknowledges the far end's last word, which may come late. One that is blocked is not waited for long. */
async function farEndsHaveClosed(host: LabHost): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while ((await host.run('ss', ['-Htan', ...UNSETTLED])).stdout !== '' && Date.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

type Hosts = StandardLab & Pick<PolicyLab, 'lanHost' | 'attacker' | 'cafe'>;

async function buildHosts(lab: Lab): Promise<Hosts> {
  const names = ['app', 'router', 'server', 'lanhost', 'attacker', 'cafe'];
  const made = (await Promise.all(names.map((name) => lab.host(name)))) as [
    LabHost,
    LabHost,
    LabHost,
    LabHost,
    LabHost,
    LabHost,
  ];
  const [app, router, server, lanHost, attacker, cafe] = made;
  const prefix = (address: string) => `${address}/${address.includes(':') ? 64 : 24}`;
  const both = ({ ipv4, ipv6 }: { ipv4: string; ipv6: string }) => [prefix(ipv4), prefix(ipv6)];
  const wide = ({ ipv4, ipv6 }: { ipv4: string; ipv6: string }) => [`default via ${ipv4}`, `::/0 via ${ipv6}`];
  const add = (routes: readonly string[], more = '') => routes.map((route) => `route add ${route}${more}`);
  const { router: gateway, cafe: other, ...own } = POLICY_ADDRESSES;

  await router.ip('link add br0 type bridge mcast_snooping 0 forward_delay 0');
  for (const [host, port, addresses] of [
    [app, 'toapp', own.app],
    [lanHost, 'tolan', own.lanHost],
    [attacker, 'toattack', own.attacker],
  ] as const) {
    await lab.link(host, 'eth0', both(addresses), router, port, []);
    await router.ip(`link set ${port} master br0`);
  }
  await router.configure('br0', both(gateway));
  await lab.link(app, 'eth1', both(own.appOnCafe), cafe, 'eth0', both(other));
  await lab.link(router, 'eth1', ['198.51.100.1/24', '2001:db8:2::1/64'], server, 'eth0', both(ADDRESSES.server));

  const { ipv4, ipv6 } = ADDRESSES.server;
  const far = PLACES.filter((address) => address !== ipv4 && address !== ipv6);
  await Promise.all([
    router.sysctl('net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'),
    router.ip(...far.map((address) => `route add ${address} via ${address.includes(':') ? ipv6 : ipv4}`)),
    server.ip(...add(['default via 198.51.100.1', '::/0 via 2001:db8:2::1'])),
    server.configure('lo', far.map(hostPrefix)),
    ...[lanHost, attacker].map((host) => host.ip(...add(wide(gateway)))),
    attacker.configure('eth0', [`${ADVERTISED_PREFIX}66/64`]),
    ...[attacker, cafe].map((host) => host.configure('lo', PLACES.map(hostPrefix))),
    app.ip(...add(wide(gateway), ' metric 100'), ...add(wide(other), ' metric 2000')),
  ]);
  return { lab, app, router, server, lanHost, attacker, cafe };
}

/** All station addresses of these hosts. What has another one comes from `app`, also when somebody there made it up. */
async function stations(hosts: readonly LabHost[]): Promise<ReadonlySet<string>> {
  const links = await Promise.all(hosts.map((host) => host.json('ip', ['-j', 'link', 'show'])));
  const addresses = links.flat().map(({ address }) => String(address));
  // lo's, which a frame made by hand may have too.
  return new Set(addresses.filter((address) => address !== '00:00:00:00:00:00'));
}

/** Who answers as what, besides the exits. */
function sides({ router, server, lanHost, attacker, cafe }: Hosts) {
  const of = (addresses: { ipv4: string; ipv6: string }) => [addresses.ipv4, addresses.ipv6];
  return [
    { host: router, name: 'router', addresses: of(POLICY_ADDRESSES.router) },
    { host: server, name: 'server', addresses: [...PLACES] },
    { host: lanHost, name: 'lanhost', addresses: of(POLICY_ADDRESSES.lanHost) },
    { host: attacker, name: 'attacker', addresses: [...of(POLICY_ADDRESSES.attacker), ...PLACES] },
    { host: cafe, name: 'cafe', addresses: [...of(POLICY_ADDRESSES.cafe), ...PLACES] },
  ];
}

async function answerPings(host: LabHost, name: string): Promise<void> {
  await host.sysctl('net.ipv4.icmp_echo_ignore_all=1', 'net.ipv6.icmp.echo_ignore_all=1');
  await host.spawn('python3', [host.path('test/lab/lib/servers/icmp.py'), name]).waitFor(/^ready$/m);
}

/** Made when they are first asked for; all go with the test, when their processes have ended. */
function cgroupTree(t: TestContext): (name: string) => TestCgroup {
  const root = `/vpnd-policy-${process.pid}-${trees++}`;
  let made = false;
  return (name) => {
    if (!made) t.after(() => removeTree(`${cgroup2Root()}${root}`));
    made = true;
    const path = join(root, name);
    const directory = `${cgroup2Root()}${path}`;
    mkdirSync(directory, { recursive: true });
    return { path, directory, add: ({ pid }) => writeFileSync(join(directory, 'cgroup.procs'), String(pid)) };
  };
}

let trees = 0;

async function removeTree(directory: string): Promise<void> {
  const entries = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  for (const { name } of entries) await removeTree(join(directory, name));
  for (let attempt = 0; ; attempt++) {
    try {
      return rmdirSync(directory);
    } catch (error) {
      if (attempt === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function hostPrefix(address: string): string {
  return `${address}/${address.includes(':') ? 128 : 32}`;
}

/** Datagrams between the app's protected sockets and the far ends of its VPNs. */
export function isTunnelDatagram({ protocol, destination, destinationPort = 0 }: DepartedPacket): boolean {
  return (
    protocol === 'udp' && destination === ADDRESSES.server.ipv4 && destinationPort > 51820 && destinationPort < 51900
  );
}
