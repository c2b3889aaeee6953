/**
 * The second lock: says by the sender which vNIC a packet has to leave by, and drops it at any other link. It stands when the
 * nft table does not. BPF_PROG_TYPE_CGROUP_SKB at BPF_CGROUP_INET_EGRESS, at the root, which runs behind nft's postrouting: what
 * nft lets out carries the bypass bit by then. It also knows whose the MPTCP subflows are that the kernel opens.
 *
 * It does not see AF_PACKET, forwarded packets, nor packets without a full socket.
 */
import { Assembler } from './bpf-assembler.js';
import { type NamespaceOffsets, namespaceCookie } from './bpf-receive-guard.js';
import type { SocketOffsets } from './kernel-offsets.js';

export interface EgressLockSpec {
  netnsCookie: bigint;
  /** Without them the program asks bpf_get_netns_cookie(), which such programs may from Linux 6.15 on. */
  offsets?: NamespaceOffsets;
  sockets: SocketOffsets;
  /** Whether an MPTCP subflow's connection is asked whose it is, which a program can from Linux 5.19 on. */
  tellsSubflows: boolean;
  /** A hash map of wayKey() to wayValue(). */
  ways: number;
  bypass: number;
  /** The field of the mark that selections are in. */
  field: number;
}

/** 'link': a vNIC. Nobody's MPTCP subflow gets into one whose VPN does not cover it. */
export const WAY = { selection: 1, uid: 2, everyone: 3, link: 4 } as const;
/** In the place of an ifindex: by no link at all, but loopback. */
export const NOWHERE = 0xffffffff;
export const WAY_BYTES = 8;

/** Where packets have to leave. */
export interface Way {
  kind: keyof typeof WAY;
  /** The selection's mark, the uid, 0 for everyone, or the link's ifindex. */
  value: number;
  /** 0: anywhere. Or NOWHERE. */
  ifindex: number;
  /** Whose selection it is; of a uid, 1 when it has a VPN of its own, which nothing of root's overrules. */
  owner: number;
}

export function wayKey({ kind, value }: Pick<Way, 'kind' | 'value'>): Buffer {
  return words(WAY[kind], value);
}

export function wayValue({ ifindex, owner }: Pick<Way, 'ifindex' | 'owner'>): Buffer {
  return words(ifindex, owner);
}

function words(first: number, second: number): Buffer {
  const buffer = Buffer.alloc(WAY_BYTES);
  buffer.writeUInt32LE(first, 0);
  buffer.writeUInt32LE(second, 4);
  return buffer;
}

/** offsetof(struct __sk_buff, …). */
const SKB_MARK = 8;
const SKB_IFINDEX = 40;
const SKB_SK = 168;
const LOOPBACK = 1;
/** No ifindex, and not NOWHERE. */
const UNDECIDED = 0x7fffffff;
const [IPPROTO_IGMP, IPPROTO_ICMPV6] = [2, 58];

/** The stack. */
const KEY = -8;
const BYTE = -16;
const IS_SUBFLOW = -24;

export function egressLockProgram(spec: EgressLockSpec): Buffer {
  const { netnsCookie, offsets, sockets, tellsSubflows, ways, bypass, field } = spec;
  const code = new Assembler();
  const lookUp = (kind: number, value: 'r7' | 'r8' | 'r9' | 0) =>
    code
      .store('u32', 'r10', KEY, kind)
      .store('u32', 'r10', KEY + 4, value)
      .map('r1', ways)
      .move('r2', 'r10')
      .add('r2', KEY)
      .call('map_lookup_elem');

  code.move('r6', 'r1').load('u32', 'r7', 'r6', SKB_IFINDEX).jumpIf('w7', '==', LOOPBACK, 'pass');
  code.load('u32', 'r8', 'r6', SKB_MARK).move('w1', 'w8').and('w1', bypass).jumpIf('w1', '!=', 0, 'pass');
  code.move('r1', 'r6').call('get_socket_uid').move('w9', 'w0').store('u32', 'r10', IS_SUBFLOW, 0);
  if (tellsSubflows) {
    // A subflow that the kernel opens is nobody's until it has joined: its connection says whose it is.
    code.jumpIf('w9', '!=', 0, 'known').load('u64', 'r1', 'r6', SKB_SK).jumpIf('r1', '==', 0, 'known');
    code.call('skc_to_mptcp_sock').jumpIf('r0', '==', 0, 'known').load('u32', 'r9', 'r0', sockets.socketUid);
    code.store('u32', 'r10', IS_SUBFLOW, 1).label('known');
  }

  // In the order of nft's lock. r8 = where to, once that is known.
  code.and('w8', field).jumpIf('w8', '==', 0, 'no selection');
  lookUp(WAY.selection, 'r8').jumpIf('r0', '==', 0, 'no selection');
  code.load('u32', 'r8', 'r0', 0).load('u32', 'r1', 'r0', 4).jumpIf('w1', '==', 'w9', 'decided');
  code.jumpIf('w1', '==', 0, 'user').label('no selection').move('w8', UNDECIDED);
  code.label('user');
  lookUp(WAY.uid, 'r9').jumpIf('r0', '==', 0, 'no user');
  code.load('u32', 'r1', 'r0', 4).jumpIf('w1', '!=', 0, 'by user').jumpIf('w8', '!=', UNDECIDED, 'decided');
  code.label('by user').load('u32', 'r8', 'r0', 0).jump('decided');
  code.label('no user').jumpIf('w8', '!=', UNDECIDED, 'decided');
  lookUp(WAY.everyone, 0).jumpIf('r0', '==', 0, 'not covered').load('u32', 'r8', 'r0', 0);
  code.label('decided').jumpIf('w8', '==', 'w7', 'pass').jumpIf('w8', '!=', 0, 'elsewhere');
  code.label('not covered').load('u32', 'r1', 'r10', IS_SUBFLOW).jumpIf('w1', '==', 0, 'pass');
  lookUp(WAY.link, 'r7').jumpIf('r0', '==', 0, 'pass');
  code.label('elsewhere');

  // What has no full socket has the uid of "nobody", who may be covered too.
  code.load('u64', 'r1', 'r6', SKB_SK).jumpIf('r1', '==', 0, 'pass');
  code.call('sk_fullsock').jumpIf('r0', '==', 0, 'pass').move('r8', 'r0');
  // Late, because few packets come as far as here.
  namespaceCookie(code, offsets);
  code.constant('r1', netnsCookie).jumpIf('r0', '!=', 'r1', 'pass').jumpIf('w9', '==', 0, 'kernel');
  // What a process has closed still has data to send, which nft cannot tell whose it is, and lets out without a mark. But not by a path
  // that MPTCP has added.
  code.move('r1', 'r8').call('skc_to_tcp_sock').jumpIf('r0', '==', 0, 'drop').move('r7', 'r0');
  code.load('u64', 'r1', 'r7', sockets.socketOfProcess).jumpIf('r1', '!=', 0, 'drop');
  if (tellsSubflows && sockets.subflow !== undefined) {
    const { context, isJoin } = sockets.subflow;
    code.move('r1', 'r8').call('skc_to_mptcp_sock').jumpIf('r0', '==', 0, 'pass');
    code.load('u64', 'r3', 'r7', context).add('r3', isJoin >>> 3);
    code.move('r1', 'r10').add('r1', BYTE).move('r2', 1).call('probe_read_kernel').jumpIf('r0', '!=', 0, 'drop');
    code
      .load('u8', 'r1', 'r10', BYTE)
      .and('w1', 1 << (isJoin & 7))
      .jumpIf('w1', '!=', 0, 'drop');
  }
  code.jump('pass').label('kernel');
  neighbours(code);
  code.label('drop').move('r0', 0).exit();
  return code.label('pass').move('r0', 1).exit().program();
}

/** Without neighbour discovery and group membership the host loses its links: to pass also while nft is away. */
function neighbours(code: Assembler): void {
  const byte = (at: number) => {
    code.move('r1', 'r6').move('r2', at).move('r3', 'r10').add('r3', BYTE).move('r4', 1).call('skb_load_bytes');
    code.jumpIf('r0', '!=', 0, 'drop').load('u8', 'r1', 'r10', BYTE);
  };
  byte(0);
  code.shiftRight('r1', 4).jumpIf('r1', '==', 6, 'six');
  byte(8);
  code.jumpIf('r1', '!=', 1, 'drop');
  byte(9);
  code.jumpIf('r1', '==', IPPROTO_IGMP, 'pass').jump('drop');
  code.label('six');
  byte(6);
  code.jumpIf('r1', '==', IPPROTO_ICMPV6, 'discovery').jumpIf('r1', '!=', 0, 'drop');
  byte(7);
  code.jumpIf('r1', '!=', 1, 'drop');
  byte(40);
  code.jumpIf('r1', '!=', IPPROTO_ICMPV6, 'drop');
  byte(48);
  code.jumpIf('r1', '==', 143, 'pass').jumpIf('r1', '<', 130, 'drop').jumpIf('r1', '<=', 132, 'pass').jump('drop');
  code.label('discovery');
  byte(7);
  code.jumpIf('r1', '!=', 255, 'drop');
  byte(40);
  code.jumpIf('r1', '<', 133, 'drop').jumpIf('r1', '<=', 136, 'pass');
}
