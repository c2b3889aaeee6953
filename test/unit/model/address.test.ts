/** IP literals and prefixes, against the URL standard's own parser and against integer arithmetic. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  addressBytes,
  canonicalAddress,
  clearHostBits,
  familyOf,
  isHostAddress,
  literalFamily,
  prefixContains,
  reservedHosts,
} from '../../../src/model/address.js';
import { IPV4, IPV6 } from '../../../src/model/vpn-types.js';

const literal = fc.oneof(fc.ipV4(), fc.ipV6());

test('literalFamily() refuses what other parsers take for an address', () => {
  for (const text of [
    '',
    ' 10.0.0.1',
    '10.0.0.1\n',
    '010.0.0.1',
    '10.0.0.256',
    '10.1',
    '0x0a.0.0.1',
    '167772161',
    '10.0.0.0/8',
    'fe80::1%eth0',
    '::%1',
    '[::1]',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8::',
    '00001::',
    '::ffff:010.0.0.1',
    '١.١.١.١',
    'localhost',
    `::${'0'.repeat(60)}`,
  ]) {
    assert.equal(literalFamily(text), undefined, JSON.stringify(text));
    assert.equal(canonicalAddress(text), undefined);
  }
});

test('canonicalAddress() gives RFC 5952 text', () => {
  const table: Record<string, string> = {
    '10.0.0.1': '10.0.0.1',
    '0.0.0.0': '0.0.0.0',
    '255.255.255.255': '255.255.255.255',
    '::': '::',
    '0:0:0:0:0:0:0:0': '::',
    '0::0': '::',
    '::1': '::1',
    '1::': '1::',
    '2001:DB8::00A0': '2001:db8::a0',
    '2001:db8:0:0:1:0:0:1': '2001:db8::1:0:0:1',
    '1:0:2:3:4:5:6:7': '1:0:2:3:4:5:6:7',
    '::2:3:4:5:6:7:8': '0:2:3:4:5:6:7:8',
    '1:2:3:4:5:6:7::': '1:2:3:4:5:6:7:0',
    '1:0:0:2:0:0:0:3': '1:0:0:2::3',
    'fe80:0:0:0::': 'fe80::',
    '::ffff:1.2.3.4': '::ffff:102:304',
    '::FFFF:102:304': '::ffff:102:304',
    '64:ff9b::192.0.2.33': '64:ff9b::c000:221',
  };
  for (const [text, canonical] of Object.entries(table)) assert.equal(canonicalAddress(text), canonical, text);
});

test('canonicalAddress() agrees with the URL standard on every literal', () => {
  fc.assert(
    fc.property(literal, (text) => {
      const host = text.includes(':') ? new URL(`http://[${text}]/`).hostname.slice(1, -1) : text;
      assert.equal(canonicalAddress(text), host);
      assert.equal(canonicalAddress(host), host);
    }),
    { numRuns: 2000 },
  );
});

test('familyOf() and addressBytes() give family and network byte order', () => {
  assert.equal(familyOf('10.0.0.1'), IPV4);
  assert.equal(familyOf('::ffff:10.0.0.1'), IPV6);
  assert.deepEqual([...addressBytes('192.0.2.255')], [192, 0, 2, 255]);
  assert.deepEqual([...addressBytes('2001:db8::a0:1')], [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa0, 0, 1]);
  assert.deepEqual([...addressBytes('::ffff:1.2.3.4')], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4]);
});

test('clearHostBits() is integer arithmetic', () => {
  fc.assert(
    fc.property(literal, fc.nat(128), (text, length) => {
      const bits = text.includes(':') ? 128 : 32;
      const prefixLength = Math.min(length, bits);
      const shift = BigInt(bits - prefixLength);
      assert.equal(integer(clearHostBits(text, prefixLength)), (integer(text) >> shift) << shift);
    }),
    { numRuns: 2000 },
  );
  assert.equal(clearHostBits('10.1.2.3', 0), '0.0.0.0');
  assert.equal(clearHostBits('fe80:ffff::1', 17), 'fe80:8000::');
});

test('prefixContains() compares the prefix, and never across families', () => {
  assert.ok(prefixContains({ address: '10.0.0.5', prefixLength: 24 }, '10.0.0.254'));
  assert.ok(!prefixContains({ address: '10.0.0.5', prefixLength: 24 }, '10.0.1.1'));
  assert.ok(prefixContains({ address: 'fd00::5', prefixLength: 63 }, 'fd00:0:0:1::9'));
  assert.ok(prefixContains({ address: '0.0.0.0', prefixLength: 0 }, '203.0.113.9'));
  assert.ok(!prefixContains({ address: '::', prefixLength: 0 }, '203.0.113.9'));
  assert.ok(!prefixContains({ address: '10.0.0.0', prefixLength: 8 }, '::ffff:10.0.0.1'));
});

test('reservedHosts() names network and broadcast address up to /30', () => {
  assert.deepEqual(reservedHosts({ address: '10.0.0.5', prefixLength: 30 }), ['10.0.0.4', '10.0.0.7']);
  assert.deepEqual(reservedHosts({ address: '200.0.0.5', prefixLength: 1 }), ['128.0.0.0', '255.255.255.255']);
  assert.deepEqual(reservedHosts({ address: '10.0.0.5', prefixLength: 31 }), []);
  assert.deepEqual(reservedHosts({ address: '10.0.0.5', prefixLength: 32 }), []);
  assert.deepEqual(reservedHosts({ address: 'fd00::', prefixLength: 64 }), []);
});

test('isHostAddress() refuses what no single host on a link can have', () => {
  for (const text of ['0.0.0.0', '127.0.0.1', '127.9.9.9', '224.0.0.1', '239.255.255.255', '255.255.255.255']) {
    assert.ok(!isHostAddress(text), text);
  }
  for (const text of ['::', '::1', 'ff02::1', '::ffff:7f00:1', '::ffff:a00:1']) assert.ok(!isHostAddress(text), text);
  for (const text of ['10.0.0.1', '126.255.255.255', '128.0.0.1', '223.255.255.255', 'fd00::1', 'fe80::1', '::2']) {
    assert.ok(isHostAddress(text), text);
  }
});

function integer(text: string): bigint {
  return BigInt(`0x${Buffer.from(addressBytes(text)).toString('hex')}`);
}
