/**
 * The program that keeps what arrives on a vNIC from sockets the VPN does not cover: it runs for every packet and the IPv4 or
 * IPv6 socket that would get it (TCP, also a SYN for a listener, UDP, ping, raw), and drops what the vNIC's rule denies that
 * socket. BPF_PROG_TYPE_CGROUP_SKB at BPF_CGROUP_INET_INGRESS, at the root. What nft's input hook cannot do: there a listener
 * or an unconnected socket is not known yet.
 *
 * It sees no packet without a full socket, so echo replies, resets and TIME_WAIT stay the kernel's. It does not reach AF_PACKET,
 * nor ICMP errors, which only tell a socket what became of its own packets.
 */
import { Assembler } from './bpf-assembler.js';

/** Offsets in the running kernel's structs. */
export interface NamespaceOffsets {
  socketNamespace: number;
  namespaceCookie: number;
}

export interface ReceiveGuardSpec {
  netnsCookie: bigint;
  /** Without them the program asks bpf_get_netns_cookie(), which such programs may from Linux 6.15 on. */
  offsets?: NamespaceOffsets;
  /** Descriptors of hash maps: ifindex to ruleValue(), listKey() to whatever. */
  rules: number;
  lists: number;
  /** A socket with one of these bits gets nothing. */
  bypass: number;
  /** The field of the mark that `covered` and `blocked` are compared with. */
  field: number;
}

/** Who receives from one vNIC. */
export interface ReceiveRule {
  /** The uid whose VPN it is. 0: everyone without a VPN of his own. */
  owner: number;
  /** Whether those receive for whom nothing below decides. */
  others: boolean;
  /** For uids in the list it is the other way round. Only of use with owner 0. */
  list: readonly number[];
  /** A socket with this mark receives. */
  covered?: number;
  /** A socket with this mark does not. */
  blocked?: number;
}

/** offsetof(struct __sk_buff, …). */
const SKB_IFINDEX = 40;
const SKB_SK = 168;
/** offsetof(struct bpf_sock, mark). */
const SOCK_MARK = 16;

export const RULE_BYTES = 16;
export const LIST_KEY_BYTES = 8;
/** In place of an ifindex: the list of users with a VPN of their own. */
export const OWN_VPN = 0;

export function ruleValue({ owner, others, covered = 0, blocked = 0 }: ReceiveRule): Buffer {
  const value = Buffer.alloc(RULE_BYTES);
  [owner, others ? 1 : 0, covered, blocked].forEach((word, index) => {
    value.writeUInt32LE(word, index * 4);
  });
  return value;
}

export function listKey(ifindex: number, uid: number): Buffer {
  const key = Buffer.alloc(LIST_KEY_BYTES);
  key.writeUInt32LE(ifindex, 0);
  key.writeUInt32LE(uid, 4);
  return key;
}

/** The stack. */
const LIST_KEY = -8;
const IFINDEX = LIST_KEY;
const UID = LIST_KEY + 4;
const SCRATCH = -16;

export function receiveGuardProgram(spec: ReceiveGuardSpec): Buffer {
  const code = new Assembler();
  code.move('r6', 'r1').load('u32', 'r1', 'r6', SKB_IFINDEX).store('u32', 'r10', IFINDEX, 'r1');
  // First of all: of no concern to most packets of the machine.
  code.map('r1', spec.rules).move('r2', 'r10').add('r2', IFINDEX).call('map_lookup_elem');
  code.jumpIf('r0', '==', 0, 'deliver').move('r7', 'r0');
  code.load('u64', 'r1', 'r6', SKB_SK).jumpIf('r1', '==', 0, 'deliver');
  code.call('sk_fullsock').jumpIf('r0', '==', 0, 'deliver').move('r8', 'r0');
  // Another namespace may have a link with the same index.
  namespaceCookie(code, spec.offsets);
  code.constant('r1', spec.netnsCookie).jumpIf('r0', '!=', 'r1', 'deliver');
  code.load('u32', 'r8', 'r8', SOCK_MARK);
  code.move('r1', 'r6').call('get_socket_uid').move('w9', 'w0').store('u32', 'r10', UID, 'r9');

  code.move('w1', 'w8').and('w1', spec.bypass).jumpIf('w1', '!=', 0, 'drop');
  code.load('u32', 'r1', 'r7', 0).jumpIf('w1', '==', 0, 'root');
  code.move('r6', 0).jumpIf('w1', '==', 'w9', 'selection').jump('drop');

  // r6 = whether the uid is in the list.
  code.label('root').move('r6', 0);
  inList(code, spec.lists).jumpIf('r0', '==', 0, 'not listed').move('r6', 1);
  code.label('not listed').store('u32', 'r10', IFINDEX, OWN_VPN);
  inList(code, spec.lists).jumpIf('r0', '!=', 0, 'drop');

  code.label('selection').and('w8', spec.field).jumpIf('w8', '==', 0, 'others');
  code.load('u32', 'r1', 'r7', 12).jumpIf('w1', '==', 'w8', 'drop');
  code.load('u32', 'r1', 'r7', 8).jumpIf('w1', '==', 'w8', 'deliver');
  code.label('others').load('u32', 'r0', 'r7', 4).xor('w0', 'w6').and('w0', 1).exit();
  code.label('drop').move('r0', 0).exit();
  return code.label('deliver').move('r0', 1).exit().program();
}

/** r0 = the cookie of the socket's network namespace. The context is in r6, the socket in r8. */
export function namespaceCookie(code: Assembler, offsets: NamespaceOffsets | undefined): void {
  if (offsets === undefined) {
    code.move('r1', 'r6').call('get_netns_cookie');
    return;
  }
  // The verifier lets nobody add to a socket's address: so all is copied that stands before.
  const bytes = offsets.socketNamespace + 8;
  const copy = SCRATCH - bytes - (bytes % 8);
  code.move('r1', 'r10').add('r1', copy).move('r2', bytes).move('r3', 'r8').call('probe_read_kernel');
  code.load('u64', 'r3', 'r10', copy + offsets.socketNamespace).add('r3', offsets.namespaceCookie);
  code.move('r1', 'r10').add('r1', SCRATCH).move('r2', 8).call('probe_read_kernel').load('u64', 'r0', 'r10', SCRATCH);
}

function inList(code: Assembler, lists: number): Assembler {
  return code.map('r1', lists).move('r2', 'r10').add('r2', LIST_KEY).call('map_lookup_elem');
}
