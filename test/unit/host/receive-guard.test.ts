import assert from 'node:assert/strict';
import test from 'node:test';
import { receiveRule } from '../../../src/host/receive-guard.js';

const uid = (number: number) => ({ kind: 'uid', uid: number }) as const;
const cgroup = { kind: 'cgroup', path: '/web' } as const;
const nobody = { trusted: [], blocked: [], selections: {} };

test("receiveRule() of a user's VPN: the user, some applications, or all but some", () => {
  const owner = 2001;
  assert.deepEqual(receiveRule({ ...nobody, owner }), { owner, others: true, list: [] });
  assert.deepEqual(receiveRule({ ...nobody, owner, trusted: [cgroup], selections: { covered: 3 } }), {
    owner,
    others: false,
    list: [],
    covered: 0x03000000,
  });
  assert.deepEqual(receiveRule({ ...nobody, owner, blocked: [cgroup], selections: { covered: 1, blocked: 4 } }), {
    owner,
    others: true,
    list: [],
    covered: 0x01000000,
    blocked: 0x04000000,
  });
  // Its own uid in the list is all of it.
  assert.equal(
    receiveRule({ ...nobody, owner, trusted: [cgroup, uid(owner)], selections: { covered: 3 } }).others,
    true,
  );
});

test("receiveRule() of root's VPN: everyone, some uids, or all but some", () => {
  const owner = 0;
  assert.deepEqual(receiveRule({ ...nobody, owner }), { owner, others: true, list: [] });
  assert.deepEqual(
    receiveRule({ ...nobody, owner, trusted: [uid(2001), cgroup, uid(0)], selections: { covered: 121 } }),
    {
      owner,
      others: false,
      list: [2001, 0],
      covered: 0x79000000,
    },
  );
  assert.deepEqual(receiveRule({ ...nobody, owner, blocked: [uid(2001)] }), { owner, others: true, list: [2001] });
});
