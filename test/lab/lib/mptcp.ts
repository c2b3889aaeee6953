/**
 * MPTCP in the lab: a server that sends back what it gets, clients of any user, and the kernel's own counters, which say what became
 * of the further paths it opens.
 */
import { readFileSync } from 'node:fs';
import type { TestCgroup } from './cgroup.js';
import type { LabHost } from './host.js';
import type { CapturedPacket } from './pcap.js';
import { eventually } from './vpn-lab.js';

export const MPTCP_PORT = 4262;

/** Undefined when the kernel has MPTCP and counts what these tests wait for. */
export function whyNoMptcp(): string | undefined {
  const isCounted = readFileSync('/proc/net/netstat', 'utf8').includes('MPJoinSynTx ');
  return isCounted
    ? undefined
    : 'a kernel that counts the paths of MPTCP it opens (CONFIG_MPTCP, Linux 6.12) is needed';
}

/** A server on every address of the host, where clients may add as many paths as they like. */
export async function startMptcpServer(host: LabHost): Promise<void> {
  await allowPaths(host);
  await host.spawn('python3', [host.path('test/lab/lib/servers/mptcp.py'), String(MPTCP_PORT)]).waitFor(/^listening$/m);
}

/** As many paths as the kernel can do, also those that the far end names. */
export async function allowPaths(host: LabHost): Promise<void> {
  await host.run('ip', ['mptcp', 'limits', 'set', 'subflow', '8', 'add_addr_accepted', '8']);
}

export interface MptcpClient {
  /** A command of mptcp/client.py; what it answers. */
  ask(command: 'connect' | 'say' | 'fill' | 'close' | 'hear' | 'open'): Promise<string>;
}

export async function mptcpClient(
  host: LabHost,
  uid: number,
  address: string,
  cgroup?: TestCgroup,
): Promise<MptcpClient> {
  const script = host.path('test/lab/mptcp/client.py');
  const args = [script, String(uid), address, String(MPTCP_PORT), cgroup?.directory ?? ''];
  const client = host.spawn('python3', args);
  await client.waitFor(/^ready$/m);
  let answered = 1;
  return {
    ask: async (command) => {
      const line = answered++;
      client.write(`${command}\n`);
      const pattern = new RegExp(`^(?:[^\n]*\n){${line}}([^\n]*)\n`);
      return (await client.waitFor(pattern, 60_000))[1] ?? '';
    },
  };
}

/** The client says something; throws when it was not heard. Only then do the kernels add paths. */
export async function talk(client: MptcpClient): Promise<void> {
  for (const [command, answer] of [
    ['connect', 'connected'],
    ['say', 'heard'],
  ] as const) {
    const said = await client.ask(command);
    if (said !== answer) throw new Error(`${command}: ${said}`);
  }
}

/** Of /proc/net/netstat. @example counter(app, 'MPTcpExt', 'MPJoinSynTx') */
export async function counter(host: LabHost, group: 'MPTcpExt' | 'TcpExt', name: string): Promise<number> {
  const { stdout } = await host.run('cat', ['/proc/net/netstat']);
  const [names = [], values = []] = stdout
    .split('\n')
    .filter((line) => line.startsWith(`${group}:`))
    .map((line) => line.split(' '));
  const at = names.indexOf(name);
  if (at < 0) throw new Error(`this kernel does not count ${group} ${name}`);
  return Number(values[at]);
}

/** The kernel has opened a further path, whatever became of it. */
export function pathTried(host: LabHost, since: number, timeoutMs?: number): Promise<true> {
  return eventually('a further path', async () => (await pathsTried(host)) > since || undefined, timeoutMs);
}

export async function pathsTried(host: LabHost): Promise<number> {
  const all = ['MPJoinSynTx', 'MPJoinSynTxBindErr', 'MPJoinSynTxConnectErr'];
  const counts = await Promise.all(all.map((name) => counter(host, 'MPTcpExt', name)));
  return counts.reduce((sum, count) => sum + count, 0);
}

/** What is of an MPTCP connection, by its port at either end. */
export function isMptcp({ protocol, sourcePort, destinationPort }: CapturedPacket): boolean {
  return protocol === 'tcp' && (sourcePort === MPTCP_PORT || destinationPort === MPTCP_PORT);
}
