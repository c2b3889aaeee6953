/** The comparison of captured packets with the exceptions: each field alone, all together, and what must not pass. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type DepartedPacket,
  describePacket,
  discoveryTarget,
  isExplainedBy,
  type LeakException,
  unexplained,
} from '../../lab/lib/leak-check.js';

const UDP: DepartedPacket = {
  link: 'eth0',
  timeMs: 0,
  family: 1,
  protocol: 'udp',
  station: undefined,
  source: '192.168.50.2',
  destination: '203.0.113.10',
  sourcePort: 40000,
  destinationPort: 53,
  hopLimit: 64,
  tcpFlags: undefined,
  icmpType: undefined,
  length: 32,
  payload: new Uint8Array(),
};
const TCP: DepartedPacket = {
  ...UDP,
  family: 2,
  protocol: 'tcp',
  source: 'fd50::2',
  destination: '2001:db8:f::10',
  tcpFlags: 0x14,
};
const NDP: DepartedPacket = {
  ...TCP,
  protocol: 'icmpv6',
  destination: 'ff02::1:ff00:9',
  sourcePort: undefined,
  destinationPort: undefined,
  tcpFlags: undefined,
  icmpType: 135,
  hopLimit: 255,
  payload: Buffer.from('8700000000000000fd500000000000000000000000000009', 'hex'),
};
const ARP: DepartedPacket = {
  ...UDP,
  family: undefined,
  protocol: 'arp',
  destination: '192.168.50.9',
  sourcePort: undefined,
  destinationPort: undefined,
  hopLimit: undefined,
};
const PACKETS = { UDP, TCP, NDP, ARP };
const NAMES = Object.keys(PACKETS) as (keyof typeof PACKETS)[];

const exception = (fields: Partial<LeakException>): LeakException => ({ kind: 'k', uid: 0, reason: 'r', ...fields });

/** Which of the packets an exception with these fields explains. */
const explained = (fields: Partial<LeakException>) =>
  NAMES.filter((name) => isExplainedBy(PACKETS[name], exception(fields)));

test('isExplainedBy() asks for each field that the exception has', () => {
  assert.deepEqual(explained({ family: 4 }), ['UDP', 'ARP']);
  assert.deepEqual(explained({ family: 6 }), ['TCP', 'NDP']);
  assert.deepEqual(explained({ protocol: 'arp' }), ['ARP']);
  assert.deepEqual(explained({ icmpTypes: [134, 135] }), ['NDP']);
  assert.deepEqual(explained({ icmpTypes: [136] }), []);
  assert.deepEqual(explained({ sourcePort: 40000 }), ['UDP', 'TCP']);
  assert.deepEqual(explained({ destinationPort: 54 }), []);
  assert.deepEqual(explained({ destinations: ['192.168.0.0/16', '203.0.113.0/25'] }), ['UDP', 'ARP']);
  assert.deepEqual(explained({ destinations: ['2001:db8:f::10', '::ffff:203.0.113.10'] }), ['TCP']);
  assert.deepEqual(explained({ destinations: [] }), []);
  assert.deepEqual(explained({ links: ['eth1'] }), []);
  assert.deepEqual(explained({ hopLimit: 255 }), ['NDP']);
  assert.deepEqual(explained({ tcpFlags: 'rst' }), ['TCP']);
  assert.equal(isExplainedBy({ ...TCP, tcpFlags: 0x10 }, exception({ tcpFlags: 'rst' })), false);
});

test('isExplainedBy() wants all fields at once, and whose VPN it is describes no packet', () => {
  const dns = { protocol: 'udp', destinationPort: 53, destinations: ['203.0.113.0/24'] } as const;
  assert.deepEqual(explained({ ...dns, destinations: [...dns.destinations], lockdown: true, uid: 2001 }), ['UDP']);
  assert.deepEqual(explained({ protocol: 'udp', destinationPort: 54 }), []);
  assert.deepEqual(explained({ protocol: 'udp', links: ['eth1'] }), []);
});

test('isExplainedBy() leaves the socket to the test, which must say so', () => {
  for (const [socket, fact] of [
    ['protected', 'isProtected'],
    ['inbound', 'isInbound'],
  ] as const) {
    const other = fact === 'isProtected' ? 'isInbound' : 'isProtected';
    assert.equal(isExplainedBy(UDP, exception({ socket })), false);
    assert.equal(isExplainedBy(UDP, exception({ socket }), { [other]: () => true }), false);
    assert.equal(isExplainedBy(UDP, exception({ socket }), { [fact]: () => true }), true);
  }
});

test('unexplained() gives the packets that no exception explains and the test did not call uncovered', () => {
  const lan = exception({ destinations: ['192.168.50.0/24'] });
  const neighbours = exception({ protocol: 'icmpv6', icmpTypes: [135], hopLimit: 255 });
  const all = Object.values(PACKETS);
  assert.deepEqual(unexplained(all, []), all);
  assert.deepEqual(unexplained(all, [lan, neighbours]), [UDP, TCP]);
  assert.deepEqual(unexplained(all, [lan, neighbours], { isUncovered: ({ family }) => family === 2 }), [UDP]);
});

test('unexplained() refuses an exception that explains everything, or has a field nobody compares', () => {
  assert.throws(() => unexplained([], [exception({})]), /k explains every packet/);
  assert.throws(() => unexplained([], [exception({ lockdown: true })]), /k explains every packet/);
  const misspelt = { ...exception({ protocol: 'udp' }), destination: '192.168.50.0/24' };
  assert.throws(() => unexplained([], [misspelt]), /unknown fields: destination/);
  assert.equal(isExplainedBy(UDP, misspelt), false);
});

test('describePacket() says link, protocol, ends, and what is special', () => {
  assert.deepEqual(Object.values(PACKETS).map(describePacket), [
    'eth0 udp 192.168.50.2:40000 > 203.0.113.10:53',
    'eth0 tcp fd50::2:40000 > 2001:db8:f::10:53 flags 14',
    'eth0 icmpv6 fd50::2 > ff02::1:ff00:9 type 135 for fd50::9',
    'eth0 arp 192.168.50.2 > 192.168.50.9',
  ]);
  assert.equal(discoveryTarget(UDP), undefined);
});
