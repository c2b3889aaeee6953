/** Who may call what, in the order of the API's codes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge, type Peer, refusal } from '../../../src/service/authorize.js';
import { defaultPolicy, MANAGE_VPN, type NameLookup, parsePolicy } from '../../../src/service/policy.js';

const names: NameLookup = {
  userByName: (name) => (name === 'nobody' ? { uid: 65534 } : undefined),
  groupByName: (name) => ({ vpn: { gid: 500 }, guest: { gid: 501 } })[name],
};
const policy = (value: object) => parsePolicy(JSON.stringify(value), '/etc/vpnd/policy.json', names);
const peer = (more: Partial<Peer> = {}): Peer => ({ pid: 77, uid: 1000, gid: 1000, groups: [], units: [], ...more });
const ALLOW = { system: true, permissions: [MANAGE_VPN] };
const CALLS = ['setUp', 'protect', 'destroy'] as const;

test('without a file root and group vpn may, everyone else is 202', () => {
  const standard = defaultPolicy(names, '/etc/vpnd/policy.json');
  for (const call of CALLS) {
    assert.equal(refusal(standard, peer({ uid: 0, gid: 0 }), call), undefined);
    assert.equal(refusal(standard, peer({ groups: [4, 500] }), call), undefined);
    assert.equal(refusal(standard, peer({ gid: 500 }), call), undefined);
    assert.equal(refusal(standard, peer({ groups: [0, 4] }), call)?.code, 202);
  }
});

test('every match of a rule counts: uid, primary and further groups, system unit', () => {
  const table: [object, Partial<Peer>, boolean][] = [
    [{ uid: 1000 }, {}, true],
    [{ uid: 1001 }, {}, false],
    [{ group: 'vpn' }, { gid: 500 }, true],
    [{ group: 'vpn' }, { groups: [500] }, true],
    [{ group: 'vpn' }, { uid: 500 }, false],
    [{ uid: 500 }, { gid: 500, groups: [500] }, false],
    [{ slice: 'system-vpn.slice' }, { units: ['system.slice', 'system-vpn.slice', 'a.service'] }, true],
    [{ slice: 'system-vpn.slice' }, { units: ['system.slice'] }, false],
  ];
  for (const [match, more, isSystem] of table) {
    const judged = judge(policy({ callers: [{ match, ...ALLOW }] }), peer(more));
    assert.equal(judged.isSystem, isSystem, JSON.stringify([match, more]));
    assert.equal(judged.permissions.has(MANAGE_VPN), isSystem);
  }
});

test('matches add up: system by one rule, the permission by another', () => {
  const split = policy({
    callers: [
      { match: { uid: 1000 }, system: true },
      { match: { group: 'vpn' }, permissions: [MANAGE_VPN] },
      { match: { uid: 1000 }, system: false },
    ],
  });
  assert.equal(refusal(split, peer({ groups: [500] }), 'setUp'), undefined);
  assert.equal(refusal(split, peer(), 'setUp')?.code, 201);
  assert.equal(refusal(split, peer({ uid: 1, groups: [500] }), 'setUp')?.code, 202);
});

test('a refusal says who and what to add to which file', () => {
  const refused = refusal(policy({ callers: [] }), peer(), 'setUp');
  assert.equal(
    refused?.data.reason,
    'uid 1000 is no system application; to allow it, add {"match":{"uid":1000},"system":true,' +
      '"permissions":["ohos.permission.MANAGE_VPN"]} to "callers" in /etc/vpnd/policy.json',
  );
  const unprivileged = refusal(policy({ callers: [{ match: { uid: 1000 }, system: true }] }), peer(), 'destroy');
  assert.match(
    unprivileged?.message ?? '',
    /^Permission denied. uid 1000 does not have ohos.permission.MANAGE_VPN; to allow/,
  );
});

test('the order is 202, 201, 2203001, and a guest is refused only setUp', () => {
  const guests = { users: [1000] };
  const allowed = [{ match: { uid: 1000 }, ...ALLOW }];
  const unprivileged = [{ match: { uid: 1000 }, system: true }];
  const table: [object, (number | undefined)[]][] = [
    [{ callers: [], guests, disabled: true }, [202, 202, 202]],
    [{ callers: unprivileged, guests, disabled: true }, [201, 201, 201]],
    [{ callers: allowed, guests, disabled: true }, [201, 201, 201]],
    [{ callers: allowed, guests }, [2203001, undefined, undefined]],
    [{ callers: allowed }, [undefined, undefined, undefined]],
  ];
  for (const [value, codes] of table) {
    assert.deepEqual(
      CALLS.map((call) => refusal(policy(value), peer(), call)?.code),
      codes,
      JSON.stringify(value),
    );
  }
  const disabled = refusal(policy({ callers: allowed, disabled: true }), peer(), 'setUp');
  assert.equal(disabled?.data.reason, 'VPNs are disabled by the administrator');
});

test('a guest is one by uid, primary group or further group', () => {
  const standard = defaultPolicy(names, '/etc/vpnd/policy.json');
  assert.ok(judge(standard, peer({ uid: 65534 })).isGuest);
  assert.ok(judge(standard, peer({ gid: 501 })).isGuest);
  assert.ok(judge(standard, peer({ groups: [501] })).isGuest);
  assert.ok(!judge(standard, peer({ uid: 501 })).isGuest);
});

test('a caller whose pid the service cannot see is refused, root or not', () => {
  const standard = defaultPolicy(names, '/etc/vpnd/policy.json');
  for (const call of CALLS) {
    const refused = refusal(standard, peer({ pid: 0, uid: 0, gid: 0 }), call);
    assert.equal(refused?.code, 202);
    assert.match(refused?.data.reason ?? '', /in a pid namespace that the service cannot see/);
  }
  assert.deepEqual(judge(standard, peer({ pid: 0, uid: 0 })), {
    isSystem: false,
    permissions: new Set(),
    isGuest: false,
  });
});
