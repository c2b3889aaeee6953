/**
 * Marks on new sockets, with the real kernel, read back by SO_MARK in the process that made them.
 *
 *   cgroup2 root ── vpnd-test-PID ── inner
 *                        │             │
 *                     a probe       a probe        each in a network namespace of its own (`unshare -n`)
 *
 * A probe is this file again: it sits in the cgroup and makes sockets when told to. Nothing is sent anywhere. Needs root.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  attachSocketMark,
  detachSocketMarks,
  listSocketMarks,
  type SocketMark,
  sweepSocketMarks,
} from '../../src/kernel/bpf.js';
import { cgroup2Root, resolveCgroup } from '../../src/kernel/cgroup.js';
import { checked } from '../../src/kernel/errno.js';
import { libc } from '../../src/kernel/ffi.js';
import { netnsCookie, socketMark } from '../../src/kernel/socket-options.js';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const KINDS: readonly [domain: number, type: number, protocol: number][] = [
  [AF_INET, SOCK_STREAM, 0],
  [AF_INET, SOCK_DGRAM, 0],
  [AF_INET6, SOCK_STREAM, 0],
  [AF_INET6, SOCK_DGRAM, 0],
];
const RAW_KINDS: readonly [number, number, number][] = [
  [AF_INET, SOCK_RAW, 1],
  [AF_INET6, SOCK_RAW, 58],
];
const USER = 2001;
const MASK = 0x3f000000;
const thisFile = fileURLToPath(import.meta.url);

if (process.argv[2] === 'probe') probe();
else tests();

/** Answers 'cookie' with its namespace's cookie, a list of kinds with the marks of new sockets, 'old' with that of an old one. */
function probe(): void {
  const uid = Number(process.argv[3]);
  if (uid !== 0) process.setuid?.(uid);
  const old = checked(libc.socket(AF_INET, SOCK_DGRAM, 0), 'socket', 'old');
  process.on('message', (request: 'cookie' | 'old' | typeof KINDS) => {
    if (request === 'cookie') return process.send?.(String(netnsCookie(old)));
    if (request === 'old') return process.send?.(socketMark(old));
    const marks = request.map(([domain, type, protocol]) => {
      const fd = checked(libc.socket(domain, type, protocol), 'socket', `${domain} ${type}`);
      const mark = socketMark(fd);
      libc.close(fd);
      return mark;
    });
    return process.send?.(marks);
  });
  process.on('disconnect', () => process.exit());
  process.send?.('ready');
}

/** What takes back what a test has made, run last one first. */
type Undo = (() => Promise<void>)[];

interface Probe {
  cookie: bigint;
  ask(request: unknown): Promise<unknown>;
  /** Marks of new TCP and UDP sockets of both families; fails when they differ. */
  mark(): Promise<number>;
}

async function startProbe(undo: Undo, cgroupDir: string, uid = 0): Promise<Probe> {
  const script = 'echo $$ > "$0/cgroup.procs" && exec unshare -n "$@"';
  const child: ChildProcess = spawn('sh', ['-c', script, cgroupDir, process.execPath, thisFile, 'probe', String(uid)], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const ended = once(child, 'exit');
  undo.push(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const answer = async (): Promise<unknown> => {
    const first = await Promise.race([once(child, 'message'), ended.then(() => undefined)]);
    if (first === undefined) throw new Error('the probe has ended');
    return first[0];
  };
  assert.equal(await answer(), 'ready');
  const ask = (request: unknown): Promise<unknown> => {
    const reply = answer();
    child.send(request as string);
    return reply;
  };
  const mark = async (): Promise<number> => {
    const marks = (await ask(KINDS)) as number[];
    assert.equal(marks.length, KINDS.length);
    assert.equal(new Set(marks).size, 1, `marks differ: ${marks}`);
    return marks[0] as number;
  };
  return { cookie: BigInt((await ask('cookie')) as string), ask, mark };
}

let made = 0;

/** A fresh cgroup with one inside. */
function makeCgroup(undo: Undo): { outer: string; inner: string } {
  const outer = `${cgroup2Root()}/vpnd-test-${process.pid}-${made++}`;
  const inner = `${outer}/inner`;
  mkdirSync(outer);
  mkdirSync(inner);
  // A killed process leaves its cgroup a moment after its parent has heard of its end.
  undo.push(async () => {
    for (const directory of [inner, outer]) {
      for (let attempt = 0; ; attempt++) {
        try {
          rmdirSync(directory);
          break;
        } catch (error) {
          if (attempt === 50) throw error;
          await delay(100);
        }
      }
    }
  });
  return { outer, inner };
}

const openFds = (): number => readdirSync('/proc/self/fd').length;

function tests(): void {
  const skip =
    process.getuid?.() !== 0
      ? 'needs root: it makes cgroups and loads BPF programs'
      : cgroup2Root() === undefined
        ? 'needs a mounted cgroup2'
        : false;
  const spec = (probe: Probe, change: Partial<SocketMark> = {}): SocketMark => ({
    mark: 0x01000000,
    mask: MASK,
    overwrite: true,
    netnsCookie: probe.cookie,
    ...change,
  });
  const lab = (name: string, run: (undo: Undo) => Promise<void>) =>
    test(name, { skip }, async () => {
      const undo: Undo = [];
      try {
        await run(undo);
      } finally {
        for (const step of undo.reverse()) await step();
      }
    });

  lab('marks new TCP, UDP and raw sockets of both families, not the ones made before', async (undo) => {
    const { outer } = makeCgroup(undo);
    const probe = await startProbe(undo, outer);
    assert.equal(await probe.mark(), 0);
    attachSocketMark(outer, spec(probe), 'vpnd_t');
    assert.equal(await probe.mark(), 0x01000000);
    assert.deepEqual(await probe.ask(RAW_KINDS), [0x01000000, 0x01000000]);
    assert.equal(await probe.ask('old'), 0);
  });

  lab('marks sockets of processes in cgroups below', async (undo) => {
    const { outer, inner } = makeCgroup(undo);
    const probe = await startProbe(undo, inner);
    attachSocketMark(outer, spec(probe), 'vpnd_t');
    assert.equal(await probe.mark(), 0x01000000);
  });

  lab('marks no sockets of another uid', async (undo) => {
    const { outer } = makeCgroup(undo);
    const root = await startProbe(undo, outer);
    const user = await startProbe(undo, outer, USER);
    attachSocketMark(outer, spec(root, { uid: USER }), 'vpnd_a');
    attachSocketMark(outer, spec(user, { uid: USER }), 'vpnd_b');
    assert.equal(await root.mark(), 0);
    assert.equal(await user.mark(), 0x01000000);
  });

  lab('marks no sockets of another network namespace', async (undo) => {
    const { outer } = makeCgroup(undo);
    const here = await startProbe(undo, outer);
    const there = await startProbe(undo, outer);
    assert.notEqual(here.cookie, there.cookie);
    attachSocketMark(outer, spec(here), 'vpnd_t');
    assert.equal(await here.mark(), 0x01000000);
    assert.equal(await there.mark(), 0);
    // The upper half of the cookie counts, too.
    detachSocketMarks(outer, { name: () => true });
    attachSocketMark(outer, spec(here, { netnsCookie: here.cookie | (1n << 63n) }), 'vpnd_t');
    assert.equal(await here.mark(), 0);
  });

  lab("a user's program beats root's in the same cgroup, whichever was first", async (undo) => {
    for (const userFirst of [true, false]) {
      const { outer } = makeCgroup(undo);
      const probe = await startProbe(undo, outer, USER);
      const attachUser = () => attachSocketMark(outer, spec(probe, { mark: 0x02000000, uid: USER }), 'vpnd_user');
      if (userFirst) attachUser();
      attachSocketMark(outer, spec(probe, { overwrite: false }), 'vpnd_root');
      if (!userFirst) attachUser();
      assert.deepEqual(
        listSocketMarks(outer).map(({ name }) => name),
        userFirst ? ['vpnd_user', 'vpnd_root'] : ['vpnd_root', 'vpnd_user'],
      );
      assert.equal(await probe.mark(), 0x02000000, `userFirst ${userFirst}`);
    }
  });

  lab("a user's program beats root's, whichever is further up in the tree", async (undo) => {
    for (const userAbove of [true, false]) {
      const { outer, inner } = makeCgroup(undo);
      const probe = await startProbe(undo, inner, USER);
      attachSocketMark(userAbove ? inner : outer, spec(probe, { overwrite: false }), 'vpnd_root');
      attachSocketMark(userAbove ? outer : inner, spec(probe, { mark: 0x02000000, uid: USER }), 'vpnd_user');
      assert.equal(await probe.mark(), 0x02000000, `userAbove ${userAbove}`);
    }
  });

  lab('runs the own cgroup first, keeps bits outside the mask, replaces all bits inside', async (undo) => {
    const { outer, inner } = makeCgroup(undo);
    const probe = await startProbe(undo, inner);
    attachSocketMark(inner, spec(probe, { mark: 0x80000042, mask: 0x8000ffff }), 'foreign');
    attachSocketMark(inner, spec(probe, { mark: 0x1f000000 }), 'vpnd_a');
    attachSocketMark(outer, spec(probe, { mark: 0x02000000 }), 'vpnd_b');
    assert.equal(await probe.mark(), 0x82000042);
  });

  lab('detaching takes only what matches and leaves nothing of it', async (undo) => {
    const { outer } = makeCgroup(undo);
    const probe = await startProbe(undo, outer);
    const before = openFds();
    attachSocketMark(outer, spec(probe, { mark: 0x42, mask: 0xff }), 'foreign');
    attachSocketMark(outer, spec(probe), 'vpnd_a');
    attachSocketMark(outer, spec(probe, { mark: 0x02000000 }), 'vpnd_b');
    const [foreign, a, b] = listSocketMarks(outer);
    assert.ok(foreign && a && b);
    assert.deepEqual(detachSocketMarks(outer, {}), []);
    assert.deepEqual(detachSocketMarks(outer, { name: (name) => name === 'none' }), []);
    assert.deepEqual(detachSocketMarks(outer, { id: foreign.id, name: (name) => name !== 'foreign' }), []);
    assert.deepEqual(detachSocketMarks(outer, { id: b.id }), [b.id]);
    assert.equal(await probe.mark(), 0x01000042);
    assert.deepEqual(detachSocketMarks(outer, { name: (name) => name.startsWith('vpnd_') }), [a.id]);
    assert.equal(await probe.mark(), 0x42);
    assert.deepEqual(listSocketMarks(outer), [foreign]);
    assert.deepEqual(detachSocketMarks(outer, { id: foreign.id }), [foreign.id]);
    assert.deepEqual(listSocketMarks(outer), []);
    assert.equal(await probe.mark(), 0);
    assert.equal(openFds(), before);
  });

  lab('the mark survives the process that attached it; a sweep of the tree finds it by name', async (undo) => {
    const { outer, inner } = makeCgroup(undo);
    const probe = await startProbe(undo, inner);
    const attacher = `const { attachSocketMark } = await import(process.argv[1]);
      const mark = { mark: 0x01000000, mask: 0x3f000000, overwrite: true, netnsCookie: BigInt(process.argv[2]) };
      attachSocketMark(process.argv[3], mark, 'vpnd_swept');
      attachSocketMark(process.argv[4], mark, 'other');`;
    const bpf = new URL('../../src/kernel/bpf.js', import.meta.url).href;
    execFileSync(process.execPath, ['--input-type=module', '-e', attacher, bpf, String(probe.cookie), inner, outer]);
    assert.equal(await probe.mark(), 0x01000000);
    const before = openFds();
    const root = cgroup2Root() as string;
    const mine = (name: string) => name === 'vpnd_swept';
    assert.equal(sweepSocketMarks(root, mine).length, 1);
    assert.deepEqual(sweepSocketMarks(root, mine), []);
    assert.equal(openFds(), before);
    assert.deepEqual(listSocketMarks(inner), []);
    assert.equal(listSocketMarks(outer).length, 1);
  });

  lab('refusals name the call and the object, and leak no descriptor', async (undo) => {
    const { outer } = makeCgroup(undo);
    const probe = await startProbe(undo, outer);
    const before = openFds();
    assert.throws(() => attachSocketMark(`${outer}/none`, spec(probe), 'vpnd_t'), {
      name: 'KernelError',
      errnoName: 'ENOENT',
    });
    assert.throws(() => attachSocketMark('/proc', spec(probe), 'vpnd_t'), {
      call: 'BPF_PROG_ATTACH',
      errnoName: 'EBADF',
    });
    assert.throws(() => attachSocketMark(outer, spec(probe), 'sixteen_chars_xx'), RangeError);
    assert.throws(() => attachSocketMark(outer, spec(probe), ''), RangeError);
    assert.throws(() => attachSocketMark(outer, spec(probe, { mark: 0x40000000 }), 'vpnd_t'), RangeError);
    assert.equal(openFds(), before);
    assert.deepEqual(listSocketMarks(outer), []);
  });

  lab('resolveCgroup() gives the directory of an existing cgroup and refuses files', async (undo) => {
    const { outer, inner } = makeCgroup(undo);
    const root = cgroup2Root() as string;
    assert.equal(resolveCgroup(inner.slice(root.length)), inner);
    assert.equal(resolveCgroup('/'), root);
    assert.throws(() => resolveCgroup(`${outer.slice(root.length)}/cgroup.procs`), { errnoName: 'ENOTDIR' });
    assert.throws(() => resolveCgroup(`${outer.slice(root.length)}/none`), { errnoName: 'ENOENT' });
  });
}
