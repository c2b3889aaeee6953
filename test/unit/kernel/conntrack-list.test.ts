import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readConnection } from '../../../src/kernel/conntrack-list.js';
import { NetlinkWriter } from '../../../src/kernel/netlink.js';
import { addressBytes } from '../../../src/model/address.js';
import { IPV4, IPV6 } from '../../../src/model/vpn-types.js';

const NESTED = 0x8000;
const NETLINK_HEADER = 16;

/** As the kernel writes it: struct nfgenmsg, then the tuple of the first packet, then that of the answers. */
function entry(from: string, to: string, ports?: [from: number, to: number]): Buffer {
  const ip = from.includes(':') ? { from: 3, to: 4 } : { from: 1, to: 2 };
  const writer = new NetlinkWriter();
  const port = (value: number) => Buffer.from([value >> 8, value & 255]);
  const tuple = (type: number, ends: [string, string]) =>
    writer.nested(type | NESTED, () => {
      writer.nested(1 | NESTED, () => {
        writer.attribute(ip.from, addressBytes(ends[0]));
        writer.attribute(ip.to, addressBytes(ends[1]));
      });
      writer.nested(2 | NESTED, () => {
        writer.attribute(1, Buffer.from([17]));
        if (ports === undefined) return;
        writer.attribute(2, port(ports[0]));
        writer.attribute(3, port(ports[1]));
      });
    });
  writer.begin(0x100, 0, 1, Buffer.from([2, 0, 0, 0]));
  tuple(1, [from, to]);
  tuple(2, [to, from]);
  writer.end();
  return Buffer.from(writer.bytes()).subarray(NETLINK_HEADER);
}

test('a connection is read by its first packet', () => {
  for (const [family, from, to] of [
    [IPV4, '192.0.2.1', '198.51.100.2'],
    [IPV6, '2001:db8::1', '2001:db8:2::2'],
  ] as const) {
    assert.deepEqual(readConnection(entry(from, to, [5060, 40_000]), family), {
      protocol: 17,
      from: { address: from, port: 5060 },
      to: { address: to, port: 40_000 },
    });
  }
});

test('what has no ports, or is cut off, is none', () => {
  assert.equal(readConnection(entry('192.0.2.1', '198.51.100.2'), IPV4), undefined);
  const whole = entry('192.0.2.1', '198.51.100.2', [1, 2]);
  for (let length = 0; length < 40; length += 4) {
    assert.equal(readConnection(whole.subarray(0, length), IPV4), undefined, `${length} bytes`);
  }
});
