/**
 * The policy lab with a real resolver on `app` and DNS servers that answer every name with an address of their own, so that
 * what libc says tells whose server it was:
 *
 *   app /etc/resolv.conf ── systemd-resolved, openresolv or nobody
 *    ├─ eth0 ─────── lanhost 192.168.50.53, fd50::53                     answer 198.18.0.1, 2001:db8:d::1     `machine`
 *    └─ vpn-tunX ═══ exitN   10.(8+N).0.11, 10.(8+N).0.12, fd(8+N)::11   answer 198.18.N.1, 2001:db8:d:N::1   `exitN`
 */
import type { TestContext } from 'node:test';
import type { VpnConfig } from '../../../src/model/vpn-types.js';
import type { TestCgroup } from './cgroup.js';
import type { Exit } from './exits.js';
import type { CapturedPacket } from './pcap.js';
import { startPeer } from './peers.js';
import { type PolicyLab, policyLab } from './policy-lab.js';
import type { Probe } from './prober/operations.js';
import type { LabProcess } from './process.js';
import { installOpenresolv, installResolved, requireResolvers, startBus, startResolved } from './resolvers.js';
import { exitOf, type VpnLabOptions } from './vpn-lab.js';

export const BACK_ENDS = ['systemd-resolved', 'openresolv', 'file'] as const;
export type BackEnd = (typeof BACK_ENDS)[number];

/** The machine's own servers, both on the local network. */
export const MACHINE = ['192.168.50.53', 'fd50::53'] as const;

export interface LookUp {
  uid: number;
  name: string;
  cgroup?: TestCgroup;
  /** RES_OPTIONS of resolv.conf(5). @example 'use-vc' for TCP */
  options?: string;
}

/** The names that were asked for, each once, sorted; outside with the server: `NAME @SERVER`. */
export interface Asked {
  exit1: string[];
  exit2: string[];
  outside: string[];
}

export interface DnsLab extends PolicyLab {
  backEnd: BackEnd;
  /** Of systemd-resolved; to be replaced by who kills it. */
  resolved: LabProcess | undefined;
  /** Who answered libc of that user, `exit1` or `machine`; more than one where A and AAAA differ; '' when nobody did. */
  lookUp(question: LookUp): Promise<string>;
  /** Runs `work`; what went to port 53 meanwhile, by which way. In a tunnel only its servers, and `more`, may be asked. */
  asked(work: () => Promise<unknown>, more?: readonly string[]): Promise<Asked>;
  /** The bytes of /etc/resolv.conf, one character each, and what it leads to where it is a link. */
  file(): Promise<string>;
}

/** Two servers for IPv4 and one for IPv6; libc takes no more than three. */
export function serversOf({ ipv4, ipv6 }: Pick<Exit, 'ipv4' | 'ipv6'>): string[] {
  return [ipv4.replace(/1$/, '11'), ipv4.replace(/1$/, '12'), ipv6.replace(/1$/, '11')];
}

/** For a VPN to this exit that has its servers. */
export function dnsOf(exit: Exit, more: Omit<VpnConfig, 'addresses'> = {}): Omit<VpnConfig, 'addresses'> {
  return { dnsAddresses: serversOf(exit), ...more };
}

/** Undefined when no lab, or no real resolver, can be had here; the test is skipped then. */
export async function dnsLab(
  t: TestContext,
  backEnd: BackEnd,
  options: VpnLabOptions = {},
): Promise<DnsLab | undefined> {
  if (backEnd !== 'file' && !requireResolvers(t)) return undefined;
  const lab = await policyLab(t, { networks: [1, 2], ...options });
  if (!lab) return undefined;
  await Promise.all([
    lab.lanHost.configure('eth0', [`${MACHINE[0]}/24`, `${MACHINE[1]}/64`]),
    ...lab.exits.map(({ host, ...exit }, index) =>
      host.configure(
        `tun${index + 1}`,
        serversOf(exit).map((server) => `${server}/${server.includes(':') ? 64 : 24}`),
      ),
    ),
  ]);
  await Promise.all([
    startServers(lab.lanHost, 'machine', 0, MACHINE),
    ...lab.exits.map((exit, index) => startServers(exit.host, exit.name, index + 1, serversOf(exit))),
  ]);
  const resolved = await installBackEnd(lab, backEnd);
  const inTunnels = await Promise.all(
    lab.exits.map(({ host }, index) => host.capture(`tun${index + 1}`, ['dst', 'port', '53'])),
  );
  return {
    ...lab,
    backEnd,
    resolved,
    lookUp: (question) => lookUp(lab, question),
    asked: async (work, more = []) => {
      const since = await lab.moment();
      const before = await Promise.all(inTunnels.map(async (capture) => (await capture.peek()).length));
      await work();
      const counts = new Map<string, number>();
      const outside = (await lab.departed()).filter(({ link }) => {
        const count = (counts.get(link) ?? 0) + 1;
        counts.set(link, count);
        return count > (since.get(link) ?? 0);
      });
      const [exit1 = [], exit2 = []] = await Promise.all(
        inTunnels.map(async (capture, index) =>
          namesAsked((await capture.peek()).slice(before[index]), [...serversOf(exitOf(lab, index + 1)), ...more]),
        ),
      );
      const toPort53 = outside.filter(({ destinationPort }) => destinationPort === 53);
      return { exit1, exit2, outside: unique(toPort53.map((packet) => `${nameIn(packet)} @${packet.destination}`)) };
    },
    file: async () => {
      const script = 'readlink /etc/resolv.conf; base64 -w 0 /etc/resolv.conf';
      const { stdout } = await lab.app.run('sh', ['-c', script]);
      const lines = stdout.split('\n');
      return [...lines.slice(0, -1), Buffer.from(lines.at(-1) ?? '', 'base64').toString('latin1')].join('\n');
    },
  };
}

/** What a program asks by itself, past libc: each resolver by UDP, connected and not, and by TCP. */
export function directQuestions(resolvers: readonly string[]): Probe[] {
  return resolvers.flatMap((target): Probe[] => [
    { protocol: 'dns-udp', target },
    { protocol: 'dns-udp', target, unconnected: true },
    { protocol: 'dns-tcp', target },
  ]);
}

async function installBackEnd({ app }: PolicyLab, backEnd: BackEnd): Promise<LabProcess | undefined> {
  if (backEnd === 'openresolv') await installOpenresolv(app, MACHINE);
  if (backEnd === 'file') {
    const input = `# by hand, caf\xe9\nnameserver ${MACHINE[0]}\nnameserver ${MACHINE[1]}\nsearch lan.example\n`;
    await app.run('sh', ['-c', 'cat > /etc/resolv.conf'], { input: Buffer.from(input, 'latin1') });
  }
  if (backEnd !== 'systemd-resolved') return undefined;
  await installResolved(app, MACHINE);
  await startBus(app);
  return startResolved(app);
}

async function startServers(
  host: PolicyLab['app'],
  name: string,
  number: number,
  addresses: readonly string[],
): Promise<void> {
  const answers = { a: `198.18.${number}.1`, aaaa: `2001:db8:d:${number}::1` };
  await startPeer(host, ...addresses.map((address) => ({ kind: 'dns' as const, name, ...answers, address })));
}

/** In a cgroup from its first instruction on. A name that nobody answers is no failure here. */
async function lookUp({ app }: PolicyLab, { uid, name, cgroup, options }: LookUp): Promise<string> {
  const user = ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--'];
  const enter = cgroup ? `echo $$ > '${cgroup.directory}/cgroup.procs'; ` : '';
  const { stdout } = await app.run('sh', ['-ec', `${enter}exec "$@"`, 'sh', ...user, 'getent', 'ahosts', name], {
    check: false,
    timeoutMs: 60_000,
    ...(options !== undefined && { env: { RES_OPTIONS: options } }),
  });
  const addresses = stdout.split('\n').flatMap((line) => line.split(/\s+/)[0] || []);
  const servers = unique(addresses.map(serverOf));
  const families = new Set(addresses.map((address) => address.includes(':')));
  return servers.length > 0 && families.size < 2 ? `${servers.join(' ')}, one family only` : servers.join(' ');
}

function serverOf(address: string): string {
  const [, number] = /^198\.18\.(\d)\.1$/.exec(address) ?? /^2001:db8:d:(\d)::1$/.exec(address) ?? [];
  if (number !== undefined) return number === '0' ? 'machine' : `exit${number}`;
  return address === '2001:db8:d::1' ? 'machine' : address;
}

function namesAsked(packets: readonly CapturedPacket[], servers: readonly string[]): string[] {
  const foreign = packets.filter(({ destination }) => !servers.includes(destination));
  if (foreign.length > 0) throw new Error(`in a tunnel, to no server of it: ${foreign.map(nameIn).join(' ')}`);
  return unique(packets.map(nameIn).filter((name) => name !== ''));
}

/** RFC 1035, 4.1 and 4.2.2: the name of the first question; '' for a segment that has none. */
function nameIn({ protocol, payload }: CapturedPacket): string {
  const labels: string[] = [];
  const bytes = Buffer.from(payload).subarray(protocol === 'tcp' ? 2 : 0);
  for (let at = 12; (bytes[at] ?? 0) > 0; at += 1 + (bytes[at] ?? 0)) {
    labels.push(bytes.toString('latin1', at + 1, at + 1 + (bytes[at] ?? 0)));
  }
  return labels.join('.');
}

function unique(values: readonly string[]): string[] {
  return [...new Set(values)].sort();
}
