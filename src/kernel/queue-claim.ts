/**
 * A number of this network namespace that one process has at a time: a queue of nfnetlink_queue (linux/netfilter/nfnetlink_queue.h).
 * Unlike a file or an abstract socket's name it is the same from every mount namespace, only CAP_NET_ADMIN over the network namespace
 * can take it, and the kernel gives it back with the socket, so with the process however that ends. No packet is ever sent there.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { type NetlinkRequest, NetlinkSocket } from './netlink-socket.js';

const NFNL_SUBSYS_QUEUE = 3;
const NFQNL_MSG_CONFIG = 2;
const NFQA_CFG_CMD = 1;
const NFQNL_CFG_CMD_BIND = 1;
/** Does nothing any more (Linux 3.8), but is refused like every other to whom nothing is allowed. */
const NFQNL_CFG_CMD_PF_BIND = 3;
const NETLINK_NETFILTER = '12';

export interface QueueClaim {
  release(): void;
}

/** Undefined when another socket has it. Throws KernelError: EPERM without the right, EINVAL when the kernel has no such queues. */
export async function claimQueue(queue: number): Promise<QueueClaim | undefined> {
  const socket = new NetlinkSocket(undefined, 'NETLINK_NETFILTER');
  let isOurs = false;
  try {
    const [forbidden] = await socket.batch([config(queue, NFQNL_CFG_CMD_PF_BIND)]);
    if (forbidden) throw forbidden.error;
    const [taken] = await socket.batch([config(queue, NFQNL_CFG_CMD_BIND)]);
    if (taken && !['EPERM', 'EBUSY'].includes(taken.error.errnoName)) throw taken.error;
    isOurs = taken === undefined;
    return isOurs ? { release: () => socket.close() } : undefined;
  } finally {
    if (!isOurs) socket.close();
  }
}

function config(queue: number, command: number): NetlinkRequest {
  return {
    call: 'NFQNL_MSG_CONFIG',
    describe: () => `queue ${queue}`,
    write(writer, flags, sequence) {
      // struct nfgenmsg: family, version, and the queue, big-endian.
      const header = Buffer.from([0, 0, queue >> 8, queue & 255]);
      writer.begin((NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_CONFIG, flags, sequence, header);
      writer.attribute(NFQA_CFG_CMD, Buffer.from([command, 0, 0, 0]));
      writer.end();
    },
  };
}

/** The process that has it, for a message; undefined when it cannot be seen from here, for whatever reason. */
export function queueHolder(queue: number): number | undefined {
  try {
    const rows = (file: string) =>
      readFileSync(`/proc/self/net/${file}`, 'latin1')
        .split('\n')
        .map((line) => line.trim().split(/\s+/));
    const port = rows('netfilter/nfnetlink_queue').find(([number]) => Number(number) === queue)?.[1];
    // sk, protocol, port, …, inode.
    const inode = rows('netlink')
      .find((row) => row[1] === NETLINK_NETFILTER && row[2] === port)
      ?.at(-1);
    if (port === undefined || inode === undefined) return undefined;
    return processes().find((pid) => holds(pid, `socket:[${inode}]`));
  } catch {
    return undefined;
  }
}

function processes(): number[] {
  return readdirSync('/proc').map(Number).filter(Number.isInteger);
}

function holds(pid: number, link: string): boolean {
  const directory = `/proc/${pid}/fd`;
  try {
    return readdirSync(directory).some((fd) => readlinkSync(`${directory}/${fd}`) === link);
  } catch {
    // It has ended, has just closed one, or may not be looked at: then it is not named.
    return false;
  }
}
