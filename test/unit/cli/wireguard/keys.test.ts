/** `vpnctl wg genkey|genpsk|pubkey` against what wg(8) prints, and how it ends. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keyCommand } from '../../../../src/cli/wireguard/keys.js';
import { ALICE, ALICE_PRIVATE } from './lib/samples.js';

async function run(words: string[], input: string | Uint8Array[] = '', isWorldAccessible = false) {
  let [printed, complained] = ['', ''];
  const chunks = typeof input === 'string' ? [Buffer.from(input, 'latin1')] : input;
  const code = await keyCommand(words, {
    input: (async function* () {
      yield* chunks;
    })(),
    print: (text) => {
      printed += text;
    },
    complain: (text) => {
      complained += `${text}\n`;
    },
    isWorldAccessible,
  });
  return { code, printed, complained };
}

test('genkey prints a clamped key (RFC 7748, section 5), genpsk any 32 bytes, never the same twice', async () => {
  const seen = new Set<string>();
  let unclamped = 0;
  for (let count = 0; count < 20; count++) {
    for (const command of ['genkey', 'genpsk']) {
      const { code, printed, complained } = await run([command]);
      assert.deepEqual([code, complained], [0, '']);
      assert.match(printed, /^[A-Za-z0-9+/]{43}=\n$/);
      const key = Buffer.from(printed, 'base64');
      const isClamped = ((key[0] ?? 0) & 7) === 0 && ((key[31] ?? 0) & 0xc0) === 0x40;
      if (command === 'genkey') assert.ok(isClamped);
      else if (!isClamped) unclamped++;
      seen.add(printed);
    }
  }
  assert.equal(seen.size, 40);
  assert.ok(unclamped > 0);
});

test("pubkey prints the public key of Alice's private one (RFC 7748, section 6.1), blanks behind it or not, however it is cut", async () => {
  const answer = { code: 0, printed: `${ALICE}\n`, complained: '' };
  for (const behind of ['', '\n', '\r\n', ' \t\n\n', '\0'])
    assert.deepEqual(await run(['pubkey'], ALICE_PRIVATE + behind), answer);
  const bytes = Buffer.from(`${ALICE_PRIVATE}\n`);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const chunks = [Buffer.from(bytes.subarray(0, cut)), Buffer.from(bytes.subarray(cut))];
    assert.deepEqual(await run(['pubkey'], chunks), answer, String(cut));
  }
});

test('pubkey takes what genkey prints', async () => {
  const { printed } = await run(['genkey']);
  assert.match((await run(['pubkey'], printed)).printed, /^[A-Za-z0-9+/]{43}=\n$/);
});

test('pubkey of what is no key ends with 1 and says nothing of it', async () => {
  const wrong = { code: 1, printed: '', complained: 'vpnctl: Key is not the correct length or format\n' };
  const trailing = { code: 1, printed: '', complained: 'vpnctl: Trailing characters found after key\n' };
  for (const input of ['', '\n', ALICE_PRIVATE.slice(1), ` ${ALICE_PRIVATE}`, '!'.repeat(44), '\xff'.repeat(44)]) {
    assert.deepEqual(await run(['pubkey'], input), wrong, input);
  }
  for (const behind of ['x', '\nx', '=', ` ${'\n'.repeat(5000)}x`])
    assert.deepEqual(await run(['pubkey'], ALICE_PRIVATE + behind), trailing);
});

test('a key that goes to a file everybody may read is printed, with the warning of wg', async () => {
  const complained =
    'Warning: writing to world accessible file.\nConsider setting the umask to 077 and trying again.\n';
  for (const command of ['genkey', 'genpsk']) {
    const answer = await run([command], '', true);
    assert.deepEqual([answer.code, answer.complained, answer.printed.length], [0, complained, 45]);
  }
  assert.equal((await run(['pubkey'], ALICE_PRIVATE, true)).complained, '', 'a public key is no secret');
});

test('anything else is told how it is used', async () => {
  for (const words of [[], ['show'], ['genkey', ALICE_PRIVATE], ['pubkey', '-h'], ['toString']]) {
    assert.deepEqual(await run(words), { code: 1, printed: '', complained: 'usage: vpnctl wg genkey|genpsk|pubkey\n' });
  }
});
