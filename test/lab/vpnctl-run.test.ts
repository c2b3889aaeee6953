/**
 * `vpnctl run`: in which cgroup a program is born, how it is told things and how it ends, and what is left; read from /proc and
 * from the cgroup tree itself. No packet is sent.
 *
 *   app: vpnd ◄── vpnctl run --app ID -- COMMAND        /…/app-vpnctl-ID-RANDOM.scope
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { appIdCandidates } from '../../src/kernel/app-cgroup.js';
import { cgroup2Root, cgroupOf, moveToCgroup } from '../../src/kernel/cgroup.js';
import { openPidfd } from '../../src/kernel/peer.js';
import { sweepLaunches } from '../../src/service/launch.js';
import { canonicalState, diffState } from './lib/canonical-state.js';
import { makeCgroup, whyNoCgroup } from './lib/cgroup.js';
import type { RunOptions, SpawnOptions } from './lib/host.js';
import { type LabProcess, start } from './lib/process.js';
import { eventually, type VpnLab, vpnLab } from './lib/vpn-lab.js';

const VPNCTL = 'dist/src/cli/vpnctl.js';
const PRINT_CGROUP = ['cat', '/proc/self/cgroup'];
const ID = 'org.example.App';

async function scene(t: TestContext): Promise<VpnLab | undefined> {
  const why = whyNoCgroup();
  if (why !== undefined) return void t.skip(why);
  return vpnLab(t, { networks: [] });
}

const words = (app: string, command: readonly string[]) => ['run', '--app', app, '--', ...command];

function run({ app, vpnd }: VpnLab, id: string, command: readonly string[], options: RunOptions = {}) {
  return app.node(VPNCTL, words(id, command), { check: false, env: { VPND_SOCKET: vpnd.socket }, ...options });
}

function spawn({ app, vpnd }: VpnLab, id: string, command: readonly string[], options: SpawnOptions = {}): LabProcess {
  return app.spawnNode(VPNCTL, words(id, command), { env: { VPND_SOCKET: vpnd.socket }, ...options });
}

/** The v2 path in what a program printed of its /proc/self/cgroup. */
function pathIn(printed: string): string {
  const path = /^0::(\/.*)$/m.exec(printed)?.[1];
  assert.ok(path, printed);
  return path;
}

function directoryOf(path: string): string {
  return `${cgroup2Root()}${path === '/' ? '' : path}`;
}

function isGone(path: string): Promise<true> {
  return eventually(`${path} is removed`, async () => !existsSync(directoryOf(path)) || undefined);
}

/** Everything in a cgroup that a launch made. */
function killAll(path: string): void {
  assert.match(path, /\/app-vpnctl-[^/]*\.scope$/);
  for (const pid of readFileSync(`${directoryOf(path)}/cgroup.procs`, 'latin1')
    .split('\n')
    .filter(Boolean)) {
    process.kill(Number(pid), 'SIGKILL');
  }
}

function launches(path: string): string[] {
  return readdirSync(directoryOf(path)).filter((name) => name.startsWith('app-vpnctl-'));
}

/** Those of earlier launches may still be on their way out. */
function newer(before: readonly string[], after: readonly string[]): string[] {
  return after.filter((name) => !before.includes(name));
}

test('vpnctl run', { timeout: 300_000 }, async (t) => {
  const lab = await scene(t);
  if (!lab) return;
  const here = cgroupOf(process.pid) ?? '/';
  const below = here === '/' ? '' : here;

  await t.test(
    'the program is born in a cgroup that shows the id, below its caller; it goes with the program',
    async () => {
      const before = await canonicalState(lab.app);
      for (const [id, shown] of [
        [ID, ID],
        ['firefox.desktop', 'firefox'],
        ['libreoffice-writer', 'libreoffice\\x2dwriter'],
        ['at\\x2dspi', 'at\\x2dspi'],
        ['getty@tty1', 'getty\\x40tty1'],
        ['never-installed+1', 'never\\x2dinstalled\\x2b1'],
      ] as const) {
        const { status, stdout, stderr } = await run(lab, id, PRINT_CGROUP, { uid: 2001 });
        assert.equal(status, 0, stderr);
        const path = pathIn(stdout);
        const name = path.slice(below.length + 1);
        assert.equal(path, `${below}/${name}`);
        assert.match(name, /^app-vpnctl-[^/]+-[0-9a-f]{16}\.scope$/);
        assert.ok(appIdCandidates(name).includes(shown), name);
        await isGone(path);
      }
      assert.deepEqual(diffState(before, await canonicalState(lab.app)), []);
    },
  );

  await t.test('limits of the caller stay: the new cgroup is inside its own', async (t) => {
    const mine = makeCgroup(t);
    const inside = ['sh', '-c', `echo $$ > ${mine.directory}/cgroup.procs && exec "$@"`, 'sh', '/run/node'];
    const ctl = [lab.app.path(VPNCTL), ...words(ID, PRINT_CGROUP)];
    const [command = '', ...args] = [...inside, ...ctl];
    const { stdout } = await lab.app.run(command, args, { env: { VPND_SOCKET: lab.vpnd.socket } });
    assert.equal(pathIn(stdout).replace(/-[0-9a-f]{16}\.scope$/, ''), `${mine.path}/app-vpnctl-${ID}`);
    await isGone(pathIn(stdout));
  });

  await t.test('children are born there too, and one application can start another inside itself', async () => {
    const inner = `exec ${lab.app.path('/run/node')} ${lab.app.path(VPNCTL)} run --app inner -- sh -c 'sh -c "cat /proc/self/cgroup"'`;
    const { stdout, stderr } = await run(lab, 'outer', ['sh', '-c', inner], { uid: 2001 });
    assert.match(
      pathIn(stdout),
      /\/app-vpnctl-outer-[0-9a-f]{16}\.scope\/app-vpnctl-inner-[0-9a-f]{16}\.scope$/,
      stderr,
    );
    await isGone(pathIn(stdout).replace(/\/[^/]*$/, ''));
  });

  await t.test('it ends as the program ends', async () => {
    for (const [command, status] of [
      [['true'], 0],
      [['sh', '-c', 'exit 7'], 7],
      [['sh', '-c', 'kill -TERM $$'], 143],
      [['sh', '-c', 'kill -KILL $$'], 137],
      [['/no/such/program'], 127],
      [['/etc/passwd'], 126],
    ] as const) {
      assert.equal((await run(lab, ID, command)).status, status, command.join(' '));
    }
  });

  await t.test('standard input, output and error are the caller’s, and so is the environment', async () => {
    const script = 'read line; echo "$line $WORD"; echo error >&2; test -z "$VPND_SOCKET" || echo socket';
    const env = { VPND_SOCKET: lab.vpnd.socket, WORD: 'word' };
    const result = await run(lab, ID, ['sh', '-c', script], { input: 'typed\n', env });
    assert.deepEqual(result, { status: 0, stdout: 'typed word\nsocket\n', stderr: 'error\n' });
  });

  await t.test('signals reach the program, which decides what they mean', async () => {
    const names = ['TERM', 'INT', 'HUP', 'USR1', 'USR2', 'QUIT'] as const;
    const trap = names.map((name) => `trap 'echo got ${name}' ${name}`).join('; ');
    const program = spawn(lab, ID, ['sh', '-c', `${trap}; echo ready; while :; do sleep 0.05; done`], { uid: 2001 });
    await program.waitFor(/^ready$/m);
    for (const name of names) {
      process.kill(program.pid, `SIG${name}`);
      await program.waitFor(new RegExp(`^got ${name}$`, 'm'));
    }
    assert.ok(program.running);
    killAll(cgroupOf(program.pid) ?? '');
    await program.exited;
  });

  await t.test('what the program leaves running stays in its cgroup, which goes with the last of it', async () => {
    const script = 'sleep 1000 >/dev/null 2>&1 & echo $!; cat /proc/self/cgroup';
    const { stdout } = await run(lab, ID, ['sh', '-c', script]);
    const [pid, path] = [Number.parseInt(stdout, 10), pathIn(stdout)];
    assert.equal(cgroupOf(pid), path);
    process.kill(pid, 'SIGKILL');
    await isGone(path);
  });

  await t.test('whoever may not set up a VPN is refused, and no cgroup is made', async () => {
    const before = launches(here);
    const { status, stderr } = await run(lab, ID, ['true'], { uid: 2005 });
    assert.equal(status, 1, stderr);
    assert.match(stderr, /Non-system applications use system APIs\./);
    assert.deepEqual(newer(before, launches(here)), []);
  });

  await t.test('hostile ids are refused, and nothing is started', async () => {
    const before = launches(here);
    for (const id of [
      '',
      '../../x',
      'a/b',
      'a\nb',
      'a\x1b[2J',
      'a\\x2fb',
      'a b',
      '.x',
      'y'.repeat(10_240),
      '-'.repeat(90),
    ]) {
      const { status, stdout, stderr } = await run(lab, id, ['echo', 'started']);
      assert.deepEqual([status === 1 || status === 64, stdout], [true, ''], stderr);
      if (status === 1) assert.match(stderr, /^vpnctl: Invalid parameter value\. app: [\x20-\x7e…]{1,300}\n$/);
    }
    const dashes = await run(lab, `a${'-'.repeat(40)}`, ['true']);
    assert.match(dashes.stderr, /161 bytes when '-' counts four/);
    assert.deepEqual(newer(before, launches(here)), []);
  });

  await t.test('usage: exit 64; no service: exit 69', async () => {
    const ctl = (...args: string[]) => lab.app.node(VPNCTL, args, { check: false });
    for (const args of [
      ['run'],
      ['run', '--app', 'a'],
      ['run', '--app', 'a', 'true'],
      ['run', '--what', '--', 'true'],
    ]) {
      const { status, stderr } = await ctl(...args);
      assert.equal(status, 64, args.join(' '));
      assert.match(stderr, /vpnctl run --app ID -- COMMAND/);
    }
    const { status } = await run(lab, ID, ['true'], { env: { VPND_SOCKET: '/no/such/socket' } });
    assert.equal(status, 69);
  });

  await t.test('a caller in another cgroup namespace is told so', async () => {
    const ctl = [lab.app.path('/run/node'), lab.app.path(VPNCTL), ...words(ID, ['true'])];
    const env = { VPND_SOCKET: lab.vpnd.socket };
    const { status, stderr } = await lab.app.run('unshare', ['--cgroup', ...ctl], { check: false, env });
    assert.equal(status, 1);
    assert.match(stderr, /System internal error\. .*another cgroup namespace/);
  });

  await t.test('the death of the service ends no program; its successor removes what is left', async (t) => {
    const program = spawn(lab, ID, ['sh', '-c', 'cat /proc/self/cgroup; exec sleep 1000'], { uid: 2001 });
    await program.waitFor(/^0::.*\n/m);
    const path = pathIn(program.stdout);
    // A user's own cgroup of such a name is not ours to remove.
    const foreign = makeCgroup(t);
    const lookalike = join(foreign.directory, 'app-vpnctl-x-0123456789abcdef.scope');
    mkdirSync(lookalike);
    await lab.app.run('chown', ['2001', lookalike]);
    await eventually('those of earlier programs are removed', async () => {
      return launches(here).every((name) => path.includes(name)) || undefined;
    });
    await lab.vpnd.kill9();
    assert.ok(program.running);
    assert.equal(await sweepLaunches(() => {}), 0);
    assert.ok(existsSync(directoryOf(path)));
    killAll(path);
    await program.exited;
    await isGone(path);
    rmdirSync(lookalike);
  });
});

test('a sweep removes empty cgroups of launches wherever they are', { timeout: 180_000 }, async (t) => {
  const why = whyNoCgroup();
  if (why !== undefined) return void t.skip(why);
  const mine = makeCgroup(t);
  const deep = join(mine.directory, 'a.slice');
  const left = join(deep, 'app-vpnctl-x-0123456789abcdef.scope');
  const inside = join(left, 'app-vpnctl-y-0123456789abcdef.scope');
  mkdirSync(inside, { recursive: true });
  const others = ['app-vpnctl-x.scope', 'app-gnome-x-0123456789abcdef.scope'].map((name) => join(deep, name));
  for (const each of others) mkdirSync(each);
  await sweepLaunches(() => {});
  assert.ok(!existsSync(left));
  for (const each of others) assert.ok(statSync(each).isDirectory());
  for (const each of [...others, deep]) rmdirSync(each);
});

test('without cgroup v2 the caller is told so', { timeout: 120_000 }, async (t) => {
  const lab = await scene(t);
  if (!lab) return;
  await lab.vpnd.process.waitFor(/ ready /, 60_000);
  await lab.app.run('umount', ['--lazy', cgroup2Root() ?? '']);
  const { status, stdout, stderr } = await run(lab, ID, ['echo', 'started']);
  assert.deepEqual([status, stdout], [1, ''], `${stderr} ${lab.vpnd.log()}`);
  assert.match(stderr, /System internal error\. cgroup v2 is not mounted.*mount -t cgroup2/);
});

test('a pid that was given away is not moved', { timeout: 180_000 }, async (t) => {
  const why = whyNoCgroup();
  if (why !== undefined) return void t.skip(why);
  const mine = makeCgroup(t);
  const [peer, stranger] = [start('sleep', ['1000']), start('sleep', ['1000'])];
  const pidfd = await eventually('a pidfd', async () => openPidfd(peer.pid, 0));
  moveToCgroup(mine.directory, { pid: peer.pid, pidfd });
  assert.equal(cgroupOf(peer.pid), mine.path);
  await peer.kill('SIGKILL');
  // Before the cgroup, which is removed after it.
  t.after(() => stranger.kill('SIGKILL'));
  const its = makeCgroup(t);
  its.add(stranger);
  assert.throws(() => moveToCgroup(mine.directory, { pid: stranger.pid, pidfd }), { errnoName: 'ESRCH' });
  assert.equal(cgroupOf(stranger.pid), its.path);
});
