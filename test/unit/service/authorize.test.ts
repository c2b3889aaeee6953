/** Who may call what, in the order of the API's codes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge, type Peer, refusal } from '../../../src/service/authorize.js';
import {
  defaultPolicy,
  MANAGE_VPN,
  type NameLookup,
  parsePolicy,
  withNamesOfNow,
} from '../../../src/service/policy.js';

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

const users = { nameOf: (uid: number) => ({ 1000: 'ann' })[uid] };
const JOIN = 'to allow it: sudo groupadd -f vpn && sudo usermod -aG vpn ann, then log in again';
const addTo = (uid: number) =>
  `to allow it, add {"match":{"uid":${uid}},"system":true,"permissions":["ohos.permission.MANAGE_VPN"]} ` +
  'to "callers" in /etc/vpnd/policy.json, then: sudo vpnctl reload';

test('202 and 201 say who, and what helps under this policy: the group, or an entry of the file', () => {
  const group = { match: { group: 'vpn' }, ...ALLOW };
  const notSystem = { match: { uid: 1000 }, permissions: [MANAGE_VPN] };
  const unprivileged = { match: { uid: 1000 }, system: true };
  const table: [object, number, string][] = [
    [{}, 1000, JOIN],
    [{ callers: [group] }, 1000, JOIN],
    [{ callers: [group, unprivileged] }, 1000, JOIN],
    [{ callers: [group, notSystem] }, 1000, JOIN],
    // Whom usermod does not know, and where the group would not help.
    [{}, 1001, addTo(1001)],
    [{ callers: [] }, 1000, addTo(1000)],
    [{ callers: [unprivileged] }, 1000, addTo(1000)],
    [{ callers: [{ match: { group: 'vpn' }, system: true }] }, 1000, addTo(1000)],
    [{ callers: [{ match: { group: 'guest' }, ...ALLOW }] }, 1000, addTo(1000)],
  ];
  for (const [value, uid, advice] of table) {
    for (const call of CALLS) {
      const refused = refusal(policy(value), peer({ uid }), call, users);
      const isUnprivileged = JSON.stringify(value).includes(JSON.stringify(unprivileged));
      const who = isUnprivileged ? `does not have ${MANAGE_VPN}` : 'is no system application';
      assert.equal(refused?.data.reason, `uid ${uid} ${who}; ${advice}`, JSON.stringify(value));
      assert.equal(refused?.code, isUnprivileged ? 201 : 202);
    }
  }
});

test('root may always, whatever the policy says, but for what is disabled and for a caller that cannot be seen', () => {
  const root = { uid: 0, gid: 0 };
  const against = [
    { callers: [] },
    { callers: [{ match: { uid: 0 }, system: false }] },
    { guests: { users: [0], groups: [0] } },
  ];
  for (const value of against) {
    for (const call of CALLS) {
      assert.equal(refusal(policy(value), peer(root), call), undefined, JSON.stringify(value));
      assert.equal(refusal(policy({ ...value, disabled: true }), peer(root), call)?.code, 201);
      assert.equal(refusal(policy(value), peer({ ...root, pid: 0 }), call)?.code, 202);
    }
  }
});

test('a group that is made, or made anew, after the policy was read counts; what the file itself says stays', () => {
  const groups = new Map<string, { gid: number }>();
  const then: NameLookup = { userByName: () => undefined, groupByName: (name) => groups.get(name) };
  const builtIn = parsePolicy('{}', 'policy.json', then);
  const own = parsePolicy('{"callers": []}', 'policy.json', then);
  const member = peer({ groups: [500] });
  assert.equal(refusal(builtIn, member, 'setUp', users)?.data.reason, `uid 1000 is no system application; ${JOIN}`);
  groups.set('vpn', { gid: 500 });
  assert.equal(refusal(withNamesOfNow(builtIn, then), member, 'setUp'), undefined);
  assert.equal(refusal(withNamesOfNow(own, then), member, 'setUp')?.code, 202);
  groups.set('vpn', { gid: 501 });
  assert.equal(refusal(withNamesOfNow(builtIn, then), member, 'setUp')?.code, 202, 'another group has the number now');
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
  assert.equal(disabled?.data.reason, 'VPNs are disabled by the administrator ("disabled" in /etc/vpnd/policy.json)');
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
