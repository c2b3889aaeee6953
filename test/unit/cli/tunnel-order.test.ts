import assert from 'node:assert/strict';
import test from 'node:test';
import { decodeOrder, encodeOrder, type TunnelOrder, wipeKeys } from '../../../src/cli/tunnel-order.js';
import { UndoStack } from '../../../src/cli/undo-stack.js';
import { parseUp } from '../../../src/cli/up.js';
import { deviceChangeOf } from '../../../src/cli/wireguard/device-change.js';
import { CAROL, sample } from './wireguard/lib/samples.js';

function order(): TunnelOrder {
  const file = sample({ peer: [`PresharedKey = ${CAROL}`, 'AllowedIPs = 0.0.0.0/0'] });
  const addresses = new Map([['wg.example.org', ['192.0.2.1']]]);
  const config = { addresses: [{ address: { address: '10.0.0.2' }, prefixLength: 32 }] };
  const change = deviceChangeOf(file, { chosen: new Map(), notYet: new Map() });
  return {
    name: 'office',
    path: '/office.conf',
    file,
    config,
    mtu: 1420,
    change,
    addresses,
    waitingFor: ['wg.example.org'],
  };
}

test('an order survives the pipe, and its keys are no part of the bytes that came', () => {
  const bytes = encodeOrder(order());
  const decoded = decodeOrder(bytes);
  bytes.fill(0);
  assert.deepEqual(decoded, order());
});

test('wipeKeys() zeroes the secrets of an order, those of its file included', () => {
  const decoded = decodeOrder(encodeOrder(order()));
  wipeKeys(decoded.change);
  const { file, change } = decoded;
  const secrets = [change.privateKey, file.interface.privateKey?.value, file.peers[0]?.presharedKey?.value];
  for (const secret of secrets) assert.deepEqual(secret, new Uint8Array(32));
  assert.notDeepEqual(file.peers[0]?.publicKey.value, new Uint8Array(32));
});

test('UndoStack takes the steps back in reverse order, all of them, and once', async () => {
  const done: string[] = [];
  const undo = new UndoStack();
  undo.push('one', () => void done.push('one'));
  undo.push('two', async () => {
    await Promise.resolve();
    done.push('two');
    throw new Error('no');
  });
  undo.push('three', () => void done.push('three'));
  assert.deepEqual(await undo.unwind(), ['two: no']);
  assert.deepEqual(done, ['three', 'two', 'one']);
  assert.deepEqual(await undo.unwind(), []);
  assert.equal(done.length, 3);
});

test('parseUp() takes one file or name, and its options in any place', () => {
  assert.deepEqual(parseUp(['office']), { which: 'office', foreground: false, allowHooks: false });
  assert.deepEqual(parseUp(['--foreground', 'a.conf', '--allow-hooks']), {
    which: 'a.conf',
    foreground: true,
    allowHooks: true,
  });
  for (const words of [[], ['a', 'b'], ['--colour', 'a'], ['--foreground=no', 'a']]) {
    assert.throws(() => parseUp(words), Error, words.join(' '));
  }
});
