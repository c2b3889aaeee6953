/**
 * A process of some user that sends all the time, by every flow it was started with, and never tires of failing: what a change
 * of the host must not let out is on its way at every moment of it. This file is both the program and what starts it.
 */
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { checked } from '../../../src/kernel/errno.js';
import { libc } from '../../../src/kernel/ffi.js';
import { KernelError } from '../../../src/model/errors.js';
import { NativeSocket } from './app/native-socket.js';
import type { LabHost } from './host.js';
import { ping } from './prober/ping.js';
import type { LabProcess } from './process.js';

export interface Flow {
  protocol: 'tcp' | 'udp' | 'icmp';
  target: string;
  /** A device: SO_BINDTODEVICE. */
  bindTo?: string;
  /** A local address: bind(2). */
  source?: string;
  /** UDP: the same socket for good, however often it fails. Otherwise each question has a socket of its own. */
  isKept?: boolean;
}

export interface FlowState {
  /** Questions asked, or tried to. */
  asked: number;
  answered: number;
  /** Who answered, in the order in which they were first heard. */
  sides: string[];
  /** All that ever went wrong: errnos, and `silence`. */
  errors: string[];
}

export interface SteadyTraffic {
  /** One for each flow. */
  states(): Promise<FlowState[]>;
  /** Returns when every flow has asked twice more, so once from the beginning to the end of it. */
  askedOn(): Promise<void>;
  /** Returns when every one of these flows was answered for a question it asked after this call. */
  answeredOn(which?: (flow: Flow) => boolean): Promise<void>;
  stop(): Promise<unknown>;
}

const FILE = fileURLToPath(import.meta.url);
const ECHO = 7;
const PAUSE_MS = 5;
const QUESTION_MS = 100;
/** For the first word on a connection that stands: without patience new ones would keep a busy server from ever saying it. */
const CONNECTED_MS = 2000;
const PATIENCE_MS = 60_000;
const SOL_SOCKET = 1;
const SO_BINDTODEVICE = 25;

/** `cgroup`: a directory. */
export async function startTraffic(
  host: LabHost,
  uid: number,
  flows: readonly Flow[],
  { cgroup = '' } = {},
): Promise<SteadyTraffic> {
  const user = ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--'];
  const enter = cgroup === '' ? ['exec "$@"', 'sh'] : ['echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup];
  const program = ['/run/node', host.path('dist/test/lab/lib/steady-traffic.js'), 'run', JSON.stringify(flows)];
  const child = host.spawn('sh', ['-c', ...enter, ...user, ...program]);
  await child.waitFor(/^ready$/m);
  const states = stateReader(child);
  const until = async (which: (flow: Flow) => boolean, count: 'asked' | 'answered') => {
    const before = await states();
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const now = await states();
      // The one on its way may have been answered before; the next has been asked since.
      const late = flows.filter(
        (flow, index) => which(flow) && (now[index]?.[count] ?? 0) < (before[index]?.[count] ?? 0) + 2,
      );
      if (late.length === 0) return;
      if (Date.now() > deadline) throw new Error(`uid ${uid}: not ${count}: ${JSON.stringify({ late, now })}`);
      await pause(PAUSE_MS);
    }
  };
  return {
    states,
    askedOn: () => until(() => true, 'asked'),
    answeredOn: (which = () => true) => until(which, 'answered'),
    stop: () => child.kill('SIGKILL'),
  };
}

/** Every protocol to these targets, each in the plain way. */
export function plainFlows(targets: readonly string[]): Flow[] {
  return targets.flatMap((target) => [
    { protocol: 'tcp' as const, target },
    { protocol: 'udp' as const, target },
    { protocol: 'udp' as const, target, isKept: true },
    { protocol: 'icmp' as const, target },
  ]);
}

function stateReader(child: LabProcess): () => Promise<FlowState[]> {
  let last = 0;
  return async () => {
    const id = ++last;
    child.write(`${id}\n`);
    const [, line = ''] = await child.waitFor(new RegExp(`^${id} (.*)$`, 'm'), PATIENCE_MS);
    return JSON.parse(line) as FlowState[];
  };
}

async function keepAsking(flow: Flow, state: FlowState): Promise<never> {
  const kept = flow.isKept ? open(flow) : undefined;
  for (;;) {
    try {
      const [side = ''] = (await (kept ? askOnce(kept, flow) : askAnew(flow))).split(' ');
      state.answered++;
      if (!state.sides.includes(side)) state.sides.push(side);
    } catch (error) {
      const name = error instanceof KernelError ? error.errnoName : String(error);
      if (!state.errors.includes(name)) state.errors.push(name);
    }
    state.asked++;
    await pause(PAUSE_MS);
  }
}

async function askAnew(flow: Flow): Promise<string> {
  const { protocol, target, source, bindTo } = flow;
  if (protocol === 'icmp') {
    const more = source === undefined ? {} : { source };
    return ping({ target, timeoutMs: QUESTION_MS, prepare: (fd) => bindToDevice(fd, bindTo), ...more });
  }
  const socket = open(flow);
  try {
    await socket.connect(target, ECHO, QUESTION_MS);
    if (protocol === 'udp') socket.send(Buffer.from('?'));
    return (await socket.receive(protocol === 'tcp' ? CONNECTED_MS : QUESTION_MS)).toString();
  } finally {
    socket.close();
  }
}

/** By an unconnected UDP socket, whose source is chosen anew each time unless it was bound. */
async function askOnce(socket: NativeSocket, { target }: Flow): Promise<string> {
  socket.send(Buffer.from('?'), { address: target, port: ECHO });
  return (await socket.receive(QUESTION_MS)).toString();
}

function open({ protocol, target, source, bindTo }: Flow): NativeSocket {
  const socket = new NativeSocket(target.includes(':') ? 2 : 1, protocol === 'tcp' ? 'tcp' : 'udp');
  try {
    bindToDevice(socket.fd, bindTo);
    if (source !== undefined) socket.bind(source);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

function bindToDevice(fd: number, device: string | undefined): void {
  if (device === undefined) return;
  const name = Buffer.from(`${device}\0`, 'latin1');
  checked(libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, name.length), 'SO_BINDTODEVICE', device);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function obey(flows: readonly Flow[]): Promise<void> {
  const states = flows.map((): FlowState => ({ asked: 0, answered: 0, sides: [], errors: [] }));
  for (const [index, flow] of flows.entries()) void keepAsking(flow, states[index] as FlowState);
  console.log('ready');
  for await (const id of createInterface({ input: process.stdin })) console.log(`${id} ${JSON.stringify(states)}`);
  process.exit(0);
}

if (process.argv[1] === FILE && process.argv[2] === 'run') await obey(JSON.parse(process.argv[3] ?? '[]') as Flow[]);
