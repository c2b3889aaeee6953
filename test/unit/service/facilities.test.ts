import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isTooOld } from '../../../src/service/facilities.js';

test('a kernel before 5.15 is too old, whatever its makers append', () => {
  for (const release of ['4.19.0-27-amd64', '5.4.0', '5.14.21-150500.55-default', '5.9', '3.10.0-1160.el7.x86_64']) {
    assert.equal(isTooOld(release), true, release);
  }
  for (const release of ['5.15.0-91-generic', '5.15', '6.1.0-18-amd64', '6.18.44', '10.0.0-rc1']) {
    assert.equal(isTooOld(release), false, release);
  }
});
