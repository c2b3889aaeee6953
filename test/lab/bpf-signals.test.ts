/**
 * BPF programs are loaded although signals come meanwhile, as of a reload or of a child that ends: the kernel then stops looking the
 * program over, with EAGAIN. This file again is the process that loads. Needs root.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { appMatchingProblem } from '../../src/host/app-marks.js';
import { APP_KEY_BYTES, appMarksProgram } from '../../src/kernel/bpf-app-marks.js';
import { ATTACH_TYPE } from '../../src/kernel/bpf-attach.js';
import { HashMap, loadProgram, PROGRAM_TYPE } from '../../src/kernel/bpf-syscall.js';
import { kernelOffsets } from '../../src/kernel/kernel-offsets.js';
import { requireRoot } from './lib/prerequisites.js';

const thisFile = fileURLToPath(import.meta.url);
/** Almost each comes while a program is looked over: that is all that the process does. */
const SIGNALS = 8;
/** Between two signals, in seconds: far longer than a look at this program takes, some 13 ms. */
const PAUSE = '0.3';

if (process.argv[2] === 'load') load();
else tests();

function load(): void {
  let signals = 0;
  process.on('SIGUSR2', () => signals++);
  process.send?.('ready');
  process.once('message', () => {
    const map = new HashMap('vpnd_signals', APP_KEY_BYTES, 4, 1);
    const spec = { netnsCookie: 1n, map: map.fd, mask: 0x7f000000, offsets: kernelOffsets() };
    const [attachType, type] = [ATTACH_TYPE.sockCreate, PROGRAM_TYPE.cgroupSock];
    const loadOnce = (): void => {
      closeSync(loadProgram({ name: 'vpnd_signals', type, attachType, ...appMarksProgram(spec) }));
      // In turns, so that signals are heard.
      if (signals < SIGNALS) setImmediate(loadOnce);
      else process.send?.('done');
    };
    loadOnce();
  });
}

/** Every so often, as long as it is there. */
function signalling(child: ChildProcess): ChildProcess {
  return spawn('sh', ['-c', 'while kill -USR2 "$1" 2>/dev/null; do sleep "$2"; done', 'sh', `${child.pid}`, PAUSE]);
}

function tests(): void {
  test('a program is loaded although signals come meanwhile', { timeout: 120_000 }, async (t) => {
    if (!requireRoot(t)) return;
    const problem = appMatchingProblem();
    if (problem !== undefined) return t.skip(problem);
    const child = spawn(process.execPath, [thisFile, 'load'], { stdio: ['ignore', 'inherit', 'pipe', 'ipc'] });
    t.after(() => child.kill('SIGKILL'));
    let said = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    await once(child, 'message');
    const sender = signalling(child);
    child.send('begin');
    const [answer] = await Promise.race([once(child, 'message'), once(child, 'close').then(() => [undefined])]);
    // Before the one whose number it has.
    sender.kill('SIGKILL');
    assert.equal(answer, 'done', said);
  });
}
