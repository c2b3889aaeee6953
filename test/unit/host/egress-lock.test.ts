import assert from 'node:assert/strict';
import test from 'node:test';
import { allWays, waysOf } from '../../../src/host/egress-lock.js';

const uid = (number: number) => ({ kind: 'uid', uid: number }) as const;
const cgroup = { kind: 'cgroup', path: '/web' } as const;
const nobody = { trusted: [], blocked: [], selections: {} };
const LINK = 7;
const ANYWHERE = 0;
const NOWHERE = 0xffffffff;
const link = (owner: number) => ({ kind: 'link', value: LINK, ifindex: 0, owner }) as const;

test("waysOf() of a user's VPN: the user, or only the applications it lists", () => {
  const owner = 2001;
  const own = { kind: 'uid', value: owner, ifindex: LINK, owner: 1 };
  assert.deepEqual(waysOf({ ...nobody, owner }, LINK), [link(owner), own]);
  assert.deepEqual(waysOf({ ...nobody, owner, trusted: [cgroup], selections: { covered: 3 } }, LINK), [
    link(owner),
    { kind: 'selection', value: 0x03000000, ifindex: LINK, owner },
    { ...own, ifindex: 0 },
  ]);
  assert.deepEqual(waysOf({ ...nobody, owner, blocked: [cgroup], selections: { covered: 1, blocked: 4 } }, LINK), [
    link(owner),
    { kind: 'selection', value: 0x01000000, ifindex: LINK, owner },
    { kind: 'selection', value: 0x04000000, ifindex: 0, owner },
    own,
  ]);
});

test("waysOf() of root's VPN: everyone, some uids, or all but some", () => {
  const everyone = { kind: 'everyone', value: 0, ifindex: LINK, owner: 0 };
  assert.deepEqual(waysOf({ ...nobody, owner: 0 }, LINK), [link(0), everyone]);
  assert.deepEqual(waysOf({ ...nobody, owner: 0, trusted: [uid(2001)] }, LINK), [
    link(0),
    { kind: 'uid', value: 2001, ifindex: LINK, owner: 0 },
  ]);
  assert.deepEqual(waysOf({ ...nobody, owner: 0, blocked: [uid(2001)] }, LINK), [
    link(0),
    { kind: 'uid', value: 2001, ifindex: 0, owner: 0 },
    everyone,
  ]);
});

test("allWays(): a user's own VPN counts, whatever root's says of the user, in either order", () => {
  const own = waysOf({ ...nobody, owner: 2001 }, LINK);
  const roots = waysOf({ ...nobody, owner: 0, blocked: [uid(2001)] }, 8);
  for (const order of [
    [own, roots],
    [roots, own],
  ]) {
    const found = [...allWays(order, new Set()).values()].filter(({ kind }) => kind === 'uid');
    assert.deepEqual(
      found,
      own.filter(({ kind }) => kind === 'uid'),
    );
  }
});

test('allWays(): lockdown holds whom no VPN covers', () => {
  const ways = (vpns: Parameters<typeof waysOf>[], locked: number[]): Record<string, number> => {
    const all = allWays(
      vpns.map((vpn) => waysOf(...vpn)),
      new Set(locked),
    );
    const found = [...all.values()].filter(({ kind }) => kind !== 'link');
    return Object.fromEntries(found.map(({ kind, value, ifindex }) => [`${kind} ${value}`, ifindex]));
  };
  const own = { ...nobody, owner: 2001 };
  const ownOfSome = { ...own, trusted: [cgroup] };
  const roots = { ...nobody, owner: 0 };
  assert.deepEqual(ways([], [2001]), { 'uid 2001': NOWHERE });
  assert.deepEqual(ways([[own, LINK]], [2001, 2002]), { 'uid 2001': LINK, 'uid 2002': NOWHERE });
  assert.deepEqual(ways([[ownOfSome, LINK]], [2001]), { 'uid 2001': ANYWHERE });
  assert.deepEqual(ways([[roots, LINK]], [2001]), { 'everyone 0': LINK, 'uid 2001': LINK });
  assert.deepEqual(ways([[{ ...roots, blocked: [uid(2001)] }, LINK]], [2001]), {
    'everyone 0': LINK,
    'uid 2001': NOWHERE,
  });
  assert.deepEqual(ways([[{ ...roots, trusted: [uid(2001)] }, LINK]], [2001, 2002]), {
    'uid 2001': LINK,
    'uid 2002': NOWHERE,
  });
  assert.deepEqual(ways([], [0]), { 'everyone 0': NOWHERE });
  assert.deepEqual(ways([[own, LINK]], [0]), { 'everyone 0': NOWHERE, 'uid 2001': LINK });
  assert.deepEqual(ways([[roots, LINK]], [0]), { 'everyone 0': LINK });
});
