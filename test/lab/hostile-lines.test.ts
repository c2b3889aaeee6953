/**
 * Lines that no client of ours sends: each is answered with an error or ends its connection, and the service goes on.
 *
 *   app: vpnd ◄── raw connections of root, of an allowed user (2001) and of a stranger (4001)
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { libc } from '../../src/kernel/ffi.js';
import { requireRoot } from './lib/prerequisites.js';
import type { Answer, RawClient } from './lib/raw-client.js';
import { CALLER, CONFIG, STRANGER, target } from './lib/unharmed.js';

const STRANGER_BYTES = 64 * 1024;
const CALLER_BYTES = 4 * 1024 * 1024;
const PARSE_ERROR = -32700;
const INVALID_REQUEST = -32600;
const METHOD_NOT_FOUND = -32601;

/** A request padded to so many bytes, without the newline. */
function padded(bytes: number): string {
  const empty = '{"jsonrpc":"2.0","id":"padded","method":"hello","params":{"protocol":1,"pad":""}}';
  return empty.replace('"pad":""', `"pad":"${'x'.repeat(bytes - empty.length)}"`);
}

async function lastWord(client: RawClient, data: string | Uint8Array): Promise<number | undefined> {
  await client.send(data);
  await client.ended;
  return client.answers.at(-1)?.error?.code;
}

test('lines of every wrong kind', { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { connect, unharmed } = await target(t);

  await t.test("a stranger's line ends at 64 KiB, with his 202; a caller's at 4 MiB", async () => {
    for (const [identity, limit, code] of [
      [STRANGER, STRANGER_BYTES, 202],
      [CALLER, CALLER_BYTES, INVALID_REQUEST],
    ] as const) {
      const longest = connect(identity);
      await longest.send(`${padded(limit)}\n`);
      await longest.until(() => longest.answers.length > 0, 'answer to the longest line');
      assert.equal(longest.answers[0]?.result?.protocol, 1);
      assert.equal(await lastWord(connect(identity), `${padded(limit + 1)}\n`), code);
      assert.equal(await lastWord(connect(identity), 'x'.repeat(limit + 1)), code);
    }
    await unharmed();
  });

  await t.test('what is no JSON, or no object, ends the connection', async () => {
    const notJson = ['nonsense', '{', '{"a":1}}', '', '\0', "{'a':1}", '{"a":NaN}', '\u{feff}{}', '{}\r{}'];
    const bytes = [...notJson.map((line) => Buffer.from(line)), Buffer.from([0xff, 0xfe, 0x80])];
    for (const line of bytes) {
      const data = Buffer.concat([line, Buffer.from('\n')]);
      assert.equal(await lastWord(connect(CALLER), data), PARSE_ERROR, line.toString());
      assert.equal(await lastWord(connect(STRANGER), data), 202);
    }
    for (const line of ['[]', '5', 'null', '"text"', 'true', '[{"jsonrpc":"2.0","id":1,"method":"hello"}]']) {
      assert.equal(await lastWord(connect(CALLER), `${line}\n`), INVALID_REQUEST, line);
    }
    await unharmed();
  });

  await t.test('an object that is no request is refused, and the connection lives', async () => {
    const client = connect(CALLER);
    await client.hello();
    const rpc = '"jsonrpc":"2.0"';
    const cases: [line: string, code: number, id: Answer['id']][] = [
      ['{}', INVALID_REQUEST, null],
      [`{"jsonrpc":"1.0","id":1001,"method":"status"}`, INVALID_REQUEST, 1001],
      [`{${rpc},"method":"status"}`, INVALID_REQUEST, null],
      [`{${rpc},"id":null,"method":"status"}`, INVALID_REQUEST, null],
      [`{${rpc},"id":{},"method":"status"}`, INVALID_REQUEST, null],
      [`{${rpc},"id":1002}`, INVALID_REQUEST, 1002],
      ...['5', 'null', '{}', '["status"]'].map((method): [string, number, number] => [
        `{${rpc},"id":1003,"method":${method}}`,
        INVALID_REQUEST,
        1003,
      ]),
      ...['[]', 'null', '"config"', '7'].map((params): [string, number, number] => [
        `{${rpc},"id":1004,"method":"status","params":${params}}`,
        INVALID_REQUEST,
        1004,
      ]),
      ...['nope', '__proto__', 'constructor', 'hasOwnProperty', 'toString', '', 'Status', '\\ud800', '\\u0000'].map(
        (method): [string, number, string] => [`{${rpc},"id":"a","method":"${method}"}`, METHOD_NOT_FOUND, 'a'],
      ),
      [`{${rpc},"id":1e999,"method":"nope"}`, METHOD_NOT_FOUND, null],
      [`{${rpc},"id":1e300,"method":"nope"}`, METHOD_NOT_FOUND, 1e300],
      [`{${rpc},"id":"\\ud800","method":"nope"}`, METHOD_NOT_FOUND, '\ud800'],
    ];
    for (const [line, code, id] of cases) {
      const count = client.answers.length;
      await client.send(`${line}\n`);
      await client.until(() => client.answers.length > count, line);
      assert.deepEqual([client.answers.at(-1)?.error?.code, client.answers.at(-1)?.id], [code, id], line);
    }
    await unharmed();
  });

  await t.test('before hello there is nothing else', async () => {
    const client = connect(CALLER);
    assert.equal((await client.call('status')).error?.code, INVALID_REQUEST);
    assert.equal((await client.setUp(CONFIG)).answer.error?.code, INVALID_REQUEST);
    assert.ok((await client.hello()).result);
    assert.ok((await client.call('status')).result);
    await unharmed();
  });

  await t.test('a stranger is told hello and status, and refused the rest', async () => {
    const client = connect(STRANGER);
    assert.equal((await client.hello()).result?.isSystem, false);
    assert.deepEqual((await client.call('status')).result?.vpns, []);
    assert.equal((await client.setUp(CONFIG)).answer.error?.code, 202);
    assert.equal((await client.call('protect', {}, [0])).error?.code, 202);
    assert.equal((await client.call('destroy')).error?.code, 202);
    await unharmed();
  });

  await t.test('names of prototypes, depth, huge numbers and half characters are only wrong values', async () => {
    const client = connect(CALLER);
    await client.hello();
    const good = JSON.stringify(CONFIG).slice(1, -1);
    const deep = (count: number) => '['.repeat(count) + ']'.repeat(count);
    const params: [params: string, code: number][] = [
      [`{"__proto__":{"config":{${good}}}}`, 401],
      [`{"config":{"__proto__":{${good}}}}`, 401],
      [`{"config":{"constructor":{"prototype":{${good}}}}}`, 401],
      [`{"config":${deep(100_000)}}`, 401],
      [`{"config":{"addresses":${deep(100_000)}}}`, 401],
      [`{"config":{${good},"mtu":1e999}}`, 2200001],
      [`{"config":{${good},"mtu":-1e300}}`, 2200001],
      [`{"config":{"addresses":[{"address":{"address":"10.0.0.5"},"prefixLength":1e999}]}}`, 401],
      [`{"config":{"addresses":[{"address":{"address":"10.0.0.5\\u0000"},"prefixLength":24}]}}`, 401],
      [`{"config":{${good},"trustedApplications":["\\ud800\\n\\u001b[2J\\u2028\\u009b31m"]}}`, 2200001],
      [`{"config":{${good},"trustedApplications":["${'x\\n'.repeat(50_000)}"]}}`, 2200001],
      [`{"config":{${good},"searchDomains":["a\\nb"]}}`, 2200001],
      [`{"config":{${good},"dnsAddresses":["\\udfff"]}}`, 2200001],
      [`{"config":{${good},"routes":[${'{},'.repeat(200_000)}{}]}}`, 401],
    ];
    for (const [text, code] of params) {
      const [mine, theirs] = client.mailbox();
      const count = client.answers.length;
      await client.send(`{"jsonrpc":"2.0","id":1,"method":"setUp","fds":1,"params":${text}}\n`, [theirs]);
      await client.until(() => client.answers.length > count, text.slice(0, 100));
      for (const fd of [mine, theirs]) libc.close(fd);
      assert.equal(client.answers.at(-1)?.error?.code, code, text.slice(0, 100));
    }
    for (const start of ['[', '{"a":[', '{"a":']) {
      const other = connect(CALLER);
      assert.equal(await lastWord(other, `${start.repeat(100_000)}\n`), PARSE_ERROR);
    }
    await unharmed();
  });
});
