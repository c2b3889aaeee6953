import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LAST_UID, PRIORITY, USER_SECTIONS } from '../../../src/host/numbers.js';
import { renderOperations } from '../../../src/host/render.js';
import { addressBucket, Sections, uidBucket } from '../../../src/host/sections.js';
import { IPV4, IPV6 } from '../../../src/model/vpn-types.js';

const uid = (number: number) => uidBucket(number, LAST_UID);

test('neighbouring uids share a section, which stands from the first to the last of them', () => {
  const sections = new Sections();
  const first = sections.acquire([uid(2001)]);
  assert.equal(
    renderOperations(first.fresh.filter(({ family }) => family === IPV4)),
    [
      'ip -4 rule add pref 13201 goto 14000 protocol kernel',
      'ip -4 rule add pref 13200 nop protocol kernel',
      'ip -4 rule add pref 13100 iif lo uidrange 1984-2015 goto 13200 protocol kernel\n',
    ].join('\n'),
  );
  const second = sections.acquire([uid(1984)]);
  assert.deepEqual(second.fresh, []);
  assert.deepEqual(second.priorities, first.priorities);
  assert.equal(sections.acquire([uid(2016)]).priorities.get('uid 2016'), 13202);
  assert.deepEqual(sections.release(first.priorities.keys()), []);
  assert.deepEqual(sections.release(second.priorities.keys()), first.fresh);
  // What is free again is used again.
  assert.equal(sections.acquire([uid(5000)]).priorities.get('uid 4992'), 13200);
});

test('vNIC addresses of one network share a section of their family', () => {
  const sections = new Sections();
  const { fresh, priorities } = sections.acquire([addressBucket(IPV4, '10.9.1.2'), addressBucket(IPV6, 'fd09:8:7::2')]);
  assert.deepEqual(
    [...priorities],
    [
      ['from 10.9.0.0', 12300],
      ['from fd09:8::', 12302],
    ],
  );
  assert.match(renderOperations(fresh), /ip -4 rule add pref 12200 from 10\.9\.0\.0\/16 iif lo goto 12300/);
  assert.match(renderOperations(fresh), /ip -6 rule add pref 12200 from fd09:8::\/32 iif lo goto 12302/);
  assert.deepEqual(sections.acquire([addressBucket(IPV4, '10.9.200.2')]).fresh, []);
});

test('when all sections are taken, rules go without one, and nothing is left behind for them', () => {
  const sections = new Sections();
  for (let index = 0; index < USER_SECTIONS; index++) {
    const { priorities } = sections.acquire([uid(1000 + 32 * index)]);
    const [priority = 0] = priorities.values();
    assert.ok(priority >= PRIORITY.userSections && priority + 1 < PRIORITY.rootVpn, `${priority}`);
  }
  const { priorities, fresh } = sections.acquire([uid(900_000)]);
  assert.deepEqual([...priorities, ...fresh], []);
  assert.deepEqual(sections.release(priorities.keys()), []);
});

test('a guard names no uid that the user namespace does not have', () => {
  assert.deepEqual(uidBucket(65_530, 65_536), { kind: 'uid', key: 'uid 65504', first: 65_504, last: 65_535 });
  assert.deepEqual(uidBucket(65_536, 65_536), { kind: 'uid', key: 'uid 65536', first: 65_536, last: 65_536 });
});
