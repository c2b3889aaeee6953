import assert from 'node:assert/strict';
import test from 'node:test';
import { type ApplicationLookup, type PolicyApplication, resolveApplications } from '../../../src/host/applications.js';
import { BusinessError } from '../../../src/model/errors.js';

const users = new Map([
  ['alice', 1000],
  ['bob', 1001],
]);
const cgroups = new Set(['/web', '/system.slice/a.service']);
const applications = new Map<string, PolicyApplication>([
  ['com.example.web', { cgroup: '/web' }],
  ['com.example.bob', { user: 'bob' }],
  ['com.example.seven', { uid: 7 }],
  ['com.example.ghost', { user: 'ghost' }],
  ['com.example.gone', { cgroup: '/gone' }],
  ['com.example.empty', {}],
  ['com.example.badUid', { uid: -1 }],
  ['uid:1', { uid: 2 }],
]);
const installed = new Map([
  ['firefox.desktop', ['firefox']],
  ['signal-desktop', ['signal\\x2ddesktop', 'signal-desktop']],
  ['com.example.web', ['never asked: the policy comes first']],
]);
const lookup: ApplicationLookup = {
  applications,
  userByName: (name) => (users.has(name) ? { uid: users.get(name) as number } : undefined),
  cgroupExists: (path) => cgroups.has(path),
  installedAppIds: (name) => installed.get(name) ?? [],
  runningAppIds: async () => new Set(['org.example.Home', 'at\\x2dspi', 'getty@tty1.service', 'org.telegram.desktop']),
};
const trusted = (names: string[], owner = 0) => resolveApplications(names, 'trustedApplications', lookup, owner);
const blocked = (names: string[], owner = 0) => resolveApplications(names, 'blockedApplications', lookup, owner);

function refused(call: () => Promise<unknown>, field: string, reason: RegExp): Promise<void> {
  return assert.rejects(call, (error) => {
    assert.ok(error instanceof BusinessError);
    assert.equal(error.code, 2200001);
    assert.equal(error.data.field, field);
    assert.match(error.data.reason, reason);
    return true;
  });
}

test('resolveApplications() knows policy names, user:, uid: and cgroup:', async () => {
  assert.deepEqual(
    await trusted([
      'com.example.web',
      'com.example.bob',
      'com.example.seven',
      'user:alice',
      'uid:0',
      'cgroup:/system.slice/a.service',
    ]),
    [
      { kind: 'cgroup', path: '/web' },
      { kind: 'uid', uid: 1001 },
      { kind: 'uid', uid: 7 },
      { kind: 'uid', uid: 1000 },
      { kind: 'uid', uid: 0 },
      { kind: 'cgroup', path: '/system.slice/a.service' },
    ],
  );
  assert.deepEqual(await trusted([]), []);
});

test('resolveApplications() asks the policy first', async () => {
  assert.deepEqual(await trusted(['uid:1']), [{ kind: 'uid', uid: 2 }]);
});

test('resolveApplications() drops repetitions, whatever name they came by', async () => {
  assert.deepEqual(await trusted(['user:bob', 'cgroup:/web', 'uid:1001', 'com.example.bob', 'com.example.web']), [
    { kind: 'uid', uid: 1001 },
    { kind: 'cgroup', path: '/web' },
  ]);
});

test('resolveApplications() refuses what resolves to nothing, says what was tried and at which index', async () => {
  const nothing: [name: string, reason: RegExp][] = [
    ['com.unknown', /"com\.unknown" resolves to nothing: .*policy.*user:, uid:, cgroup:/],
    ['', /"" resolves to nothing/],
    ['__proto__', /resolves to nothing/],
    ['user:ghost', /no user "ghost"/],
    ['user:', /no user ""/],
    ['user:alice\0x', /no user/],
    ['com.example.ghost', /no user "ghost"/],
    ['com.example.gone', /no cgroup "\/gone"/],
    ['com.example.empty', /resolves to nothing/],
    ['com.example.badUid', /"-1" is no uid/],
    ['cgroup:/gone', /no cgroup "\/gone"/],
    ['cgroup:web', /normalised cgroup path/],
    ['cgroup:/web/../web', /normalised cgroup path/],
    ['cgroup:/web\n', /normalised cgroup path/],
    ['cgroup:/', /root cgroup/],
    ['uid:', /no uid/],
    ['uid:-1', /no uid/],
    ['uid:01', /no uid/],
    ['uid:1.5', /no uid/],
    ['uid:0x1', /no uid/],
    ['uid:1e3', /no uid/],
    ['uid:4294967295', /no uid in 0\.\.4294967294/],
    ['uid:99999999999', /no uid/],
  ];
  for (const [name, reason] of nothing) {
    await refused(() => trusted(['uid:1000', 'uid:7', name]), 'config.trustedApplications[2]', reason);
    await refused(() => blocked([name]), 'config.blockedApplications[0]', reason);
  }
});

test('resolveApplications() accepts the largest uid', async () => {
  assert.deepEqual(await trusted(['uid:4294967294']), [{ kind: 'uid', uid: 4294967294 }]);
});

test('resolveApplications() limits a name to 4096 characters and does not repeat long ones in messages', async () => {
  await refused(() => trusted([`x${'y'.repeat(4096)}`]), 'config.trustedApplications[0]', /has 4097 characters/);
  await refused(() => trusted(['y'.repeat(4096)]), 'config.trustedApplications[0]', /^.{0,300}$/);
});

test("a user's VPN names no other user, in neither list and by no kind of name", async () => {
  for (const name of ['uid:1001', 'uid:0', 'user:bob', 'com.example.bob', 'com.example.seven']) {
    const reason = /names uid \d+, but this VPN covers only uid 1000/;
    await refused(() => trusted([name], 1000), 'config.trustedApplications[0]', reason);
    await refused(() => blocked([name], 1000), 'config.blockedApplications[0]', reason);
  }
});

test("a user's VPN may trust the user, but not block the user", async () => {
  assert.deepEqual(await trusted(['user:alice'], 1000), [{ kind: 'uid', uid: 1000 }]);
  await refused(() => blocked(['uid:1000'], 1000), 'config.blockedApplications[0]', /nothing would be left/);
  assert.deepEqual(await blocked(['cgroup:/web'], 1000), [{ kind: 'cgroup', path: '/web' }]);
});

test("root's VPN may block any uid", async () => {
  assert.deepEqual(await blocked(['uid:0', 'user:bob']), [
    { kind: 'uid', uid: 0 },
    { kind: 'uid', uid: 1001 },
  ]);
});

test('resolveApplications() takes what is installed, in every spelling', async () => {
  assert.deepEqual(await trusted(['firefox.desktop', 'signal-desktop']), [
    { kind: 'app', id: 'firefox' },
    { kind: 'app', id: 'signal\\x2ddesktop' },
    { kind: 'app', id: 'signal-desktop' },
  ]);
});

test('resolveApplications() takes what runs, with and without suffix, and prefers the name as it stands', async () => {
  const runs: [name: string, ids: string[]][] = [
    ['org.example.Home', ['org.example.Home']],
    ['org.example.Home.desktop', ['org.example.Home']],
    ['at-spi', ['at\\x2dspi', 'at-spi']],
    ['at\\x2dspi', ['at\\x2dspi']],
    ['getty@tty1', ['getty\\x40tty1.service', 'getty@tty1.service']],
    ['org.telegram.desktop', ['org.telegram.desktop']],
  ];
  for (const [name, ids] of runs) {
    assert.deepEqual(
      await trusted([name]),
      ids.map((id) => ({ kind: 'app', id })),
      name,
    );
  }
});

test('resolveApplications() asks once at most what runs, and not at all when everything is installed', async () => {
  let asked = 0;
  const counting = { ...lookup, runningAppIds: () => lookup.runningAppIds().finally(() => asked++) };
  await resolveApplications(['firefox.desktop', 'uid:7'], 'trustedApplications', counting, 0);
  assert.equal(asked, 0);
  await resolveApplications(['org.example.Home', 'at-spi'], 'trustedApplications', counting, 0);
  assert.equal(asked, 1);
});

test('resolveApplications() refuses hostile names before anybody is asked for them', async () => {
  const silent: ApplicationLookup = {
    ...lookup,
    installedAppIds: (name) => assert.fail(name),
    runningAppIds: () => assert.fail('asked'),
  };
  for (const name of ['../../etc/passwd', 'a/b', 'a..b', 'a\u0007b', 'a\\x2fb', `x${'y'.repeat(300)}`, '; reboot']) {
    const call = () => resolveApplications([name], 'trustedApplications', silent, 0);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that none is there is the point
    await refused(call, 'config.trustedApplications[0]', /^[^\u0000-\u001f]{20,300}$/);
  }
});

test("an application id is nobody else in a user's VPN: it may be trusted and blocked", async () => {
  assert.deepEqual(await trusted(['firefox.desktop'], 1000), [{ kind: 'app', id: 'firefox' }]);
  assert.deepEqual(await blocked(['firefox.desktop'], 1000), [{ kind: 'app', id: 'firefox' }]);
});
