import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { decodeAnswer, encodeQuestion, saysNoSuchName, TYPE_A, TYPE_AAAA } from '../../../src/cli/dns-message.js';

/**
 * dig +noedns @SERVER A wg.example.org, as dnsmasq 2.90 answers it with
 * --cname=wg.example.org,peer.example.org --host-record=peer.example.org,198.51.100.2
 */
const QUESTION = Buffer.from(
  '1234010000010000000000000277670765786 16d706c65036f72670000010001'.replaceAll(' ', ''),
  'hex',
);
const ANSWER = Buffer.from(
  '1234858000010002000000000277670765786 16d706c65036f72670000010001'.replaceAll(' ', '') +
    'c00c0005000100000000000704706565 72c00f'.replaceAll(' ', '') +
    'c02c0001000100000000 0004c6336402'.replaceAll(' ', ''),
  'hex',
);

function changed(at: number, byte: number): Buffer {
  const copy = Buffer.from(ANSWER);
  copy[at] = byte;
  return copy;
}

test('encodeQuestion() asks for one name, with or without its dot', () => {
  assert.deepEqual(encodeQuestion(0x1234, 'wg.example.org', TYPE_A), QUESTION);
  assert.deepEqual(encodeQuestion(0x1234, 'wg.example.org.', TYPE_A), QUESTION);
  assert.equal(encodeQuestion(1, 'a', TYPE_AAAA)?.readUInt16BE(15), TYPE_AAAA);
});

test('encodeQuestion() refuses what is no name of DNS', () => {
  for (const name of ['', '.', 'a..b', `${'x'.repeat(64)}.org`, 'a b', 'ä.org', `${'x.'.repeat(127)}xx`]) {
    assert.equal(encodeQuestion(1, name, TYPE_A), undefined, name);
  }
  assert.ok(encodeQuestion(1, `${'x.'.repeat(126)}x`, TYPE_A));
});

test('decodeAnswer() finds the addresses behind an alias', () => {
  assert.deepEqual(decodeAnswer(ANSWER, QUESTION), ['198.51.100.2']);
});

test('decodeAnswer() reads IPv6 addresses, and leaves other types and classes alone', () => {
  const question = encodeQuestion(7, 'a.b', TYPE_AAAA) as Buffer;
  const header = Buffer.from('0007818000010003 00000000'.replaceAll(' ', ''), 'hex');
  const record = (type: string, kind: string, data: string) =>
    Buffer.from(`c00c${type}${kind}0000003c${(data.length / 2).toString(16).padStart(4, '0')}${data}`, 'hex');
  const answer = Buffer.concat([
    header,
    question.subarray(12),
    record('0001', '0001', 'c0000201'),
    record('001c', '0003', '20010db8000000000000000000000002'),
    record('001c', '0001', '20010db8000000000000000000000001'),
  ]);
  assert.deepEqual(decodeAnswer(answer, question), ['2001:db8::1']);
});

test('decodeAnswer() takes no answer to another question, and none that says the resolver could not tell', () => {
  const wrong: [what: string, at: number, byte: number][] = [
    ['another id', 1, 0x35],
    ['a question', 2, 0x05],
    ['another operation', 2, 0x8d],
    ['SERVFAIL', 3, 0x82],
    ['NXDOMAIN', 3, 0x83],
    ['two questions', 5, 2],
    ['another name', 13, 0x78],
    ['another type', 29, 0x1c],
  ];
  for (const [what, at, byte] of wrong) assert.equal(decodeAnswer(changed(at, byte), QUESTION), undefined, what);
  for (const [what, at, byte] of wrong) {
    assert.equal(saysNoSuchName(changed(at, byte), QUESTION), what === 'NXDOMAIN', what);
  }
  // 0x20 randomisation, and resolvers that change the case, are fine.
  assert.deepEqual(decodeAnswer(changed(13, 'W'.charCodeAt(0)), QUESTION), ['198.51.100.2']);
});

test('decodeAnswer() without records is an empty list', () => {
  const none = Buffer.from(ANSWER.subarray(0, QUESTION.length));
  none.writeUInt16BE(0, 6);
  assert.deepEqual(decodeAnswer(none, QUESTION), []);
});

test('decodeAnswer() takes nothing from a message that is cut, and ends with any bytes', () => {
  for (let length = 0; length < ANSWER.length; length++) {
    assert.equal(decodeAnswer(ANSWER.subarray(0, length), QUESTION), undefined, `${length} bytes`);
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (tail) => {
      const addresses = decodeAnswer(Buffer.concat([ANSWER.subarray(0, QUESTION.length), tail]), QUESTION);
      assert.ok(addresses === undefined || addresses.length <= 2);
    }),
  );
});
