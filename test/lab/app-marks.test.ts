/**
 * Applications told by the names of their cgroups, with the real kernel: real cgroups, real sockets, their marks read back by
 * SO_MARK in the process that made them.
 *
 *   cgroup2 root ── vpnd-apps-PID ── app-gnome-org.lab.Maps-17.scope ── …
 *        │                                   │
 *     program                            a process          all in a network namespace of its own (`unshare -n`)
 *
 * A scenario is this file again, in that namespace: it attaches, moves itself about and looks. Nothing is sent anywhere.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { AppMarks, appMatchingProblem } from '../../src/host/app-marks.js';
import { SELECTION_FIELD } from '../../src/host/numbers.js';
import { appIdCandidates, MAX_APP_ID_BYTES } from '../../src/kernel/app-cgroup.js';
import { attachSocketMark, detachSocketMarks, listSocketMarks, sweepSocketMarks } from '../../src/kernel/bpf.js';
import { CGROUP_LEVELS } from '../../src/kernel/bpf-app-marks.js';
import { Assembler } from '../../src/kernel/bpf-assembler.js';
import { ATTACH_TYPE, attachProgram, detachProgram, isTaken } from '../../src/kernel/bpf-attach.js';
import { bpf, loadProgram, PROGRAM_TYPE } from '../../src/kernel/bpf-syscall.js';
import { cgroup2Root, removeCgroup } from '../../src/kernel/cgroup.js';
import { checked } from '../../src/kernel/errno.js';
import { libc } from '../../src/kernel/ffi.js';
import {
  AF_INET,
  AF_INET6,
  netnsCookie,
  SOCK_DGRAM,
  SOCK_STREAM,
  socketMark,
} from '../../src/kernel/socket-options.js';
import { LAUNCHER, LAUNCHES } from './app-marks/launcher.js';
import { LONGEST, SHAPES, UUID } from './app-marks/names.js';
import { whyNoCgroup } from './lib/cgroup.js';
import { requireRoot } from './lib/prerequisites.js';

const KINDS = [
  [AF_INET, SOCK_STREAM],
  [AF_INET, SOCK_DGRAM],
  [AF_INET6, SOCK_STREAM],
  [AF_INET6, SOCK_DGRAM],
] as const;
const USER = 2001;
const A = 0x01000000;
const B = 0x02000000;
const thisFile = fileURLToPath(import.meta.url);
const root = cgroup2Root() ?? '';

/** What every scenario has: the scratch cgroup, the program's name and its network namespace. */
interface Scene {
  scratch: string;
  name: string;
  cookie: bigint;
  marks: AppMarks;
}

/** The mark of new TCP and UDP sockets of both families, which have to agree. */
function newMark(): number {
  const marks = KINDS.map(([domain, type]) => {
    const fd = checked(libc.socket(domain, type, 0), 'socket', `${domain} ${type}`);
    const mark = socketMark(fd);
    libc.close(fd);
    return mark;
  });
  assert.equal(new Set(marks).size, 1, `marks differ: ${marks}`);
  return marks[0] as number;
}

function enter(directory: string, pid = process.pid): void {
  writeFileSync(`${directory}/cgroup.procs`, String(pid));
}

/** Makes the cgroups of a path below the scratch cgroup, sits in the innermost for as long as `use` takes, removes them. */
function within<T>(scene: Scene, path: string, use: () => T): T {
  const names = path.split('/');
  const directories = names.map((_, index) => `${scene.scratch}/${names.slice(0, index + 1).join('/')}`);
  const fresh = directories.filter((directory) => !existsSync(directory));
  for (const directory of fresh) mkdirSync(directory);
  enter(directories.at(-1) as string);
  try {
    return use();
  } finally {
    enter(scene.scratch);
    for (const directory of fresh.reverse()) removeEmptied(directory);
  }
}

/** A process that has ended leaves its cgroup a moment after its parent has heard of its end. */
function removeEmptied(directory: string): void {
  for (let attempt = 0; ; attempt++) {
    if (removeCgroup(directory)) return;
    assert.ok(attempt < 250, `${directory} is still in use`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
  }
}

const markIn = (scene: Scene, path: string): number => within(scene, path, newMark);

/** A process of another user that sits in a cgroup and says the mark of a new socket whenever it is asked. */
async function startProbe(scene: Scene, uid: number, namespace: readonly string[] = []) {
  const words = [...namespace, process.execPath, thisFile, 'probe', String(uid)];
  const child = spawn(words[0] as string, words.slice(1), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  await once(child, 'message');
  return {
    async mark(path: string): Promise<number> {
      const directory = `${scene.scratch}/${path}`;
      enter(directory, child.pid);
      child.send('mark');
      const [mark] = await once(child, 'message');
      enter(scene.scratch, child.pid);
      return mark as number;
    },
    async end() {
      child.disconnect();
      await once(child, 'exit');
    },
  };
}

function probe(uid: number): void {
  if (uid !== 0) process.setuid?.(uid);
  process.on('message', () => process.send?.(newMark()));
  process.on('disconnect', () => process.exit());
  process.send?.('ready');
}

/** The ids under test one at a time, beside one that is never matched and keeps the program attached. */
function matches(scene: Scene, id: string): boolean {
  scene.marks.add({ id, mark: A });
  const mark = newMark();
  scene.marks.remove({ id, mark: A });
  assert.ok(mark === A || mark === 0, `mark ${mark}`);
  return mark === A;
}

const keepAttached = ({ marks }: Scene): void => marks.add({ id: 'never matched', mark: B });

const scenarios: Record<string, (scene: Scene) => void | Promise<void>> = {
  shapes(scene) {
    keepAttached(scene);
    for (const [name, id, expected] of SHAPES) {
      const found = within(scene, name, () => matches(scene, id));
      assert.equal(found, expected, `${name} ${id}`);
      assert.equal(appIdCandidates(name).includes(id), expected, `${name} ${id}, said by appIdCandidates()`);
    }
  },

  /** Any name, put together from what matters: the kernel says of every part of it what appIdCandidates() says. */
  property(scene) {
    keepAttached(scene);
    const prefix = fc.constantFrom(
      'app-',
      'app-',
      'app-gnome-',
      'snap.',
      'snap.a.',
      'flatpak-',
      'gnome-launched-',
      'dbus-',
      '',
    );
    const piece = fc.oneof(
      fc.constantFrom(
        '-',
        '-',
        '.',
        '@',
        '\\x2d',
        '.desktop',
        '.scope',
        `-${UUID}`,
        'app-',
        'a',
        'b',
        ':1.2',
        'é',
        '_',
        ' ',
      ),
      fc.string({ minLength: 1, maxLength: 6 }),
      fc.integer({ min: 100, max: 140 }).map((length) => 'x'.repeat(length)),
    );
    const suffix = fc.constantFrom('.scope', '.service', '.slice', '.scope', '.service', '.mount', '');
    const name = fc
      .tuple(prefix, fc.array(piece, { maxLength: 8 }), suffix)
      .map(([first, middle, last]) => `${first}${middle.join('')}${last}`)
      .filter(isCgroupName);
    const cut = fc.array(fc.tuple(fc.nat(255), fc.nat(255)), { maxLength: 10 });
    let [yes, no] = [0, 0];
    fc.assert(
      fc.property(name, cut, (text, cuts) => {
        const candidates = new Set(appIdCandidates(text));
        const others = [...partsOf(text), ...cuts.map(([from, to]) => text.slice(from, to))];
        const ids = new Set([...candidates, ...others].filter(isId));
        within(scene, text, () => {
          for (const id of ids) {
            assert.equal(matches(scene, id), candidates.has(id), JSON.stringify({ text, id }));
            if (candidates.has(id)) yes++;
            else no++;
          }
        });
      }),
      { numRuns: 1500 },
    );
    process.send?.(`${yes} ids matched, ${no} did not`);
    assert.ok(yes > 500 && no > 10_000, `${yes} matched, ${no} did not`);
  },

  nested(scene) {
    scene.marks.add({ id: 'org.lab.Maps', mark: A });
    const scope = 'app-gnome-org.lab.Maps-17.scope';
    for (const path of [scope, `${scope}/inner`, `${scope}/inner/deeper`, `other/app-org.lab.Maps-18.scope/x`]) {
      assert.equal(markIn(scene, path), A, path);
    }
    assert.equal(markIn(scene, 'other'), 0);
    const child = `require('net');process.exit(require('child_process').spawnSync(process.execPath,
      [${JSON.stringify(thisFile)}, 'mark'], { stdio: 'inherit' }).status)`;
    const status = within(scene, scope, () => spawnSync(process.execPath, ['-e', child], { stdio: 'inherit' }).status);
    assert.equal(status, A / 0x01000000, 'a child of a child, by exec');
    // The innermost counts.
    scene.marks.add({ id: 'org.lab.Other', mark: B });
    assert.equal(markIn(scene, `${scope}/app-org.lab.Other-1.scope`), B);
    assert.equal(markIn(scene, `app-org.lab.Other-1.scope/x/${scope}`), A);
  },

  levels(scene) {
    scene.marks.add({ id: 'org.lab.Maps', mark: A });
    const below = (count: number) => ['app-org.lab.Maps-17.scope', ...Array(count).fill('d')].join('/');
    assert.equal(markIn(scene, below(CGROUP_LEVELS - 1)), A);
    assert.equal(markIn(scene, below(CGROUP_LEVELS)), 0, 'what is deeper is not looked at: update the documentation');
  },

  async users(scene) {
    const { marks, scratch } = scene;
    const path = 'app-org.lab.Maps-17.scope';
    mkdirSync(`${scratch}/${path}`);
    const [user, other] = [await startProbe(scene, USER), await startProbe(scene, USER + 1)];
    const users = { id: 'org.lab.Maps', uid: USER, mark: A };
    const everyones = { id: 'org.lab.Maps', mark: B };
    const seen = async () => [await user.mark(path), await other.mark(path), markIn(scene, path)];
    for (const order of [
      [users, everyones],
      [everyones, users],
    ]) {
      for (const entry of order) marks.add(entry);
      assert.deepEqual(await seen(), [A, B, B]);
      marks.remove(everyones);
      assert.deepEqual(await seen(), [A, 0, 0]);
      marks.add(everyones);
      marks.remove(users);
      assert.deepEqual(await seen(), [B, B, B]);
      marks.remove(everyones);
      assert.deepEqual(await seen(), [0, 0, 0]);
    }
    // Also when the user's entry is of a cgroup further out, and beside the programs of single cgroups.
    marks.add({ id: 'org.lab.Outer', uid: USER, mark: A });
    marks.add(everyones);
    mkdirSync(`${scratch}/app-org.lab.Outer-1.scope`);
    mkdirSync(`${scratch}/app-org.lab.Outer-1.scope/${path}`);
    const both = `app-org.lab.Outer-1.scope/${path}`;
    assert.deepEqual([await user.mark(both), await other.mark(both)], [A, B]);
    const single = { mask: SELECTION_FIELD, netnsCookie: scene.cookie, mark: 0x03000000 };
    attachSocketMark(`${scratch}/${both}`, { ...single, overwrite: false }, `${scene.name}r`);
    assert.deepEqual([await user.mark(both), await other.mark(both)], [A, 0x03000000]);
    attachSocketMark(`${scratch}/${path}`, { ...single, overwrite: true, uid: USER }, `${scene.name}u`);
    assert.deepEqual([await user.mark(path), await other.mark(path)], [0x03000000, B]);
    await Promise.all([user.end(), other.end()]);
  },

  async others(scene) {
    const { marks, scratch } = scene;
    const path = 'app-org.lab.Maps-17.scope';
    mkdirSync(`${scratch}/${path}`);
    marks.add({ id: 'org.lab.Maps', mark: A });
    const elsewhere = await startProbe(scene, 0, ['unshare', '-n']);
    assert.equal(await elsewhere.mark(path), 0, 'another network namespace');
    assert.equal(markIn(scene, path), A);
    await elsewhere.end();
    const foreign = { mask: 0x8000ffff, mark: 0x80000042, netnsCookie: scene.cookie, overwrite: true };
    attachSocketMark(`${scratch}/${path}`, foreign, `${scene.name}f`);
    assert.equal(markIn(scene, path), A + 0x80000042, 'bits outside the field stay');
    const container = ['unshare', '--user', '--map-root-user', '--pid', '--fork', '--cgroup'];
    const inside = within(scene, path, () =>
      spawnSync(container[0] as string, [...container.slice(1), process.execPath, thisFile, 'mark']),
    );
    assert.equal(
      inside.status,
      (A + 0x80000042) / 0x01000000 - 0x42 / 0x01000000,
      'in a user, pid and cgroup namespace',
    );
  },

  bookkeeping(scene) {
    const { marks, name } = scene;
    const fds = () => readdirSync('/proc/self/fd').length;
    const mine = () => listSocketMarks(root).filter((program) => program.name === name).length;
    const before = fds();
    const entry = { id: 'org.lab.Maps', mark: A };
    marks.remove(entry);
    assert.throws(() => marks.add({ id: '', mark: A }), RangeError);
    assert.throws(() => marks.add({ id: `${LONGEST}i`, mark: A }), RangeError);
    assert.throws(() => marks.add({ id: 'x', mark: 0x80000000 }), RangeError);
    assert.throws(() => marks.add({ id: 'x', mark: 0 }), RangeError);
    assert.deepEqual([mine(), fds()], [0, before]);
    for (let round = 0; round < 2; round++) {
      marks.add(entry);
      marks.add({ ...entry, uid: USER });
      assert.equal(mine(), 1);
      // What another VPN has taken over by now is not the first one's to remove.
      marks.remove({ ...entry, mark: B });
      assert.equal(markIn(scene, 'app-org.lab.Maps-17.scope'), A);
      marks.remove(entry);
      assert.equal(markIn(scene, 'app-org.lab.Maps-17.scope'), 0);
      marks.remove(entry);
      assert.equal(mine(), 1);
      marks.remove({ ...entry, uid: USER });
      assert.deepEqual([mine(), fds()], [0, before]);
    }
    // Somebody else took it away: no reason to fail.
    marks.add(entry);
    detachSocketMarks(root, { name: (each) => each === name });
    marks.remove(entry);
    assert.equal(fds(), before);
  },

  /** Ends without taking anything back, as a service that is killed. */
  crash({ marks }) {
    marks.add({ id: 'org.lab.Maps', mark: A });
    process.kill(process.pid, 'SIGKILL');
  },

  /** Attached for as long as the launcher, which tells the marks it saw. */
  launches(scene) {
    scene.marks.add({ id: 'org.lab.Maps', uid: 0, mark: A });
    const { status, stdout, stderr } = spawnSync('python3', ['-c', LAUNCHER, scene.scratch, String(LAUNCHES)]);
    assert.equal(status, 0, stderr.toString());
    process.send?.(stdout.toString());
  },

  cost(scene) {
    const rounds = 2000;
    /** The best of many: the machine has other things to do as well. */
    const measure = (path: string): number =>
      within(scene, path, () => {
        const batches = Array.from({ length: 40 }, () => {
          const start = process.hrtime.bigint();
          for (let round = 0; round < rounds; round++) libc.close(libc.socket(AF_INET, SOCK_DGRAM, 0));
          return Number(process.hrtime.bigint() - start) / rounds;
        });
        return Math.min(...batches);
      });
    const app = 'user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.lab.Maps-17.scope';
    const paths = {
      'covered application': app,
      'other application': app.replace('Maps', 'Mail'),
      'system service': 'system.slice/nginx.service',
    };
    const lines = Object.entries(paths).map(([what, path]) => {
      const without = measure(path);
      scene.marks.add({ id: 'org.lab.Maps', mark: A });
      const attached = measure(path);
      scene.marks.remove({ id: 'org.lab.Maps', mark: A });
      return `${what}: ${Math.round(without)} ns, with the program ${Math.round(attached)} ns`;
    });
    const start = process.hrtime.bigint();
    scene.marks.add({ id: 'org.lab.Maps', mark: A });
    lines.push(`loading and attaching takes ${Number(process.hrtime.bigint() - start) / 1e6} ms`);
    process.send?.(lines.join('\n'));
  },
};

/** What mkdir(2) takes; names of the kernel's own files are taken. */
function isCgroupName(text: string): boolean {
  const taken = text === '' || text === '.' || text === '..' || /^(cgroup|cpu|memory|io|pids)\./.test(text);
  return !taken && !['/', '\n', '\0'].some((each) => text.includes(each)) && Buffer.byteLength(text) <= 255;
}

/** Not half a character, either: that is no UTF-8. */
function isId(text: string): boolean {
  const bytes = Buffer.from(text);
  return text !== '' && bytes.length <= MAX_APP_ID_BYTES && bytes.toString() === text;
}

/** Everything between two places where a grammar might cut. */
function partsOf(name: string): string[] {
  const cuts = [0, name.length];
  for (const match of name.matchAll(/[-.@]/g)) cuts.push(match.index, match.index + 1);
  const chosen = [...new Set(cuts)].slice(0, 12);
  return chosen.flatMap((from) => chosen.filter((to) => to > from).map((to) => name.slice(from, to)));
}

const [, , role, argument, ...rest] = process.argv;
if (role === 'probe') probe(Number(argument));
else if (role === 'mark') process.exit(newMark() >>> 24);
else if (role === 'scenario') await scenario(argument as string, rest[0] as string, rest[1] as string);
else tests();

async function scenario(what: string, scratch: string, name: string): Promise<void> {
  const fd = checked(libc.socket(AF_INET, SOCK_DGRAM, 0), 'socket', 'cookie');
  const cookie = netnsCookie(fd);
  libc.close(fd);
  enter(scratch);
  await scenarios[what]?.({ scratch, name, cookie, marks: new AppMarks(cookie, name) });
  process.exit();
}

let made = 0;

function tests(): void {
  const skip = whyNoCgroup() ?? false;

  /** Runs scenarios side by side in network namespaces of their own. Returns what they had to say. */
  const lab = (title: string, run: (play: (what: string) => Promise<Played>, t: test.TestContext) => Promise<void>) =>
    test(title, { skip, timeout: 300_000 }, async (t) => {
      if (!requireRoot(t)) return;
      const name = `vpnd_t${process.pid.toString(36)}`;
      const scratches: string[] = [];
      const play = async (what: string): Promise<Played> => {
        const scratch = `${root}/vpnd-apps-${process.pid}-${made++}`;
        mkdirSync(scratch);
        scratches.push(scratch);
        const words = ['-n', process.execPath, thisFile, 'scenario', what, scratch, name];
        const child = spawn('unshare', words, { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
        const said: string[] = [];
        let errors = '';
        child.on('message', (message) => said.push(String(message)));
        child.stderr?.on('data', (chunk) => {
          errors += chunk;
        });
        const [status, signal] = await once(child, 'close');
        return { status, signal, said: said.join('\n').trim(), errors };
      };
      try {
        await run(play, t);
      } finally {
        sweepSocketMarks(root, (each) => each.startsWith(name));
        for (const scratch of scratches) removeTree(scratch);
      }
      assert.deepEqual(
        listSocketMarks(root).filter((program) => program.name.startsWith(name)),
        [],
      );
    });
  const simple = (title: string, what: string) =>
    lab(title, async (play, t) => {
      const { status, said, errors } = await play(what);
      if (said !== '') t.diagnostic(said);
      assert.equal(status, 0, errors);
    });

  simple('the names that desktops, systemd, flatpak, snap and D-Bus give match, others do not', 'shapes');
  simple('whatever the name, the kernel finds the ids that appIdCandidates() finds', 'property');
  simple('children, several instances and cgroups below are covered; the innermost name counts', 'nested');
  simple(`the process's cgroup and ${CGROUP_LEVELS - 1} above it are looked at`, 'levels');
  simple("a user's entry wins over everyone's in any order, and is nobody else's", 'users');
  simple('other network namespaces, other bits of the mark, and containers', 'others');
  simple('the program is there from the first entry to the last, and no descriptor is left', 'bookkeeping');
  simple('what it costs', 'cost');

  lab('after a crash the marks go on until a sweep finds the program by its name', async (play) => {
    const { signal } = await play('crash');
    assert.equal(signal, 'SIGKILL');
    assert.equal(sweepSocketMarks(root, (each) => each === `vpnd_t${process.pid.toString(36)}`).length, 1);
  });

  lab('200 of 200 launches are marked from their first socket on, with every CPU busy', async (play) => {
    // setpriv becomes the shell: what is killed is the loop itself.
    const loop = ['--pdeathsig', 'KILL', 'sh', '-c', 'while :; do :; done'];
    const busy = Array.from({ length: 8 }, () => spawn('setpriv', loop, { stdio: 'ignore' }));
    try {
      const launchers = await Promise.all(Array.from({ length: 4 }, () => play('launches')));
      for (const { status, said, errors } of launchers) {
        assert.equal(status, 0, errors);
        assert.equal(said, `1:${LAUNCHES}`, 'mark:launches');
      }
    } finally {
      for (const child of busy) child.kill('SIGKILL');
    }
  });

  lab('a place that somebody keeps for himself is seen', async () => {
    const directory = `${root}/vpnd-apps-${process.pid}-taken`;
    mkdirSync(directory);
    const instructions = new Assembler().move('r0', 1).exit().program();
    const attachType = ATTACH_TYPE.sockCreate;
    const program = loadProgram({ name: 'foreign', type: PROGRAM_TYPE.cgroupSock, attachType, instructions });
    try {
      assert.equal(isTaken(directory, attachType), false);
      attachProgram(directory, program, attachType);
      assert.equal(isTaken(directory, attachType), false);
      detachProgram(directory, program, attachType);
      const cgroup = openSync(directory, 'r');
      // BPF_PROG_ATTACH without BPF_F_ALLOW_MULTI.
      assert.equal(bpf(8, { 0: cgroup, 4: program, 8: attachType }), 0);
      closeSync(cgroup);
      assert.equal(isTaken(directory, attachType), true);
    } finally {
      closeSync(program);
      rmdirSync(directory);
    }
  });

  lab('what is missing is named', async () => {
    assert.equal(appMatchingProblem(), undefined);
    const say = (words: readonly string[]) => {
      const module = new URL('../../src/host/app-marks.js', import.meta.url).href;
      const script = `console.log((await import(${JSON.stringify(module)})).appMatchingProblem())`;
      const node = [process.execPath, '--input-type=module', '-e', script];
      return spawnSync(words[0] as string, [...words.slice(1), ...node]).stdout.toString();
    };
    const rights = ['-sys_admin,-bpf', '-sys_admin,-perfmon', '-sys_admin,-net_admin,-bpf'];
    for (const without of rights) {
      const said = say(['setpriv', `--bounding-set=${without}`, '--inh-caps=-all']);
      assert.match(said, /^matching applications by id needs CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON /, without);
    }
    const enough = '-all,+net_admin,+bpf,+perfmon';
    assert.equal(say(['setpriv', `--bounding-set=${enough}`, '--inh-caps=-all']), 'undefined\n');
    const inMounts = (script: string) => say(['unshare', '-m', 'sh', '-c', `${script} && exec "$@"`, 'sh']);
    assert.match(inMounts('mount -t tmpfs none /sys/kernel/btf'), /\(read \S+ ENOENT \(.* CONFIG_DEBUG_INFO_BTF\)\)/);
    assert.match(inMounts(`umount ${root}`), /needs cgroup v2: mount it/);
  });
}

interface Played {
  status: number | null;
  signal: string | null;
  said: string;
  errors: string;
}

function removeTree(directory: string): void {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) removeTree(`${directory}/${entry.name}`);
  }
  removeEmptied(directory);
}
