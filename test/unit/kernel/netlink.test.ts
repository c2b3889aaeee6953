/**
 * Netlink framing, against bytes that Linux 6.18 sent and that iproute2 6.1 sends (`strace -e sendmsg ip …`), and against
 * itself. The answers were received in an empty network namespace, with NETLINK_EXT_ACK and with or without NETLINK_CAP_ACK.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  acknowledgementError,
  NetlinkWriter,
  NLMSG_DONE,
  NLMSG_ERROR,
  readAcknowledgement,
  readAttributes,
  readMessages,
} from '../../../src/kernel/netlink.js';
import type { NetlinkRequest } from '../../../src/kernel/netlink-socket.js';
import { addRoute, addRule, RTM_NEWRULE } from '../../../src/kernel/rtnetlink.js';

/** One request alone. */
function encode(request: NetlinkRequest, writer: NetlinkWriter): Buffer {
  request.write(writer, 0, 0);
  return writer.bytes();
}

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');

/** Captured answers: to `route add 10.0.0.0/8 via 192.0.2.1 onlink` without a device, and others as named. */
const ANSWERS = {
  success: hex('24000000 0200 0001 07000000 7df279d5 00000000 20000000 1000 0500 07000000 00000000'),
  gatewayCapped: hex(`
    4c000000 0200 0003 07000000 500b0000 edffffff 34000000 1800 0506 07000000 00000000
    2700 0100 4e657874686f702064657669636520726571756972656420666f72206f6e6c696e6b0000`),
  gatewayWhole: hex(`
    70000000 0200 0002 07000000 040e0db0 edffffff 34000000 1800 0506 07000000 00000000
    0208000000b10001 04000000 08000100 0a000000 08000f00 50c30000 08000500 c0000201
    2700 0100 4e657874686f702064657669636520726571756972656420666f72206f6e6c696e6b0000`),
  /** No such device, which the kernel does not explain. */
  unexplained: hex('24000000 0200 0001 07000000 1c149dc5 edffffff 34000000 1800 0506 07000000 00000000'),
  /** A FRA_PRIORITY of two bytes: the offset of the attribute, and what it should have been. */
  offset: hex(`
    68000000 0200 0003 07000000 960c0000 deffffff 2c000000 2000 0506 07000000 00000000
    1600 0100 4572726f722070617273696e67206d7367000000 0800 0200 24000000
    2400 0480 0c000400 0000000000000000 0c000500 ffffffff00000000 08000100 04000000`),
};
/** The three rules of a new network namespace, and the end of the dump. */
const DUMP = hex(`
  34000000 2000 0200 09000000 960c0000 02000000ff000001 00000000 08000f00 ff000000 08000e00 ffffffff 05001500 02000000
  3c000000 2000 0200 09000000 960c0000 02000000fe000001 00000000 08000f00 fe000000 08000e00 ffffffff 05001500 02000000 08000600 fe7f0000
  3c000000 2000 0200 09000000 960c0000 02000000fd000001 00000000 08000f00 fd000000 08000e00 ffffffff 05001500 02000000 08000600 ff7f0000
  14000000 0300 0200 09000000 960c0000 00000000`);

const only = (datagram: Buffer) => {
  const [message, ...more] = [...readMessages(datagram)];
  assert.ok(message && more.length === 0);
  return message;
};

test('an acknowledgement of success has errno 0', () => {
  const message = only(ANSWERS.success);
  assert.equal(message.type, NLMSG_ERROR);
  assert.equal(message.sequence, 7);
  assert.deepEqual(readAcknowledgement(message), { errno: 0 });
});

test("the kernel's explanation is read, with the request echoed whole and capped", () => {
  for (const answer of [ANSWERS.gatewayCapped, ANSWERS.gatewayWhole]) {
    const ack = readAcknowledgement(only(answer));
    assert.deepEqual(ack, { errno: 19, extendedAck: { message: 'Nexthop device required for onlink' } });
    const error = acknowledgementError('RTM_NEWROUTE', 'unicast 10.0.0.0/8 table 50000', ack);
    assert.equal(
      error.message,
      'RTM_NEWROUTE unicast 10.0.0.0/8 table 50000: ENODEV (Nexthop device required for onlink)',
    );
  }
});

test('an error that the kernel does not explain has only its errno', () => {
  assert.deepEqual(readAcknowledgement(only(ANSWERS.unexplained)), { errno: 19 });
});

test('the offset of the attribute at fault is read', () => {
  const ack = readAcknowledgement(only(ANSWERS.offset));
  assert.deepEqual(ack, { errno: 34, extendedAck: { message: 'Error parsing msg', offset: 36 } });
});

test('a dump is split into its messages, and their attributes are found', () => {
  const messages = [...readMessages(DUMP)];
  assert.deepEqual(
    messages.map(({ type, sequence }) => [type, sequence]),
    [RTM_NEWRULE, RTM_NEWRULE, RTM_NEWRULE, NLMSG_DONE].map((type) => [type, 9]),
  );
  const priorities = messages.slice(0, 3).map(({ payload }) => readAttributes(payload, 12).get(6)?.readUInt32LE(0));
  assert.deepEqual(priorities, [undefined, 32766, 32767]);
});

test('a datagram cut anywhere yields its whole messages and nothing else, and no reader fails', () => {
  const whole = [...readMessages(DUMP)].map(({ payload }) => payload);
  for (let length = 0; length <= DUMP.length; length++) {
    const cut = [...readMessages(Buffer.from(DUMP.subarray(0, length)))];
    assert.deepEqual(
      cut.map(({ payload }) => payload),
      whole.slice(0, cut.length),
    );
  }
  for (const answer of Object.values(ANSWERS)) {
    for (let length = 0; length < answer.length; length++) {
      assert.deepEqual([...readMessages(answer.subarray(0, length))], []);
      // A payload that is shorter than its kind needs, as no kernel sends it.
      const message = {
        type: NLMSG_ERROR,
        flags: answer.readUInt16LE(6),
        sequence: 7,
        payload: answer.subarray(16, length),
      };
      assert.notEqual(readAcknowledgement(message).errno, 0, `cut at ${length}`);
      if (answer === ANSWERS.success && length >= 20) break;
    }
  }
});

test('an attribute or message shorter than its own header ends the walk', () => {
  for (let length = 0; length < 4; length++) {
    const payload = hex(`0500 0100 ff000000 0${length}00 0200 00000000`);
    assert.deepEqual([...readAttributes(payload, 0).keys()], [1]);
  }
  for (let length = 0; length < 16; length++) {
    const datagram = Buffer.concat([ANSWERS.success, ANSWERS.success]);
    datagram.writeUInt32LE(length, ANSWERS.success.length);
    assert.equal([...readMessages(datagram)].length, 1);
  }
});

test('no bytes at all make a reader fail or run on', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, plausible) => {
      const datagram = Buffer.from(bytes);
      if (plausible && datagram.length >= 16) datagram.writeUInt32LE(datagram.length, 0);
      for (const message of readMessages(datagram)) {
        readAcknowledgement(message);
        for (const [, value] of readAttributes(message.payload, 12)) assert.ok(value.length <= datagram.length);
      }
    }),
  );
});

test('what the writer writes, the readers read', () => {
  const attribute = fc.tuple(fc.integer({ min: 1, max: 0x3fff }), fc.uint8Array({ maxLength: 300 }));
  const message = fc.record({
    type: fc.integer({ min: 16, max: 0xffff }),
    flags: fc.integer({ min: 0, max: 0xffff }),
    sequence: fc.integer({ min: 0, max: 0xffffffff }),
    header: fc.uint8Array({ minLength: 0, maxLength: 20 }),
    attributes: fc.uniqueArray(attribute, { maxLength: 20, selector: ([type]) => type }),
  });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 30 }), (messages) => {
      const writer = new NetlinkWriter();
      for (const each of messages) {
        writer.begin(each.type, each.flags, each.sequence, each.header);
        for (const [type, value] of each.attributes) writer.attribute(type, value);
        writer.end();
      }
      const read = [...readMessages(writer.bytes())];
      assert.equal(writer.bytes().length, writer.length);
      assert.equal(read.length, messages.length);
      for (const [index, each] of messages.entries()) {
        const { type, flags, sequence, payload } = read[index] ?? assert.fail('a message is missing');
        assert.deepEqual([type, flags, sequence], [each.type, each.flags, each.sequence]);
        assert.deepEqual(new Uint8Array(payload.subarray(0, each.header.length)), each.header);
        const attributes = readAttributes(payload, each.header.length);
        assert.deepEqual(
          [...attributes].map(([key, value]) => [key, new Uint8Array(value)]),
          each.attributes,
        );
      }
    }),
  );
});

test('padding is zero, whatever stood in the buffer', () => {
  const writer = new NetlinkWriter();
  writer.begin(16, 0, 0, Uint8Array.of(0xff));
  writer.attribute(1, Uint8Array.of(0xff));
  writer.attributeString(2, 'lo');
  writer.end();
  assert.equal(
    writer.bytes().toString('hex'),
    '24000000 1000 0000 00000000 00000000 ff000000 0500 0100 ff000000 0700 0200 6c6f0000'.replaceAll(' ', ''),
  );
});

test('a nested attribute has the length of all it holds', () => {
  const writer = new NetlinkWriter();
  writer.begin(16, 0, 0, new Uint8Array(0));
  writer.nested(26, () => {
    writer.nested(10, () => writer.attribute(8, Uint8Array.of(1)));
    writer.attributeU32(2, 0xffffffff);
  });
  writer.end();
  const outer = readAttributes(only(writer.bytes()).payload, 0).get(26) ?? assert.fail();
  const inner = readAttributes(outer, 0);
  assert.deepEqual([...inner.keys()], [10, 2]);
  assert.equal(inner.get(2)?.readUInt32LE(0), 0xffffffff);
  assert.deepEqual([...(readAttributes(inner.get(10) ?? assert.fail(), 0).get(8) ?? [])], [1]);
});

test('a rule has the attributes that ip(8) sends for it', () => {
  const bytes = encode(
    addRule({
      family: 1,
      priority: 10000,
      action: 'goto',
      target: 11000,
      iif: 'lo',
      fwmark: { value: 0, mask: 0xff000000 },
      uidRange: { first: 5, last: 6 },
    }),
    new NetlinkWriter(),
  );
  const { type, flags, payload } = only(bytes);
  assert.deepEqual([type, flags, bytes.length], [RTM_NEWRULE, 0x600, 88]);
  assert.deepEqual([...payload.subarray(0, 12)], [2, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
  const attributes = readAttributes(payload, 12);
  const sent: [type: number, value: string][] = [
    [6, '10270000'],
    [10, '00000000'],
    [16, '000000ff'],
    [20, '0500000006000000'],
    [3, '6c6f00'],
    [4, 'f82a0000'],
    [21, '02'],
  ];
  for (const [key, value] of sent) assert.equal(attributes.get(key)?.toString('hex'), value, `attribute ${key}`);
  assert.equal(attributes.size, sent.length);
});

test('a route through a gateway is on-link, of universe scope, and names its table and source', () => {
  const bytes = encode(
    addRoute(
      {
        type: 'unicast',
        family: 2,
        destination: '2001:db8::',
        prefixLength: 32,
        table: 50030,
        protocol: 177,
        metric: 1,
        gateway: 'fd03::1',
        source: 'fd03::5',
      },
      7,
    ),
    new NetlinkWriter(),
  );
  const { payload } = only(bytes);
  assert.deepEqual([...payload.subarray(0, 12)], [10, 32, 0, 0, 0, 177, 0, 1, 4, 0, 0, 0]);
  const attributes = [...readAttributes(payload, 12)].map(([key, value]) => [key, value.toString('hex')]);
  assert.deepEqual(attributes, [
    [1, '20010db8000000000000000000000000'],
    [15, '6ec30000'],
    [6, '01000000'],
    [4, '07000000'],
    [5, 'fd030000000000000000000000000001'],
    [7, 'fd030000000000000000000000000005'],
  ]);
});
