/** The policy file: what it means, and that every mistake is named by file, line and path. */
import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { defaultPolicy, MANAGE_VPN, type NameLookup, parsePolicy } from '../../../src/service/policy.js';
import { loadPolicy } from '../../../src/service/policy-file.js';
import { PolicyError } from '../../../src/service/policy-json.js';

const USERS: Record<string, number> = { root: 0, ann: 1000, nobody: 65534 };
const GROUPS: Record<string, number> = { vpn: 500, staff: 50, guest: 501 };
const names: NameLookup = {
  userByName: (name) => (Object.hasOwn(USERS, name) ? { uid: USERS[name] ?? -1 } : undefined),
  groupByName: (name) => (Object.hasOwn(GROUPS, name) ? { gid: GROUPS[name] ?? -1 } : undefined),
};
const noNames: NameLookup = { userByName: () => undefined, groupByName: () => undefined };

const parse = (text: string) => parsePolicy(text, 'policy.json', names);
const SYSTEM = { isSystem: true, permissions: [MANAGE_VPN] };

const FULL = `{
  "callers": [
    { "match": { "user": "ann" }, "system": true, "permissions": ["ohos.permission.MANAGE_VPN"] },
    { "match": { "uid": 1001 }, "system": true },
    { "match": { "group": "staff" }, "permissions": ["ohos.permission.MANAGE_VPN", "ohos.permission.INTERNET"] },
    { "match": { "slice": "vpn-agent@1.service" }, "system": false }
  ],
  "guests": { "users": ["nobody", 1002], "groups": ["guest", 7] },
  "disabled": true,
  "applications": {
    "browser": { "cgroup": "/system.slice/browser.service" },
    "mail": { "user": "ann" },
    "__proto__": { "uid": 4294967294 }
  },
  "lan": ["192.168.0.0/16", "FD00::/8", "0.0.0.0/0"],
  "udpServices": [123, 51820, 123],
  "forwarding": { "docker0": "direct", "virbr0": "block" },
  "lockdown": ["ann", 1001]
}`;

test('parsePolicy() reads every key', () => {
  assert.deepEqual(parse(FULL), {
    file: 'policy.json',
    callers: [
      { match: { uid: 1000 }, isSystem: true, permissions: [MANAGE_VPN] },
      { match: { uid: 1001 }, isSystem: true, permissions: [] },
      { match: { gid: 50 }, isSystem: false, permissions: [MANAGE_VPN, 'ohos.permission.INTERNET'] },
      { match: { slice: 'vpn-agent@1.service' }, isSystem: false, permissions: [] },
    ],
    guests: { uids: new Set([65534, 1002]), gids: new Set([501, 7]) },
    isDisabled: true,
    applications: new Map<string, unknown>([
      ['browser', { cgroup: '/system.slice/browser.service' }],
      ['mail', { uid: 1000 }],
      ['__proto__', { uid: 4294967294 }],
    ]),
    lan: [
      { address: '192.168.0.0', prefixLength: 16 },
      { address: 'fd00::', prefixLength: 8 },
      { address: '0.0.0.0', prefixLength: 0 },
    ],
    udpServices: [123, 51820],
    forwarding: new Map([
      ['docker0', 'direct'],
      ['virbr0', 'block'],
    ]),
    lockdown: new Set([1000, 1001]),
    builtIn: new Set(),
    allowsGroup: false,
  });
});

test('without a file root and group vpn are system, group guest and nobody are guests', () => {
  assert.deepEqual(defaultPolicy(names, 'policy.json'), {
    file: 'policy.json',
    callers: [
      { match: { uid: 0 }, ...SYSTEM },
      { match: { gid: 500 }, ...SYSTEM },
    ],
    guests: { uids: new Set([65534]), gids: new Set([501]) },
    isDisabled: false,
    applications: new Map(),
    lan: 'private',
    udpServices: [],
    forwarding: new Map(),
    lockdown: new Set(),
    builtIn: new Set(['callers', 'guests']),
    allowsGroup: true,
  });
  const bare = defaultPolicy(noNames, 'policy.json');
  assert.deepEqual(bare.callers, [{ match: { uid: 0 }, ...SYSTEM }]);
  assert.deepEqual(bare.guests, { uids: new Set(), gids: new Set() });
});

test('an absent key means what it means without a file, an empty list means nobody', () => {
  assert.deepEqual(parse('{}'), defaultPolicy(names, 'policy.json'));
  assert.deepEqual(parse('{"callers": [], "guests": {}}').callers, []);
  assert.deepEqual(parse('{"guests": {}}').guests, { uids: new Set(), gids: new Set() });
  assert.equal(parse('{"lan": "private"}').lan, 'private');
});

const REFUSED: [text: string, message: string | RegExp][] = [
  ['', 'policy.json:1: a value is expected here'],
  ['[]', 'policy.json:1: is not an object'],
  ['{\n  "lan": "off",\n}', 'policy.json:3: a quoted key is expected here'],
  ['{\n  // no\n}', 'policy.json:2: JSON has no comments'],
  ['{\n "lan": "off"\n "disabled": true}', 'policy.json:3: a comma is expected before this'],
  ['{\n\n lan: "off"}', /^policy.json:3: /],
  ['{"lan": "off', 'policy.json:1: the string does not end on its line'],
  ['{}\n{}', /^policy.json:2: /],
  ['{"disabled": 01}', /^policy.json:1: /],
  ['['.repeat(100_000), /^policy.json:1: /],
  ['['.repeat(1_000_000), 'policy.json:1: is nested too deeply'],
  ['{\n"disable": true}', /^policy.json:2: disable: is unknown; known are callers, guests, disabled,/],
  ['{"disabled": true,\n"disabled": false}', 'policy.json:2: disabled: is there twice'],
  ['{"disabled": "true"}', 'policy.json:1: disabled: is neither true nor false'],
  ['{"disabled": null}', 'policy.json:1: disabled: is neither true nor false'],
  ['{"callers": {}}', 'policy.json:1: callers: is not a list'],
  ['{"callers": [\n{}]}', 'policy.json:2: callers[0]: has no match'],
  ['{"callers": [{"match": {}}]}', 'policy.json:1: callers[0].match: takes exactly one of user, uid, group, slice'],
  ['{"callers": [{"match": {"uid": 1, "group": "staff"}}]}', /takes exactly one of/],
  ['{"callers": [{"match": {"uids": 1}}]}', /callers\[0\].match.uids: is unknown/],
  ['{"callers": [{"match": {"uid": 1}, "systems": true}]}', /callers\[0\].systems: is unknown/],
  ['{"callers": [{"match": {"user": "bob"}}]}', 'policy.json:1: callers[0].match.user: there is no user "bob"'],
  ['{"callers": [{"match": {"user": 7}}]}', /callers\[0\].match.user: is not a string/],
  ['{"callers": [{"match": {"group": "x\\u0007"}}]}', /there is no group "x\\u0007"$/],
  ['{"callers": [{"match": {"uid": -1}}]}', /is not a number in 0..4294967294/],
  ['{"callers": [{"match": {"uid": 4294967295}}]}', /is not a number in/],
  ['{"callers": [{"match": {"uid": 1.5}}]}', /is not a number in/],
  ['{"callers": [{"match": {"uid": "0"}}]}', /is not a number in/],
  ['{"callers": [{"match": {"uid": 1}, "system": 1}]}', /callers\[0\].system: is neither/],
  ['{"callers": [{"match": {"uid": 1}, "permissions": ["MANAGE_VPN"]}]}', /permissions\[0\]: "MANAGE_VPN" is no perm/],
  ...['', 'vpn', 'vpn.socket', '../a.slice', 'a@.service', 'a b.slice', '.slice'].map((unit): [string, RegExp] => [
    `{"callers": [{"match": {"slice": "${unit}"}}]}`,
    /is no systemd unit/,
  ]),
  ...['-.slice', 'user.slice', 'user-1000.slice', 'user@1000.service', 'session-2.scope'].map(
    (unit): [string, RegExp] => [`{"callers": [{"match": {"slice": "${unit}"}}]}`, /holds whatever its users start/],
  ),
  ['{"guests": ["nobody"]}', 'policy.json:1: guests: is not an object'],
  ['{"guests": {"user": ["nobody"]}}', /guests.user: is unknown; known are users, groups/],
  ['{"guests": {"users": ["nobdy"]}}', /guests.users\[0\]: there is no user "nobdy"/],
  ['{"applications": {"a": "/x"}}', /applications.a: is not an object/],
  ['{"applications": {"a": {"uid": 1, "cgroup": "/x"}}}', /applications.a: takes exactly one of user, uid, cgroup/],
  ['{"applications": {"": {"uid": 1}}}', /the name is empty/],
  [
    '{"applications": {"a\\n": {"uid": 1}}}',
    'policy.json:1: applications."a\\n": the name is empty, too long, or has control characters',
  ],
  ...['', 'x', '/a/../b', '/..', '/a//b', '/a/', '/./a', '/a\\u0000', '/a\\n'].map((path): [string, RegExp] => [
    `{"applications": {"a": {"cgroup": "${path}"}}}`,
    /is no cgroup path/,
  ]),
  ['{"lan": "on"}', /lan: is not "private", "off" or a list of prefixes/],
  ['{"lan": null}', /lan: is not/],
  ...['10.0.0.0', '10.0.0.0/33', '10.0.0.0/08', '10.0.0.0/', '::/129', '10.0.0.0/8/8', 'fe80::%1/64', '/8'].map(
    (cidr): [string, RegExp] => [`{"lan": ["${cidr}"]}`, /lan\[0\]: .* is no prefix like/],
  ),
  ['{"lan": ["10.1.2.3/8"]}', /"10.1.2.3\/8" has host bits; write 10.0.0.0\/8/],
  ['{"udpServices": [0]}', /udpServices\[0\]: is not a port in 1\.\.65534/],
  ['{"udpServices": [65535]}', /udpServices\[0\]: is not a port/],
  ['{"udpServices": ["53"]}', /udpServices\[0\]: is not a port/],
  ['{"forwarding": {"eth*": "block"}}', /forwarding\."eth\*": "eth\*" is no name of a link/],
  ['{"forwarding": {"docker0": "vpn"}}', /forwarding\.docker0: is not "direct" or "block"/],
  ['{"lockdown": ["bob"]}', /lockdown\[0\]: there is no user "bob"/],
  ['{"lockdown": "ann"}', /lockdown: is not a list/],
];

test('parsePolicy() refuses every mistake with file, line and path', () => {
  for (const [text, message] of REFUSED) {
    assert.throws(
      () => parse(text),
      (error: PolicyError) => {
        assert.ok(error instanceof PolicyError, `${error} for ${text}`);
        assert.equal(error.file, 'policy.json');
        if (typeof message === 'string') assert.equal(error.message, message);
        else assert.match(error.message, message);
        return true;
      },
      text.slice(0, 200),
    );
  }
});

test('parsePolicy() throws nothing but PolicyError, and takes no text that JSON.parse refuses', () => {
  const cut = fc.tuple(fc.nat(FULL.length), fc.nat(3), fc.string({ maxLength: 2 }));
  const damaged = cut.map(([at, length, more]) => FULL.slice(0, at) + more + FULL.slice(at + length));
  fc.assert(
    fc.property(fc.oneof(damaged, fc.json(), fc.string()), (text) => {
      try {
        parse(text);
      } catch (error) {
        assert.ok(error instanceof PolicyError, String(error));
        return;
      }
      JSON.parse(text);
    }),
    { numRuns: 3000 },
  );
});

const folder = mkdtempSync(join(tmpdir(), 'vpn-policy-'));
after(() => rmSync(folder, { recursive: true }));

function file(name: string, content: string | Uint8Array, mode = 0o644): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  chmodSync(path, mode);
  return path;
}

test('loadPolicy() reads a file and names it', () => {
  const path = file('good.json', '{"disabled": true}');
  assert.equal(loadPolicy(path, names).isDisabled, true);
  assert.equal(loadPolicy(path, names).file, path);
});

test('loadPolicy() refuses files that it must not believe', () => {
  const dangling = join(folder, 'dangling.json');
  symlinkSync(join(folder, 'nowhere'), dangling);
  const table: [string, RegExp][] = [
    [join(folder, 'absent.json'), /absent.json: cannot be read: ENOENT$/],
    [dangling, /cannot be read: ENOENT$/],
    [folder, /is not a regular file$/],
    ['/dev/null', /is not a regular file$/],
    [file('group.json', '{}', 0o664), /can be written by its group or by others/],
    [file('others.json', '{}', 0o646), /can be written by its group or by others/],
    [file('long.json', ' '.repeat((1 << 20) + 1)), /is longer than 1048576 bytes$/],
    [file('latin.json', Uint8Array.of(0x22, 0xff, 0x22)), /is not UTF-8$/],
    [file('bad.json', '{\n"lan": 1}'), /bad.json:2: lan: is not/],
  ];
  for (const [path, message] of table) {
    assert.throws(() => loadPolicy(path, names), { name: 'PolicyError', message });
  }
});

test('loadPolicy() refuses a file of another user', {
  skip: process.geteuid?.() !== 0 && 'only root can give files away',
}, () => {
  const path = file('foreign.json', '{}');
  chownSync(path, 12345, 0);
  assert.throws(() => loadPolicy(path, names), { message: /foreign.json: belongs to uid 12345; it must be root's$/ });
});
