/**
 * Tables that belong to one netlink socket (linux/netfilter/nf_tables.h): while it lives nobody else can change or delete them, and
 * flushing the rule set skips them. They stay when it is closed, and whoever comes next takes them over. Linux 6.9 has that,
 * and libnftables has no word for it before 1.1.1, so this one message is written here.
 */
import { KernelError } from '../model/errors.js';
import { errnoName, lastError } from './errno.js';
import { errno, libc } from './ffi.js';
import {
  NetlinkWriter,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_REQUEST,
  NLMSG_ERROR,
  readAcknowledgement,
  readMessages,
} from './netlink.js';

const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;
const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG_NEWTABLE = 0;
const [NFTA_TABLE_NAME, NFTA_TABLE_FLAGS] = [1, 2];
const NFT_TABLE_F_OWNER = 0x2;
const NFT_TABLE_F_PERSIST = 0x4;
/** struct nfgenmsg: family, version, and the subsystem of a batch, big-endian. */
const BATCH = Buffer.from([0, 0, 0, NFNL_SUBSYS_NFTABLES]);
const NFPROTO = { inet: 1, arp: 3, netdev: 5 } as const;
const MSG_DONTWAIT = 0x40;
const EAGAIN = 11;
const RECEIVE_BYTES = 16 * 1024;

export type TableFamily = keyof typeof NFPROTO;

/** The batch that makes these tables, or takes them over when their owner is gone. */
export function ownedTables(name: string, families: readonly TableFamily[]): Buffer {
  const writer = new NetlinkWriter();
  writer.begin(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, BATCH);
  writer.end();
  for (const [index, family] of families.entries()) {
    const type = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWTABLE;
    const flags = Buffer.alloc(4);
    flags.writeUInt32BE(NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST);
    writer.begin(type, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK, index + 1, Buffer.from([NFPROTO[family], 0, 0, 0]));
    writer.attributeString(NFTA_TABLE_NAME, name);
    writer.attribute(NFTA_TABLE_FLAGS, flags);
    writer.end();
  }
  writer.begin(NFNL_MSG_BATCH_END, NLM_F_REQUEST, families.length + 1, BATCH);
  writer.end();
  return Buffer.from(writer.bytes());
}

/**
 * Whether they are the socket's now; if not, nothing is changed: the kernel does not know such tables, or one of them stands
 * that is nobody's and not made for it. Throws KernelError otherwise.
 */
export function makeOwnedTables(socket: number, name: string, families: readonly TableFamily[]): boolean {
  const bytes = ownedTables(name, families);
  if (libc.send(socket, bytes, bytes.length, 0) !== bytes.length) throw lastError('send', `nftables ${name}`);
  const failure = answers(socket).find((each) => each !== 0);
  if (failure === undefined) return true;
  const error = errnoName(failure);
  if (error === 'EOPNOTSUPP') return false;
  throw new KernelError('NFT_MSG_NEWTABLE', name, error);
}

/** The error numbers of what was sent. They are there when the send returns; all are read, since libnftables is next. */
function answers(socket: number): number[] {
  const buffer = Buffer.alloc(RECEIVE_BYTES);
  const found: number[] = [];
  for (;;) {
    const length = libc.recv(socket, buffer, buffer.length, MSG_DONTWAIT);
    if (length < 0 && errno() === EAGAIN) break;
    if (length < 0) throw lastError('recv', 'nftables');
    for (const message of readMessages(buffer.subarray(0, length))) {
      if (message.type === NLMSG_ERROR) found.push(readAcknowledgement(message).errno);
    }
  }
  if (found.length === 0) throw new KernelError('recv', 'nftables', 'EPROTO', { message: 'no answer' });
  return found;
}
