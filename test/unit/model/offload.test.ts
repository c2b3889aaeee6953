import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isWithOffload, parseOffload, withOffload } from '../../../src/model/offload.js';
import { parseVpnConfig } from '../../../src/model/vpn-config.js';
import { withOffload as published } from '../../../src/tunnel/index.js';

const CONFIG = { addresses: [{ address: { address: '10.0.0.5', family: 1 }, prefixLength: 24 }], mtu: 1400 };

test('withOffload() marks a copy and leaves the config alone', () => {
  const marked = withOffload(CONFIG);
  assert.notEqual(marked, CONFIG);
  assert.deepEqual([isWithOffload(marked), isWithOffload(CONFIG)], [true, false]);
  assert.equal(published, withOffload);
});

test('withOffload() keeps every field, and copies of the copy keep the mark', () => {
  assert.deepEqual(parseVpnConfig(withOffload(CONFIG)), CONFIG);
  assert.ok(isWithOffload({ ...withOffload(CONFIG), mtu: 1280 }));
  assert.ok(isWithOffload(withOffload(withOffload(CONFIG))));
});

test('the mark is seen by another copy of the package and by nothing that lists or sends fields', () => {
  const marked = withOffload(CONFIG);
  assert.equal(Reflect.get(marked, Symbol.for('vpn-manager.offload')), true);
  assert.deepEqual(Object.keys(marked), Object.keys(CONFIG));
  assert.deepEqual(JSON.parse(JSON.stringify(marked)), CONFIG);
  assert.deepEqual(Reflect.ownKeys(parseVpnConfig(marked)), Object.keys(CONFIG));
});

test('parseOffload() takes a boolean, false when absent, and refuses everything else with 401', () => {
  assert.deepEqual([undefined, false, true].map(parseOffload), [false, false, true]);
  for (const value of [null, 0, 1, 'true', '', [], {}, [true]]) {
    assert.throws(
      () => parseOffload(value),
      ({ code, data }) => code === 401 && data.field === 'offload' && data.reason.endsWith(' is not a boolean'),
      String(value),
    );
  }
});
