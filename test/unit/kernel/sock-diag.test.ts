/**
 * inet_diag messages, against bytes that Linux 6.18 sent (all fields but addresses, ports and states as they came), and
 * listings of this process's own sockets, which need no right. Ending sockets needs one: test/lab/sock-destroy.test.ts.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  decodeEntry,
  encodeQuery,
  encodeSocket,
  orphansHaveUid,
  type SocketEntry,
  type SocketQuery,
  stateMask,
  TCP_CLOSE,
  TCP_ESTABLISHED,
  TCP_LISTEN,
  TCP_STATES,
} from '../../../src/kernel/inet-diag.js';
import { InetSocket } from '../../../src/kernel/inet-socket.js';
import { SockDiag } from '../../../src/kernel/sock-diag.js';
import { SOCK_DGRAM, SOCK_STREAM, socketCookie } from '../../../src/kernel/socket-options.js';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');

const ATTRIBUTES = '08000f00 00000000 0c001500 01000000 00000000 06001600 52000000';
const ANSWERS = {
  listener: hex(`
    020a0000 00160000 0a010101 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
    be810000 00000000 00000000 00000000 80000000 00000000 95f85800 05000800 00000000 ${ATTRIBUTES}`),
  marked: hex(`
    02010000 b3940016 0a010101 00000000 00000000 00000000 0a010101 00000000 00000000 00000000 00000000
    bf810000 00000000 00000000 00000000 00000000 00000000 96f85800 05000800 00000000
    08000f00 42000080 0c001500 01000000 00000000 06001600 52000000`),
  v6OnlyListener: hex(`
    0a0a0000 15b30000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
    c4810000 00000000 00000000 00000000 80000000 00000000 98f85800 05000800 00000000 05000b00 01000000 ${ATTRIBUTES}`),
  mapped: hex(`
    0a080000 b39a0016 00000000 00000000 0000ffff 0a010101 00000000 00000000 0000ffff 0a010101 00000000
    c5810000 00000000 00000000 00000000 01000000 00000000 99f85800 05000800 01000000 ${ATTRIBUTES}`),
  udpBound: hex(`
    0a070000 88530000 fd010000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000000
    c6810000 00000000 00000000 00000000 00000000 00000000 9bf85800 05000800 00000000 05000b00 01000000 ${ATTRIBUTES}`),
  /** Closed with unsent data by uid 2001, which has ended since. */
  orphan: hex(`
    02040102 ac620050 0a010101 00000000 00000000 00000000 0a010102 00000000 00000000 00000000 00000000
    a2b10000 00000000 20020000 00000000 71170000 d1070000 00000000 05000800 03000000 ${ATTRIBUTES}`),
  halfOpen: hex(`
    02030100 0016855a 0a010101 00000000 00000000 00000000 0a010102 00000000 00000000 00000000 00000000
    ca810000 00000000 18020000 00000000 00000000 00000000 00000000 08000f00 00000000`),
  /** A TIME_WAIT socket, listed as FIN_WAIT2. */
  remainder: hex(`
    02050300 b3a40016 0a010101 00000000 00000000 00000000 0a010101 00000000 00000000 00000000 00000000
    c0810000 00000000 48e80000 00000000 00000000 00000000 00000000 08000f00 00000000`),
};

const TCP: SocketQuery = { protocol: 'tcp', states: TCP_STATES };
const decode = (answer: Buffer, query: SocketQuery = TCP, haveUid = true): SocketEntry =>
  decodeEntry(answer, query, haveUid) ?? assert.fail('no socket');

test('a connection is read with its addresses, owner, mark and cgroup', () => {
  const { sockid, ...entry } = decode(ANSWERS.marked, { ...TCP, filter: { portOrigin: 'kernel' } });
  assert.deepEqual(entry, {
    protocol: 'tcp',
    family: 1,
    isInet6: false,
    state: TCP_ESTABLISHED,
    local: { address: '10.1.1.1', port: 45972 },
    remote: { address: '10.1.1.1', port: 22 },
    ifindex: 0,
    uid: 0,
    inode: 5830806,
    mark: 0x80000042,
    cgroup: 1n,
    portOrigin: 'kernel',
    isV6Only: false,
    rawProtocol: 0,
  });
  assert.deepEqual(sockid, ANSWERS.marked.subarray(4, 52));
});

test('an AF_INET6 socket with mapped addresses is IPv4, connected or not', () => {
  const connected = decode(ANSWERS.mapped);
  assert.deepEqual(
    [connected.family, connected.isInet6, connected.local.address, connected.remote.address],
    [1, true, '10.1.1.1', '10.1.1.1'],
  );
  const unconnected = Buffer.from(ANSWERS.mapped);
  unconnected.fill(0, 24, 40);
  const { family, local, remote } = decode(unconnected);
  assert.deepEqual([family, local.address, remote.address], [1, '10.1.1.1', '0.0.0.0']);
});

test('IPv6 addresses come in their canonical form', () => {
  assert.deepEqual(decode(ANSWERS.udpBound, { protocol: 'udp', states: stateMask([TCP_CLOSE]) }).local, {
    address: 'fd01::1',
    port: 34899,
  });
  assert.deepEqual(decode(ANSWERS.v6OnlyListener).local, { address: '::', port: 5555 });
});

test('a listener says whether it takes IPv4', () => {
  assert.equal(decode(ANSWERS.v6OnlyListener).isV6Only, true);
  assert.equal(decode(ANSWERS.mapped).isV6Only, false);
});

test('an orphan has a uid only where the kernel keeps it', () => {
  assert.deepEqual([decode(ANSWERS.orphan).uid, decode(ANSWERS.orphan).inode], [2001, 0]);
  assert.equal(decode(ANSWERS.orphan, TCP, false).uid, undefined);
  assert.equal(decode(ANSWERS.marked, TCP, false).uid, 0);
});

test('orphans have a uid from Linux 6.17 on', () => {
  const releases = ['5.15.0-91-generic', '6.1.0-18-amd64', '6.16.9', '6.17.0', '6.18.44-fc', '7.0.0-rc1', ''];
  assert.deepEqual(releases.map(orphansHaveUid), [false, false, false, true, true, true, false]);
});

test('a half-open connection has no owner, and the remainder of a closed one is no socket', () => {
  const { uid, cgroup, remote } = decode(ANSWERS.halfOpen);
  assert.deepEqual([uid, cgroup, remote.port], [undefined, undefined, 34138]);
  assert.equal(decodeEntry(ANSWERS.remainder, TCP, true), undefined);
});

test('no bytes at all make the reader fail', () => {
  for (const answer of Object.values(ANSWERS)) {
    for (let length = 0; length < answer.length; length++) {
      const entry = decodeEntry(Buffer.from(answer.subarray(0, length)), TCP, true);
      if (length < 72) assert.equal(entry, undefined);
    }
  }
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 72, maxLength: 200 }), (bytes) => {
      const entry = decodeEntry(Buffer.from(bytes), TCP, true);
      if (entry) assert.match(entry.local.address, /^[0-9a-f:.]+$/);
    }),
  );
});

test('a socket is named by what the kernel said of it, in its own address family', () => {
  const request = encodeSocket(decode(ANSWERS.mapped));
  assert.equal(request.toString('hex'), `0a06000000000000${ANSWERS.mapped.subarray(4, 52).toString('hex')}`);
  const raw = encodeSocket({ ...decode(ANSWERS.marked), protocol: 'raw', rawProtocol: 89 });
  assert.deepEqual([...raw.subarray(0, 4)], [2, 255, 0, 89]);
});

test('a query for several addresses tries one after the other, and each jumps behind the last when it holds', () => {
  const query: SocketQuery = { ...TCP, filter: { localAddresses: ['10.0.0.1', 'fd00::1', '10.0.0.2'] } };
  const bytes = encodeQuery(query, 1).subarray(56).toString('hex');
  const expected = `
    4800 0100
    07 10 1400  02 20 0000 ffffffff 0a000001                          01 04 3400
    07 1c 2000  0a 80 0000 ffffffff fd000000000000000000000000000001  01 04 1400
    07 10 1400  02 20 0000 ffffffff 0a000002`;
  assert.equal(bytes, hex(expected).toString('hex'));
});

/** Of this process, on loopback, gone with the test. */
function ownSockets(t: test.TestContext) {
  const open = (type: number): InetSocket => {
    const socket = new InetSocket(type);
    t.after(() => socket.close());
    return socket;
  };
  return { tcp: () => open(SOCK_STREAM), udp: () => open(SOCK_DGRAM) };
}

test('the kernel lists sockets by protocol, state, who gave them their port, and address', async (t) => {
  const diag = new SockDiag();
  t.after(() => diag.close());
  const { udp } = ownSockets(t);
  const bound = udp();
  bound.bind({ address: '127.0.0.1', port: 0 });
  const connected = udp();
  connected.connect({ address: '127.0.0.1', port: 9 });
  const cookies = (entries: SocketEntry[]) => {
    const found = new Set(entries.map(({ sockid }) => sockid.readBigUInt64LE(40)));
    return [bound, connected].map(({ fd }) => found.has(socketCookie(fd)));
  };
  const list = async (states: number[], filter?: SocketQuery['filter']) =>
    cookies(await diag.list({ protocol: 'udp', states: stateMask(states), ...(filter && { filter }) }));
  const both = [TCP_ESTABLISHED, TCP_CLOSE];
  assert.deepEqual(await list(both), [true, true]);
  assert.deepEqual(await list([TCP_ESTABLISHED]), [false, true]);
  assert.deepEqual(await list([TCP_CLOSE]), [true, false]);
  assert.deepEqual(await list(both, { portOrigin: 'kernel' }), [true, true]);
  assert.deepEqual(await list(both, { portOrigin: 'bind' }), [false, false]);
  // Mapped addresses: the sockets are AF_INET6.
  for (const position of [0, 1, 2, 15]) {
    const localAddresses = Array.from({ length: 16 }, (_, index) => (index % 2 ? `fd00::${index}` : `10.0.0.${index}`));
    assert.deepEqual(await list(both, { localAddresses }), [false, false]);
    localAddresses[position] = '127.0.0.1';
    assert.deepEqual(await list(both, { localAddresses }), [true, true], `at ${position}`);
  }
  assert.deepEqual(
    cookies(await diag.list({ protocol: 'tcp', states: TCP_STATES, filter: { portOrigin: 'kernel' } })),
    [false, false],
  );
});

test('a port that a program asked for is told from one that the kernel chose', async (t) => {
  const diag = new SockDiag();
  t.after(() => diag.close());
  const { udp } = ownSockets(t);
  const first = udp();
  first.bind({ address: '::1', port: 0 });
  const port = await portOf(diag, first);
  first.close();
  const second = udp();
  second.bind({ address: '::1', port });
  const query = { protocol: 'udp', states: stateMask([TCP_CLOSE]) } as const;
  for (const portOrigin of ['kernel', 'bind'] as const) {
    const entries = await diag.list({ ...query, filter: { portOrigin } });
    const found = entries.find(({ sockid }) => sockid.readBigUInt64LE(40) === socketCookie(second.fd));
    assert.equal(found?.portOrigin, portOrigin === 'bind' ? 'bind' : undefined);
  }
});

async function portOf(diag: SockDiag, socket: InetSocket): Promise<number> {
  const entries = await diag.list({ protocol: 'udp', states: stateMask([TCP_CLOSE]) });
  const entry = entries.find(({ sockid }) => sockid.readBigUInt64LE(40) === socketCookie(socket.fd));
  return entry?.local.port ?? assert.fail('the socket is not listed');
}

test('sockets that cannot be listed are none', async (t) => {
  const diag = new SockDiag();
  t.after(() => diag.close());
  for (const protocol of ['raw', 'udplite'] as const) {
    assert.deepEqual(await diag.list({ protocol, states: stateMask([TCP_LISTEN]) }), []);
  }
});
