/**
 * `vpnctl down` takes what `vpnctl up` took, whatever the file is called and wherever it lies, and a second `up` says what is up.
 * The lab is vpnctl-lab.ts; every command is run in a shell, as people do, in the folder that it names.
 */
import assert from 'node:assert/strict';
import { chownSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { canonicalState } from './lib/canonical-state.js';
import { EVERYWHERE, pathOf } from './lib/exits.js';
import type { Result } from './lib/process.js';
import { settledState } from './lib/vpn-lab.js';
import { INSIDE, officeConf, type User, userOf, VPNCTL, type VpnctlLab, vpnctlLab } from './lib/vpnctl-lab.js';

const TIMEOUT = { timeout: 400_000 };
const UID = 2001;
const LONG = 'Büro Zürich, Gäste-WLAN (länger als ein Link)';

type Shell = (words: string[], input?: string) => Promise<Result>;

/** `cd FOLDER && vpnctl WORDS`, as this user. */
function shell(lab: VpnctlLab, user: User, folder: string): Shell {
  const env = { VPND_SOCKET: lab.vpnd.socket, XDG_RUNTIME_DIR: user.runtime, HOME: user.home };
  return (words, input = '') =>
    lab.app.run('sh', ['-c', 'cd "$1" && shift && exec /run/node "$@"', 'sh', folder, lab.app.path(VPNCTL), ...words], {
      uid: user.uid,
      env,
      input,
      check: false,
      timeoutMs: 60_000,
    });
}

test('a name of any length and letters: up and down in every way to say it', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const before = await canonicalState(lab.app);
  for (const uid of [UID, 0]) {
    const user = userOf(lab, uid);
    const elsewhere = join(user.home, 'other');
    mkdirSync(elsewhere);
    chownSync(elsewhere, uid, uid);
    const file = user.write(`${LONG}.conf`, officeConf(lab));
    const here = shell(lab, user, user.home);
    const there = shell(lab, user, elsewhere);
    const forms: (() => Promise<Result>)[][] = [
      [() => here(['up', `./${LONG}.conf`]), () => here(['down', `./${LONG}.conf`])],
      [() => here(['up', `${LONG}.conf`]), () => there(['down', `${LONG}.conf`])],
      [() => there(['up', `../${LONG}.conf`]), () => here(['down', LONG])],
      [() => there(['up', file]), () => there(['down', file])],
    ];
    for (const [up, down] of forms.slice(0, uid === 0 ? 1 : undefined)) {
      assert.ok(up && down);
      const begun = await up();
      assert.equal(begun.status, 0, begun.stderr);
      assert.match(
        begun.stdout,
        /^Büro Zürich, Gäste-WLAN \(länger als ein Link\) \(vpn-tun0\): up, log in \/.*\.log\n$/,
      );
      const wrong = await there(['down', './office.conf']);
      assert.deepEqual([wrong.status, wrong.stdout], [1, './office.conf is not up\n']);
      const ended = await down();
      assert.deepEqual([ended.status, ended.stdout], [0, `${LONG} (vpn-tun0): down\n`], ended.stderr);
      await settledState(lab.app, before);
    }
    if (uid !== 0) assert.deepEqual(readdirSync(join(user.runtime, 'vpn-manager')), []);
  }
});

test('a second up says which VPN is up, of which file, and how to end it', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const here = shell(lab, user, user.home);
  const file = user.write('office.conf', officeConf(lab));
  user.write('home.conf', officeConf(lab));
  assert.equal((await here(['up', 'office.conf'])).status, 0);
  const app = await lab.process(UID);
  for (const words of [['office.conf'], ['home.conf'], ['--foreground', 'home.conf']]) {
    const { status, stdout, stderr } = await here(['up', ...words]);
    assert.deepEqual([status, stdout], [1, '']);
    const said = `vpnctl: VPN already exists. "office" (vpn-tun0) is up, of ${JSON.stringify(file)}; end it first: vpnctl down\n`;
    assert.equal(stderr, said);
    assert.ok(!existsSync(join(user.runtime, 'vpn-manager/home.log')), 'nothing was begun');
  }
  assert.deepEqual(await app.call('ask', ...EVERYWHERE), pathOf('server', INSIDE.client));

  const { status, stdout } = await here(['down', '--json', 'office']);
  assert.equal(status, 0);
  assert.deepEqual(JSON.parse(stdout), { ended: [{ name: 'office', link: 'vpn-tun0' }] });
  const none = await here(['down', '--json', 'office']);
  assert.equal(none.status, 1);
  assert.deepEqual(JSON.parse(none.stdout), { ended: [], problem: 'office is not up' });
  const nothing = await here(['down', '--json']);
  assert.equal(nothing.status, 0);
  assert.deepEqual(JSON.parse(nothing.stdout), { ended: [], problem: 'nothing is up' });

  await app.call('setUp', { addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] });
  const refused = await here(['up', 'office.conf']);
  assert.deepEqual([refused.status, refused.stdout], [1, '']);
  const others = /^vpnctl: VPN already exists\. vpn-tun0 is the VPN of node \(\d+\), which has to end it first\n$/;
  assert.match(refused.stderr, others);
});

test('up - reads standard input', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const before = await canonicalState(lab.app);
  const here = shell(lab, user, user.home);
  const app = await lab.process(UID);
  for (const word of ['-', 'stdin']) {
    const { status, stdout, stderr } = await here(['up', '-'], officeConf(lab));
    assert.deepEqual([status, stderr], [0, '']);
    assert.match(stdout, /^stdin \(vpn-tun0\): up, log in /);
    assert.deepEqual(await app.call('ask', ...EVERYWHERE), pathOf('server', INSIDE.client));
    const { name, file } = (await user.status()) ?? assert.fail('no tunnel');
    assert.deepEqual([name, file], ['stdin', '-']);
    assert.equal((await here(['down', word])).stdout, 'stdin (vpn-tun0): down\n');
    await settledState(lab.app, before);
  }
  const cases: [text: string, status: number, said: RegExp][] = [
    ['', 65, /^vpnctl: standard input:1: there is no /],
    [officeConf(lab, { interface: ['MTU = 1'] }), 65, /^vpnctl: standard input:5: MTU /],
    [officeConf(lab, { interface: ['PostUp = id'] }), 78, /^vpnctl: standard input:5: PostUp runs a command/],
    ['#'.repeat((1 << 20) + 1), 65, /^vpnctl: standard input: there is more than 1 MiB/],
  ];
  for (const [text, expected, said] of cases) {
    const { status, stdout, stderr } = await here(['up', '-'], text);
    assert.deepEqual([status, stdout], [expected, ''], stderr);
    assert.match(stderr, said);
  }
  await settledState(lab.app, before);
});
