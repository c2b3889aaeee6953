import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { canonicalAddress } from '../../../../src/model/address.js';
import { Endpoint } from '../../../../src/tunnel/wireguard/endpoint.js';

const literal = fc.oneof(fc.ipV4(), fc.ipV6());
const port = fc.integer({ min: 1, max: 65_535 });

test('an IPv4 endpoint is the sockaddr_in6 of its mapped address', () => {
  const { sockaddr } = Endpoint.of('192.0.2.1', 51820);
  const expected = '0a00' + 'ca6c' + '00000000' + '00000000000000000000ffffc0000201' + '00000000';
  assert.equal(Buffer.from(sockaddr).toString('hex'), expected);
});

test('an IPv6 endpoint has its scope id in the byte order of the machine', () => {
  const { sockaddr } = Endpoint.of('fe80::1', 1, 0x01020304);
  const expected = '0a00' + '0001' + '00000000' + 'fe800000000000000000000000000001' + '04030201';
  assert.equal(Buffer.from(sockaddr).toString('hex'), expected);
});

test('an endpoint is written with brackets and zone as far as it needs them', () => {
  assert.equal(Endpoint.of('192.0.2.1', 5).toString(), '192.0.2.1:5');
  assert.equal(Endpoint.of('2001:DB8::0:1', 5).toString(), '[2001:db8::1]:5');
  assert.equal(Endpoint.of('fe80::1', 5, 7).toString(), '[fe80::1%7]:5');
  assert.equal(Endpoint.of('::ffff:192.0.2.1', 5).toString(), '192.0.2.1:5');
});

test('address, port and scope id come back as they were given', () => {
  fc.assert(
    fc.property(literal, port, fc.nat(), (address, portNumber, scopeId) => {
      const endpoint = Endpoint.of(address, portNumber, scopeId);
      const mapped = /^::ffff:0*([\da-f]{1,4}):0*([\da-f]{1,4})$/.exec(canonicalAddress(address) ?? '');
      if (!mapped) assert.equal(endpoint.address, canonicalAddress(address));
      assert.equal(endpoint.port, portNumber);
      assert.equal(endpoint.scopeId, scopeId);
    }),
  );
});

test('Endpoint.at() copies, and leaves the flow info out', () => {
  const memory = new Uint8Array(100);
  const original = Endpoint.of('2001:db8::1', 443, 3);
  memory.set(original.sockaddr, 50);
  memory.fill(0xee, 54, 58);
  const copy = Endpoint.at(memory, 50);
  memory.fill(0);
  assert.deepEqual(copy.sockaddr, original.sockaddr);
});

test('Endpoint.withLocalAt() takes our address with it, without the link, and none for zeros', () => {
  const memory = new Uint8Array(100);
  memory.set(Endpoint.of('2001:db8::1', 443).sockaddr, 10);
  memory.fill(7, 42, 62);
  const local = Uint8Array.of(...new Uint8Array(16).fill(7), 0, 0, 0, 0);
  assert.deepEqual(Endpoint.withLocalAt(memory, 10).local, local);
  assert.equal(Endpoint.at(memory, 10).local, undefined);
  memory.fill(0, 42, 58);
  assert.equal(Endpoint.withLocalAt(memory, 10).local, undefined);
});

test('endpoints are equal when the other is the same place and wants no other address of ours', () => {
  const at = (address: string, lastOfLocal: number): Endpoint => {
    const memory = new Uint8Array(60);
    memory.set(Endpoint.of(address, 1).sockaddr);
    memory[47] = lastOfLocal;
    return Endpoint.withLocalAt(memory, 0);
  };
  assert.equal(at('::1', 0).equals(at('::1', 0)), true);
  assert.equal(at('::1', 0).equals(at('::2', 0)), false);
  assert.equal(at('::1', 5).equals(at('::1', 5)), true);
  assert.equal(at('::1', 5).equals(at('::1', 6)), false);
  assert.equal(at('::1', 5).equals(at('::1', 0)), true);
  assert.equal(at('::1', 0).equals(at('::1', 5)), false);
});

test('isAt() sees every byte of address, port and scope id, and no other', () => {
  const endpoint = Endpoint.of('2001:db8::1', 443, 3);
  const memory = new Uint8Array(40);
  for (let changed = 0; changed < 28; changed++) {
    memory.set(endpoint.sockaddr, 12);
    memory[12 + changed] = (memory[12 + changed] as number) ^ 0x40;
    const matters = (changed >= 2 && changed < 4) || changed >= 8;
    assert.equal(endpoint.isAt(new DataView(memory.buffer), 12), !matters, `byte ${changed}`);
  }
});

test('Endpoint.of() refuses names, zones, ports and scope ids that are none, and says which', () => {
  assert.throws(() => Endpoint.of('example.org', 1), /^Error: "example\.org" is not an IP address$/);
  assert.throws(() => Endpoint.of('fe80::1%eth0', 1), /is not an IP address/);
  for (const wrong of [0, 65_536, 1.5, Number.NaN, -1]) {
    assert.throws(() => Endpoint.of('::1', wrong), new RegExp(`${wrong} is not a port`));
  }
  assert.throws(() => Endpoint.of('fe80::1', 1, 2 ** 32), /4294967296 is no scope id/);
});
