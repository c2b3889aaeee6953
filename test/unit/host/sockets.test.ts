/** Which sockets end and which live: a listing in, a choice out. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { type Coverage, covers } from '../../../src/host/coverage.js';
import { SocketEnder } from '../../../src/host/socket-ender.js';
import { coveredOutbound, fromAddresses, inboundConnections } from '../../../src/host/sockets.js';
import {
  type SocketEntry,
  TCP_CLOSE,
  TCP_ESTABLISHED,
  TCP_LISTEN,
  TCP_STATES,
  TCP_SYN_RECV,
  TCP_SYN_SENT,
} from '../../../src/kernel/inet-diag.js';
import { SockDiag } from '../../../src/kernel/sock-diag.js';

const HOST4 = '192.0.2.2';
const HOST6 = '2001:db8:1::2';
const VNIC4 = '10.9.0.2';
const FAR4 = '203.0.113.10';
const FAR6 = '2001:db8:f::10';
const OWN = new Set(['127.0.0.1', '::1', HOST4, HOST6, VNIC4]);
const TRUSTED = 0x01000000;
const BLOCKED = 0x02000000;
const BYPASS = 0x80000000;

const isIpv6 = (address: string): boolean => address.includes(':');

/** An outgoing connection of uid 2001, unless told otherwise. @example socket(`${HOST4} 40000`, `${FAR4} 443`, { uid: 0 }) */
function socket(local: string, remote: string, more: Partial<SocketEntry> = {}): SocketEntry {
  const endpoint = (text: string) => ({ address: text.split(' ')[0] ?? '', port: Number(text.split(' ')[1]) });
  return {
    protocol: 'tcp',
    family: isIpv6(local) ? 2 : 1,
    isInet6: isIpv6(local),
    state: TCP_ESTABLISHED,
    local: endpoint(local),
    remote: endpoint(remote),
    ifindex: 0,
    uid: 2001,
    inode: 7,
    mark: 0,
    cgroup: 1n,
    portOrigin: 'kernel',
    isV6Only: false,
    rawProtocol: 0,
    sockid: Buffer.alloc(48),
    ...more,
  };
}

function listener(local: string, more: Partial<SocketEntry> = {}): SocketEntry {
  const any = isIpv6(local) ? ':: 0' : '0.0.0.0 0';
  return socket(local, any, { state: TCP_LISTEN, portOrigin: 'bind', ...more });
}

function coverage(more: Partial<Coverage> = {}): Coverage {
  return {
    owner: 2001,
    usersWithOwnVpn: new Set([2001]),
    selections: {},
    addresses: new Set([VNIC4]),
    takes: () => true,
    ...more,
  };
}

const ROOT = { owner: 0, usersWithOwnVpn: new Set<number>() };
const OUT4 = socket(`${HOST4} 40000`, `${FAR4} 443`);
const OUT6 = socket(`${HOST6} 40000`, `${FAR6} 443`);
const chosen = (entries: readonly SocketEntry[], more: Partial<Coverage> = {}) =>
  coveredOutbound(entries, coverage(more), OWN);

const who: [what: string, socket: Partial<SocketEntry>, coverage: Partial<Coverage>, expected: boolean][] = [
  ['its user', {}, {}, true],
  ['another user', { uid: 2002 }, {}, false],
  ['root, by a user', { uid: 0 }, {}, false],
  ['a protected socket', { mark: BYPASS }, {}, false],
  [
    'a protected socket with a selection',
    { mark: (BYPASS | TRUSTED) >>> 0 },
    { selections: { covered: TRUSTED } },
    false,
  ],
  ["others' mark bits", { mark: 0x00ff1234 }, {}, true],
  ['everyone, by root', { uid: 4711 }, ROOT, true],
  ['root, by root', { uid: 0 }, ROOT, true],
  ['a user with a VPN of its own, by root', {}, { ...ROOT, usersWithOwnVpn: new Set([2001]) }, false],
  ['whoever closed it, by a user', { uid: undefined }, {}, true],
  ['whoever closed it, by root', { uid: undefined }, { ...ROOT, usersWithOwnVpn: new Set([2001]) }, true],
];
const none = { uids: new Set<number>(), cgroups: new Set<bigint>() };
const users = (...uids: number[]) => ({ ...none, uids: new Set(uids) });
const cgroups = (...ids: bigint[]) => ({ ...none, cgroups: new Set(ids) });
const both = { covered: TRUSTED, blocked: BLOCKED };
const lists: typeof who = [
  ['who is trusted by uid', {}, { ...ROOT, trusted: users(2001) }, true],
  ['who is not trusted', { uid: 2002 }, { ...ROOT, trusted: users(2001) }, false],
  ['nobody by an empty list', {}, { trusted: none }, false],
  ['its user when it is trusted by uid', {}, { trusted: users(2001) }, true],
  ['a trusted cgroup', { cgroup: 9n }, { trusted: cgroups(9n) }, true],
  ['another cgroup', { cgroup: 8n }, { trusted: cgroups(9n) }, false],
  ['a trusted cgroup of another user', { uid: 2002, cgroup: 9n }, { trusted: cgroups(9n) }, false],
  ['a trusted cgroup, whoever closed it', { uid: undefined, cgroup: 9n }, { trusted: cgroups(9n) }, true],
  ['another cgroup, whoever closed it', { uid: undefined }, { trusted: cgroups(9n) }, false],
  ['whoever closed it, when some uid is trusted', { uid: undefined }, { ...ROOT, trusted: users(2001) }, true],
  ['a socket marked as trusted', { mark: TRUSTED }, { trusted: none, selections: both }, true],
  ["a socket marked by another VPN's list", { mark: 0x03000000 }, { trusted: none, selections: both }, false],
  ['a trusted mark of another user', { uid: 2002, mark: TRUSTED }, { trusted: none, selections: both }, false],
  ['a blocked uid', {}, { ...ROOT, blocked: users(2001) }, false],
  ['who is not blocked', { uid: 2002 }, { ...ROOT, blocked: users(2001) }, true],
  ['a blocked cgroup', { cgroup: 9n }, { blocked: cgroups(9n) }, false],
  ['another cgroup than the blocked', { cgroup: 8n }, { blocked: cgroups(9n) }, true],
  ['a blocked cgroup, whoever closed it', { uid: undefined, cgroup: 9n }, { blocked: cgroups(9n) }, false],
  ['a blocked uid, whoever closed it', { uid: undefined }, { ...ROOT, blocked: users(2001) }, true],
  ['a socket marked as blocked', { mark: BLOCKED }, { blocked: none, selections: both }, false],
];
for (const [what, change, covering, expected] of [...who, ...lists]) {
  test(`covers() ${expected ? 'takes' : 'leaves'} ${what}`, () => {
    assert.equal(covers(coverage(covering), { ...OUT4, ...change }), expected);
  });
}

test('connections outside end, TCP in every state, UDP and raw when connected', () => {
  const states = [...Array(12).keys()].filter((state) => TCP_STATES & (1 << state) && state !== TCP_LISTEN);
  assert.equal(states.length, 8);
  const tcp = states.map((state) => ({ ...OUT4, state }));
  const others = (['udp', 'udplite', 'raw'] as const).map((protocol) => ({ ...OUT6, protocol }));
  const entries = [...tcp, ...others, { ...OUT4, inode: 0 }];
  assert.deepEqual(chosen(entries), entries);
});

test('what stays inside the host, is inside the tunnel or goes where the VPN does not, lives', () => {
  const entries = [
    socket('127.0.0.1 40000', '127.0.0.1 80'),
    socket('127.0.0.1 40000', '127.9.9.9 80'),
    socket('::1 40000', '::1 80'),
    socket(`${HOST4} 40000`, `${HOST4} 80`),
    socket(`${HOST4} 40000`, '127.0.0.1 80'),
    socket(`${HOST6} 40000`, `${HOST6} 80`, { protocol: 'udp' }),
    socket(`${VNIC4} 40000`, `${FAR4} 443`),
    socket(`${VNIC4} 40000`, '0.0.0.0 0', { protocol: 'udp', state: TCP_CLOSE }),
    listener(`${HOST4} 4000`, { portOrigin: 'kernel' }),
  ];
  assert.deepEqual(chosen(entries), []);
  assert.deepEqual(chosen([OUT4, OUT6], { takes: (family) => family === 2 }), [OUT6]);
  assert.deepEqual(chosen([OUT4, OUT6], { takes: (_, address) => address === FAR4 }), [OUT4]);
  assert.deepEqual(chosen([{ ...OUT4, uid: 2002 }]), []);
});

test('a VPN with DNS servers ends what is connected to a resolver anywhere, and no resolver of this host', () => {
  const takes = () => false;
  const stub = socket('127.0.0.1 40000', '127.0.0.53 53');
  const near = socket(`${HOST4} 40000`, '192.0.2.1 53');
  for (const entry of [stub, near]) {
    for (const each of [entry, { ...entry, protocol: 'udp' as const }]) {
      assert.deepEqual(chosen([each], { takes, hasDns: true }), [each]);
      assert.deepEqual(chosen([each], { takes }), []);
    }
  }
  const accepted = socket('127.0.0.53 53', '127.0.0.1 40000');
  const inside = socket(`${VNIC4} 40000`, '10.9.0.1 53');
  assert.deepEqual(chosen([listener('127.0.0.53 53'), accepted, inside], { takes, hasDns: true }), []);
});

test('of unconnected sockets only UDP ends that is not on loopback and whose port the kernel chose', () => {
  const unconnected = { protocol: 'udp', state: TCP_CLOSE } as const;
  const bound = [socket(`${HOST4} 50000`, '0.0.0.0 0', unconnected), socket(`${HOST6} 50000`, ':: 0', unconnected)];
  const wild = [socket('0.0.0.0 50000', '0.0.0.0 0', unconnected), socket(':: 50000', ':: 0', unconnected)];
  const ends = [...bound, ...wild];
  const lives = [
    socket(`${HOST4} 53`, '0.0.0.0 0', { ...unconnected, portOrigin: 'bind' }),
    socket('0.0.0.0 53', '0.0.0.0 0', { ...unconnected, portOrigin: 'bind' }),
    socket('127.0.0.1 50000', '0.0.0.0 0', unconnected),
    socket(`${HOST4} 50000`, '0.0.0.0 0', { ...unconnected, mark: BYPASS }),
    socket(`${HOST4} 0`, '0.0.0.0 0', { protocol: 'raw', state: TCP_CLOSE }),
  ];
  assert.deepEqual(chosen([...lives, ...ends], { takes: () => false }), ends);
  const ofRoot = { owner: 0, takes: () => false };
  const services = ends.map((each) => ({ ...each, uid: 113 }));
  assert.deepEqual(chosen(services, ofRoot), services.slice(0, bound.length), 'a service of no address lives');
  const persons = ends.map((each) => ({ ...each, uid: 1000 }));
  assert.deepEqual(chosen(persons, ofRoot), persons);
});

const SSH4 = socket(`${HOST4} 22`, `${FAR4} 50000`);
const SSH6 = socket(`${HOST6} 22`, `${FAR6} 50000`);
const mapped = { isInet6: true };
const inbound: [what: string, entries: SocketEntry[], expected: number][] = [
  ['listener of all addresses', [listener('0.0.0.0 8080'), socket(`${HOST4} 8080`, `${FAR4} 50000`)], 1],
  ['IPv6 listener', [listener(':: 8080'), socket(`${HOST6} 8080`, `${FAR6} 50000`)], 1],
  ['dual-stack listener', [listener(':: 8080'), socket(`${HOST4} 8080`, `${FAR4} 50000`, mapped)], 1],
  ['listener of its address', [listener(`${HOST4} 8080`), socket(`${HOST4} 8080`, `${FAR4} 50000`)], 1],
  [
    'listener of its mapped address',
    [listener(`${HOST4} 8080`, mapped), socket(`${HOST4} 8080`, `${FAR4} 5`, mapped)],
    1,
  ],
  ['listener of another address', [listener('192.0.2.3 8080'), socket(`${HOST4} 8080`, `${FAR4} 50000`)], 0],
  ['listener of another port', [listener('0.0.0.0 8081'), socket(`${HOST4} 8080`, `${FAR4} 50000`)], 0],
  ['listener of another family', [listener(':: 8080'), socket(`${HOST4} 8080`, `${FAR4} 50000`)], 0],
  ['listener without IPv4', [listener(':: 8080', { isV6Only: true }), socket(`${HOST4} 8080`, `${FAR4} 5`, mapped)], 0],
  ['listener of another link', [listener('0.0.0.0 8080', { ifindex: 3 }), socket(`${HOST4} 8080`, `${FAR4} 5`)], 0],
  [
    'listener of its link',
    [listener(':: 8080', { ifindex: 3 }), socket(`${HOST6} 8080`, `${FAR6} 5`, { ifindex: 3 })],
    1,
  ],
  [
    'port that the program took',
    [listener('0.0.0.0 8080'), socket(`${HOST4} 8080`, `${FAR4} 5`, { portOrigin: 'bind' })],
    0,
  ],
  ['first packet just sent', [listener('0.0.0.0 80'), socket(`${HOST4} 80`, `${FAR4} 5`, { state: TCP_SYN_SENT })], 0],
  ['UDP server', [listener('0.0.0.0 8080'), socket(`${HOST4} 8080`, `${FAR4} 50000`, { protocol: 'udp' })], 0],
  ['session whose server has ended', [SSH4, SSH6], 2],
  ['low port that the program took', [{ ...SSH4, portOrigin: 'bind' }], 0],
];
for (const [what, entries, expected] of inbound) {
  test(`${what}: ${expected === 0 ? 'did not come in, and ends' : 'came in, and lives'}`, () => {
    const connections = entries.filter(({ state }) => state !== TCP_LISTEN);
    const { length } = inboundConnections(entries, OWN);
    assert.equal(length, expected);
    assert.equal(chosen(entries).length, connections.length - expected);
  });
}

test('what came in is listed in every state, with both ends, but not from this host itself', () => {
  const states = [TCP_ESTABLISHED, TCP_SYN_RECV, 8, 9];
  const entries = [
    listener(':: 22'),
    ...states.map((state) => ({ ...SSH6, state })),
    socket('127.0.0.1 22', '127.0.0.1 50000'),
    socket(`${HOST6} 22`, `${HOST6} 50001`),
  ];
  const local = { address: HOST6, port: 22 };
  const remote = { address: FAR6, port: 50000 };
  assert.deepEqual(
    inboundConnections(entries, OWN),
    states.map(() => ({ family: 2, local, remote })),
  );
});

test("whatever has one of the vNIC's addresses ends with it, whosever it is, but listeners", () => {
  const ends = [
    socket(`${VNIC4} 40000`, `${FAR4} 443`, { uid: 0, mark: BYPASS }),
    socket(`${VNIC4} 40000`, `${FAR4} 443`, { isInet6: true, inode: 0 }),
    socket('fd09::2 40000', `${FAR6} 443`, { protocol: 'udp' }),
    socket(`${VNIC4} 53`, '0.0.0.0 0', { protocol: 'udp', state: TCP_CLOSE, portOrigin: undefined }),
    socket(`${VNIC4} 0`, `${FAR4} 0`, { protocol: 'raw' }),
  ];
  const lives = [OUT4, OUT6, listener(`${VNIC4} 80`)];
  assert.deepEqual(fromAddresses([...lives, ...ends], new Set([VNIC4, 'fd09::2'])), ends);
});

test('a raw socket ends only when the kernel cannot take another for it', () => {
  const raw = (more: Partial<SocketEntry>) =>
    socket(`${HOST4} 0`, `${FAR4} 0`, { protocol: 'raw', rawProtocol: 89, ...more });
  const any = { address: '0.0.0.0', port: 0 };
  const one = raw({});
  for (const other of [
    raw({ uid: 0 }),
    raw({ uid: 0, remote: any }),
    raw({ uid: 0, local: any, remote: any, state: TCP_CLOSE }),
    raw({ uid: 0, mark: BYPASS }),
  ]) {
    assert.deepEqual(chosen([other, one]), []);
    assert.ok(!fromAddresses([other, one], new Set([HOST4])).includes(one));
  }
  for (const other of [
    raw({ uid: 0, rawProtocol: 1 }),
    raw({ uid: 0, ifindex: 3 }),
    raw({ uid: 0, local: { address: '192.0.2.3', port: 0 } }),
    raw({ uid: 0, remote: { address: '203.0.113.11', port: 0 } }),
    raw({ uid: 0, isInet6: true }),
    { ...one, protocol: 'udp', uid: 0 } as const,
  ]) {
    assert.deepEqual(chosen([other, one]), [one]);
  }
});

test('a kernel that cannot end sockets is refused with what it lacks', async (t) => {
  const ender = new SocketEnder();
  t.after(() => ender.close());
  t.mock.method(SockDiag.prototype, 'canDestroySockets', async () => false);
  await assert.rejects(ender.require(), { code: 2200003, message: /CONFIG_INET_DIAG_DESTROY/ });
});

test('no address, nothing to end', async (t) => {
  const ender = new SocketEnder();
  t.after(() => ender.close());
  assert.equal(await ender.endFrom(new Set()), 0);
});
