/**
 * A machine between two networks, each with a DNS server that answers every name with an address of its own, and the Resolver
 * in a process on it. The link of the VPN is a veth: what resolvers do with it is the same.
 *
 *   far                        app                                          lan
 *   eth0 10.9.0.1/24  ──────── vpn-tun0 10.9.0.2/24   eth0 192.0.2.2/24 ─── eth0 192.0.2.1/24
 *        10.9.0.11, fd09::1             fd09::2                                  DNS on 192.0.2.1, answers 192.0.2.98
 *        DNS on 10.9.0.11 and fd09::1, answers 192.0.2.99; none on 10.9.0.1
 */
import type { TestContext } from 'node:test';
import type { ResolverRequest } from '../../../src/host/resolver/request.js';
import type { LabHost } from './host.js';
import { Lab } from './lab.js';
import type { CapturedPacket } from './pcap.js';
import { startPeer } from './peers.js';
import type { LabProcess } from './process.js';
import { eventually } from './vpn-lab.js';

export const VPN = { closed: '10.9.0.1', server: '10.9.0.11', server6: 'fd09::1', answer: '192.0.2.99' } as const;
export const MACHINE = { server: '192.0.2.1', answer: '192.0.2.98' } as const;

export interface ResolverLab {
  lab: Lab;
  app: LabHost;
  /** For the VPN's link. */
  request(part?: Partial<ResolverRequest>): ResolverRequest;
  /** What libc on the machine says of a name: an address, or '' for none. */
  lookUp(name: string): Promise<string>;
  /** Runs `work`; what was asked meanwhile on each link: `NAME @SERVER`, sorted, each once. */
  asked(work: () => Promise<unknown>): Promise<{ vpn: string[]; machine: string[] }>;
  read(): Promise<string>;
}

export async function resolverLab(t: TestContext): Promise<ResolverLab> {
  const lab = await Lab.create();
  t.after(() => lab.close());
  const [app, far, lan] = await Promise.all([lab.host('app'), lab.host('far'), lab.host('lan')]);
  await lab.link(app, 'vpn-tun0', ['10.9.0.2/24', 'fd09::2/64'], far, 'eth0', [
    '10.9.0.1/24',
    '10.9.0.11/24',
    'fd09::1/64',
  ]);
  await lab.link(app, 'eth0', ['192.0.2.2/24'], lan, 'eth0', ['192.0.2.1/24']);
  const dns = (address: string, a: string) => ({ kind: 'dns' as const, name: a, a, address });
  await Promise.all([
    startPeer(far, dns(VPN.server, VPN.answer), dns(VPN.server6, VPN.answer)),
    startPeer(lan, dns(MACHINE.server, MACHINE.answer)),
  ]);
  await app.run('sh', ['-c', `echo 'nameserver ${MACHINE.server}' > /etc/resolv.conf`]);
  const [link] = await app.json<{ ifindex: number }[]>('ip', ['-j', 'link', 'show', 'vpn-tun0']);
  const ifindex = link?.ifindex ?? 0;
  return {
    lab,
    app,
    request: (part = {}) => ({
      link: { name: 'vpn-tun0', ifindex },
      servers: [VPN.server],
      searchDomains: ['corp.example'],
      exclusive: true,
      ...part,
    }),
    lookUp: async (name) => {
      const { stdout } = await app.run('getent', ['ahostsv4', name], { check: false });
      return stdout.split(/\s/)[0] ?? '';
    },
    asked: async (work) => {
      const filter = ['udp', 'dst', 'port', '53'];
      const captures = await Promise.all([app.capture('vpn-tun0', filter), app.capture('eth0', filter)]);
      await work();
      const [vpn = [], machine = []] = await Promise.all(
        captures.map(async (each) => (await each.stop()).map(question)),
      );
      return { vpn: [...new Set(vpn)].sort(), machine: [...new Set(machine)].sort() };
    },
    read: async () => (await app.run('cat', ['/etc/resolv.conf'])).stdout,
  };
}

/** RFC 1035 section 4.1: the name of the first question. */
function question({ payload, destination }: CapturedPacket): string {
  const labels: string[] = [];
  const bytes = Buffer.from(payload);
  for (let at = 12; (bytes[at] ?? 0) > 0; at += 1 + (bytes[at] ?? 0)) {
    labels.push(bytes.toString('latin1', at + 1, at + 1 + (bytes[at] ?? 0)));
  }
  return `${labels.join('.')} @${destination}`;
}

/** The Resolver in a process of its own. */
export interface ResolverProcess {
  process: LabProcess;
  apply(request: ResolverRequest): Promise<void>;
  restore(): Promise<void>;
  sweep(): Promise<void>;
}

export async function startResolver(host: LabHost): Promise<ResolverProcess> {
  const process = host.spawnNode('dist/test/lab/lib/resolver-process.js', [host.directory]);
  await process.waitFor(/^ready$/m);
  let calls = 0;
  const call = async (method: string, argument?: unknown) => {
    const id = ++calls;
    process.write(`${JSON.stringify({ id, method, argument })}\n`);
    const [, error] = await process.waitFor(new RegExp(`^done ${id} (.*)$`, 'm'));
    if (error) throw new Error(error);
  };
  return {
    process,
    apply: (request) => call('apply', request),
    restore: () => call('restore'),
    sweep: () => call('sweep'),
  };
}

/** Waits until the process has logged it. */
export async function logged(resolver: ResolverProcess, pattern: RegExp): Promise<void> {
  await eventually(`${pattern} in the log`, async () => pattern.test(resolver.process.stderr) || undefined);
}
