/**
 * The users of `npm run bench:policy`: each has a VPN with DNS servers and an application list of its own, from one process, as
 * many-vpns.ts does it. See driver.ts for how it is told what to do.
 *
 *   up N | down N           user N's VPN, and its end; answers milliseconds
 *   plain                   a TUN of the same address and MTU with a route into it, and nothing else
 *   relay CPU PROGRAM NAME PID  lets PROGRAM, on that CPU, copy packets between user 0's TUN (or the plain one) and a new
 *                           TUN NAME in the network namespace of process PID
 */
import { execFileSync, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { socketPath } from '../../src/ipc/methods.js';
import { ServiceConnection } from '../../src/ipc/service-connection.js';
import { openTun } from '../../src/kernel/tun.js';
import { receiveWithFds, unixPair } from '../../src/kernel/unix-socket.js';
import { FIRST_POLICY_UID, policyVpnConfig, TUNNEL_MTU, TUNNEL_TARGETS } from './policy-configs.js';

/** Where the cgroups of the application lists are; without one, lists have uids only. */
const cgroups = process.argv[2];
const connections = new Map<number, ServiceConnection>();
const tuns = new Map<number, number>();

/** The service takes the effective uid at connect(2) and socketpair(2) for the caller's. */
function as<T>(index: number, make: () => T): T {
  process.seteuid?.(FIRST_POLICY_UID + index);
  const made = make();
  process.seteuid?.(0);
  return made;
}

function connectionOf(index: number): ServiceConnection {
  const known = connections.get(index);
  if (known) return known;
  const made = as(index, () => new ServiceConnection(socketPath(), 1000));
  made.hold(true);
  connections.set(index, made);
  return made;
}

async function up(index: number): Promise<number> {
  const service = connectionOf(index);
  const config = policyVpnConfig(index, cgroups);
  const [mine, theirs] = as(index, unixPair);
  const start = performance.now();
  await service.call('setUp', { config }, [theirs], () => closeSync(theirs));
  const received = receiveWithFds(mine);
  const elapsed = performance.now() - start;
  closeSync(mine);
  const fd = typeof received === 'string' ? undefined : received.fds[0];
  if (fd === undefined) throw new Error(`user ${index} got no descriptor`);
  tuns.set(index, fd);
  return elapsed;
}

async function down(index: number): Promise<number> {
  const start = performance.now();
  await connectionOf(index).call('destroy', {}, []);
  const elapsed = performance.now() - start;
  closeSync(tuns.get(index) ?? -1);
  tuns.delete(index);
  return elapsed;
}

async function plain(): Promise<void> {
  const { fd, name } = openTun('tun0');
  tuns.set(0, fd);
  ip(`link set ${name} mtu ${TUNNEL_MTU} addrgenmode none`);
  const addresses = policyVpnConfig(0, undefined).addresses;
  for (const { address, prefixLength } of addresses) {
    ip(`address add ${address.address}/${prefixLength} dev ${name}${address.address.includes(':') ? ' nodad' : ''}`);
  }
  ip(`link set ${name} up`);
  for (const target of Object.values(TUNNEL_TARGETS)) ip(`route add ${target} dev ${name}`);
}

async function relay(cpu: string, program: string, name: string, pid: string): Promise<void> {
  const far = openTun(name);
  ip(`link set ${name} mtu ${TUNNEL_MTU} netns ${pid}`);
  const words = ['-c', cpu, program, 'relay', '3', '4'];
  spawn('taskset', words, { stdio: ['ignore', 'inherit', 'inherit', tuns.get(0) ?? -1, far.fd] });
}

function ip(words: string): void {
  execFileSync('ip', words.split(' '));
}

const COMMANDS: Record<string, (...words: string[]) => Promise<unknown>> = {
  up: (index) => up(Number(index)),
  down: (index) => down(Number(index)),
  plain,
  relay: (cpu = '', program = '', name = '', pid = '') => relay(cpu, program, name, pid),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [number, command = '', ...words] = line.split(' ');
  console.log(`done ${number} ${(await COMMANDS[command]?.(...words)) ?? ''}`.trimEnd());
}
process.exit();
