import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  CALLER_LINE_BYTES,
  encodeLine,
  FrameReader,
  MAXIMUM_FDS,
  STRANGER_LINE_BYTES,
} from '../../../src/ipc/frame.js';
import { ProtocolError } from '../../../src/model/errors.js';

const MESSAGES = [
  { jsonrpc: '2.0', id: 1, method: 'hello', params: { protocol: 1 } },
  { id: 'Ω, \u{1f510} and "\n"', fds: 1 },
  { fds: 2, params: {} },
  {},
];
const FDS = [[], [11], [12, 13], []];
const STREAM = Buffer.concat(MESSAGES.map(encodeLine));
/** Where each message begins in the stream; descriptors come with that byte. */
const STARTS = MESSAGES.map((_, index) => Buffer.concat(MESSAGES.slice(0, index).map(encodeLine)).length);

/** Feeds the stream in pieces that end at the cuts, each with the descriptors of the messages that begin in it. */
function feed(cuts: readonly number[]): { message: object; fds: number[] }[] {
  const reader = new FrameReader();
  const ends = [...new Set([...cuts, STREAM.length])].sort((a, b) => a - b);
  const frames: { message: object; fds: number[] }[] = [];
  let from = 0;
  for (const to of ends) {
    const fds = STARTS.flatMap((start, index) => (start >= from && start < to ? (FDS[index] ?? []) : []));
    frames.push(...reader.push(STREAM.subarray(from, to), fds));
    from = to;
  }
  assert.equal(reader.pendingBytes, 0);
  assert.deepEqual(reader.unclaimed(), []);
  return frames;
}

const EXPECTED = MESSAGES.map((message, index) => ({ message, fds: FDS[index] }));

function pushAll(reader: FrameReader, data: string | Uint8Array, fds: readonly number[] = []) {
  return [...reader.push(typeof data === 'string' ? Buffer.from(data) : data, fds)];
}

function refuses(data: string | Uint8Array, fds: readonly number[], reason: RegExp): void {
  const reader = new FrameReader();
  assert.throws(
    () => pushAll(reader, data, fds),
    (error) => error instanceof ProtocolError && reason.test(error.message),
    String(data).slice(0, 80),
  );
}

test('FrameReader yields the same messages and descriptors at every split point', () => {
  for (let cut = 0; cut <= STREAM.length; cut++) assert.deepEqual(feed([cut]), EXPECTED, `cut at ${cut}`);
});

test('FrameReader yields the same messages and descriptors byte by byte, and at any cuts', () => {
  assert.deepEqual(feed(Array.from(STREAM, (_, index) => index)), EXPECTED);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: STREAM.length })), (cuts) => {
      assert.deepEqual(feed(cuts), EXPECTED);
    }),
  );
});

test('FrameReader does not keep what the caller may write over', () => {
  const reader = new FrameReader();
  const piece = Buffer.from('{"a":');
  assert.deepEqual(pushAll(reader, piece), []);
  piece.fill(0);
  assert.deepEqual(pushAll(reader, '1}\n'), [{ message: { a: 1 }, fds: [] }]);
});

test('a line takes the oldest descriptors, and as many as it claims', () => {
  const reader = new FrameReader();
  assert.deepEqual(pushAll(reader, '{"fds":', [4, 5, 6]), []);
  assert.deepEqual(pushAll(reader, '2}\n{"fds":1}\n'), [
    { message: { fds: 2 }, fds: [4, 5] },
    { message: { fds: 1 }, fds: [6] },
  ]);
  assert.deepEqual(reader.unclaimed(), []);
});

test('unclaimed() hands out what no line has taken, once', () => {
  const reader = new FrameReader();
  pushAll(reader, '{"fds":1}\n{"half', [4, 5, 6]);
  assert.deepEqual(reader.unclaimed(), [5, 6]);
  assert.deepEqual(reader.unclaimed(), []);
});

test('descriptors that no line claims end the stream, and are there to be closed', () => {
  for (const data of ['{}\n', '{"fds":0}\n{}\n', '{"fds":1}\n']) {
    const reader = new FrameReader();
    assert.throws(() => pushAll(reader, data, [4, 5]), /descriptors? came that no line claims/);
    assert.deepEqual(reader.unclaimed(), data.includes('1') ? [5] : [4, 5]);
  }
});

test('more descriptors than a line may claim are refused before the line is complete', () => {
  const many = Array.from({ length: MAXIMUM_FDS + 1 }, (_, index) => 10 + index);
  refuses('{"fds":', many, /more than 8/);
  const reader = new FrameReader();
  for (const fd of many.slice(1)) pushAll(reader, ' ', [fd]);
  assert.throws(() => pushAll(reader, ' ', [99]), /more than 8/);
  assert.deepEqual(reader.unclaimed(), [...many.slice(1), 99]);
});

test('"fds" is a whole number from 0 to 8, and not more than came', () => {
  for (const claim of ['9', '-1', '0.5', '1e99', '"1"', 'true', '{}', '[1]']) {
    refuses(`{"fds":${claim}}\n`, [4], /"fds" is not 0\.\.8/);
  }
  refuses('{"fds":2}\n', [4], /"fds" is 2, but 1 came/);
  refuses('{"fds":1}\n', [], /"fds" is 1, but 0 came/);
});

test('a line that is no JSON object is refused', () => {
  for (const line of ['', 'x', '{', '{"a":1}}', '\0', '\u{feff}{}', '{}\r{}']) refuses(`${line}\n`, [], /not JSON$/);
  refuses(Buffer.from([0xff, 0x0a]), [], /not JSON$/);
  for (const line of ['[]', 'null', '1', '"{}"', 'true']) refuses(`${line}\n`, [], /not a JSON object/);
});

test('lines before a bad one are yielded', () => {
  const reader = new FrameReader();
  const frames: object[] = [];
  assert.throws(() => {
    for (const { message } of reader.push(Buffer.from('{"a":1}\n{"b":2}\nx\n{"c":3}\n'))) frames.push(message);
  }, ProtocolError);
  assert.deepEqual(frames, [{ a: 1 }, { b: 2 }]);
});

for (const [name, limit] of [
  ["a stranger's", STRANGER_LINE_BYTES],
  ["a caller's", CALLER_LINE_BYTES],
] as const) {
  test(`${name} line of ${limit} bytes is taken, one of a byte more is not, in one piece or in many`, () => {
    const line = (length: number) => Buffer.from(`{"a":"${'x'.repeat(length - 8)}"}\n`);
    for (const size of [limit + 1, 1000]) {
      const give = (bytes: Buffer) => {
        const reader = new FrameReader(() => limit);
        let count = 0;
        for (let at = 0; at < bytes.length; at += size) count += pushAll(reader, bytes.subarray(at, at + size)).length;
        return count;
      };
      assert.equal(give(line(limit)), 1);
      assert.throws(() => give(line(limit + 1)), /line is longer than/);
      assert.throws(() => give(line(limit + 1).subarray(0, -1)), /line is longer than/);
    }
  });
}

test('the limit is asked anew while a line comes', () => {
  let limit = 4;
  const reader = new FrameReader(() => limit);
  pushAll(reader, '{"a"');
  limit = 7;
  assert.deepEqual(pushAll(reader, ':1}\n'), [{ message: { a: 1 }, fds: [] }]);
  limit = 4;
  assert.throws(() => pushAll(reader, '{"a":'), /longer than 4 bytes/);
});

test('encodeLine() writes one line, whatever is in the message', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue()), (message) => {
      const line = encodeLine({ message });
      assert.equal(line.indexOf(0x0a), line.length - 1);
      const [frame] = pushAll(new FrameReader(), line);
      assert.deepEqual(frame?.message, JSON.parse(JSON.stringify({ message })));
    }),
  );
});
