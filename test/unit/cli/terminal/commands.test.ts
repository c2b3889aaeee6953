/** vpnctl's command line: what it says to words that are none, and to those who ask. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { unknownCommand, usage } from '../../../../src/cli/terminal/commands.js';
import { parseUp, type UpOptions } from '../../../../src/cli/up.js';

/** This file is dist/test/unit/cli/terminal/commands.test.js. */
const VPNCTL = fileURLToPath(new URL('../../../../src/cli/vpnctl.js', import.meta.url));
const MANIFEST = fileURLToPath(new URL('../../../../../package.json', import.meta.url));
const COMMANDS = ['up', 'down', 'status', 'wg', 'leaks', 'events', 'run', 'help'] as const;

function vpnctl(...words: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [VPNCTL, ...words], {
    env: { ...process.env, VPND_SOCKET: '/no/such/socket' },
    encoding: 'utf8',
    input: '',
  });
  return { status, stdout, stderr };
}

test('a word that is no command: what it may have meant, and exit 64', () => {
  const table: Record<string, string> = {
    foo: 'unknown command foo; vpnctl help lists them',
    stauts: 'unknown command stauts; did you mean status? vpnctl help lists them',
    statsu: 'unknown command statsu; did you mean status? vpnctl help lists them',
    dwon: 'unknown command dwon; did you mean down? vpnctl help lists them',
    leak: 'unknown command leak; did you mean leaks? vpnctl help lists them',
    ev: 'unknown command ev; did you mean events? vpnctl help lists them',
    hepl: 'unknown command hepl; did you mean help? vpnctl help lists them',
    'a b\n': 'unknown command "a b\\n"; vpnctl help lists them',
  };
  for (const [word, said] of Object.entries(table)) assert.equal(unknownCommand(word), said);
  for (const words of [['stauts'], ['stauts', '--help']]) {
    assert.deepEqual(vpnctl(...words), {
      status: 64,
      stdout: '',
      stderr: 'vpnctl: unknown command stauts; did you mean status? vpnctl help lists them\n',
    });
  }
});

test('help, --help and -h print all of the usage, or of one command, to standard output', () => {
  for (const words of [['help'], ['--help'], ['-h']]) {
    assert.deepEqual(vpnctl(...words), { status: 0, stdout: usage(), stderr: '' }, words.join());
  }
  const ways = [
    ['help', 'up'],
    ['up', '--help'],
    ['down', '-h', 'x'],
  ];
  for (const words of ways) {
    const command = words.includes('up') ? 'up' : 'down';
    assert.deepEqual(vpnctl(...words), { status: 0, stdout: usage(command), stderr: '' }, words.join());
  }
  for (const command of COMMANDS) {
    assert.match(usage(), new RegExp(`^(usage:| {6}) vpnctl ${command}\\b`, 'm'));
    assert.match(usage(command), new RegExp(`^usage: vpnctl ${command}\\b.*\n( {9}.*\n)+$`));
  }
  assert.ok(
    usage()
      .split('\n')
      .every((line) => line.length <= 120),
  );
});

test('--version is that of the package', () => {
  const { version } = JSON.parse(readFileSync(MANIFEST, 'utf8')) as { version: string };
  assert.deepEqual(vpnctl('--version'), { status: 0, stdout: `${version}\n`, stderr: '' });
});

test('words that a command does not take: 64, what is wrong, and the usage of that command alone', () => {
  const cases: [words: string[], said: RegExp][] = [
    [['status', 'all'], /^vpnctl: "all": takes no more words\n/],
    [['status', '--colour'], /^vpnctl: Unknown option '--colour'\n/],
    [['events', '--json'], /Unknown option '--json'/],
    [['down', 'a', 'b'], /^vpnctl: one FILE, NAME or LINK\n/],
    [['up'], /^vpnctl: up needs one FILE or NAME\n/],
    [['run', '--app', 'x'], /^vpnctl: run needs a command behind --\n/],
  ];
  for (const [words, said] of cases) {
    const { status, stdout, stderr } = vpnctl(...words);
    assert.deepEqual([status, stdout], [64, ''], stderr);
    assert.match(stderr, said);
    const [command] = words as [(typeof COMMANDS)[number]];
    assert.ok(stderr.endsWith(usage(command)), stderr);
  }
  const { status, stdout, stderr } = vpnctl();
  assert.deepEqual([status, stdout], [64, ''], stderr);
  assert.ok(stderr.endsWith(usage()));
});

test('parseUp() takes one file, and options that go together', () => {
  const table: Record<string, Partial<UpOptions>> = {
    'a.conf': { which: 'a.conf', foreground: false, allowHooks: false },
    '--wait a.conf': { which: 'a.conf', waitS: 30 },
    'a.conf --wait': { which: 'a.conf', waitS: 30 },
    '--wait=5 --allow-hooks -- -a.conf': { which: '-a.conf', waitS: 5, allowHooks: true },
    '-': { which: '-' },
  };
  for (const [words, expected] of Object.entries(table)) {
    const options = parseUp(words.split(' '));
    assert.deepEqual({ ...options, ...expected }, options, words);
  }
  const refused: Record<string, RegExp> = {
    '': /^up needs one FILE or NAME$/,
    'a b': /^up needs one FILE or NAME$/,
    '--allow-hooks -': /^--allow-hooks takes a file, not standard input$/,
    '--wait --foreground a': /^--wait is for a tunnel in the background$/,
    '--wait=0 a': /^--wait=0: not a number of seconds/,
    '--wait=1e3 a': /^--wait=1e3: not a number of seconds/,
  };
  for (const [words, message] of Object.entries(refused)) {
    assert.throws(() => parseUp(words.split(' ').filter(Boolean)), { message });
  }
});

test('options of a program that run starts are its own', () => {
  const { status, stderr } = vpnctl('run', '--app', 'x', '--', 'true', '--help');
  assert.equal(status, 69, stderr);
});

test('--json may stand in front; without a service every command is 69 and one line', () => {
  for (const words of [['--json', 'status'], ['events'], ['down', '--json']]) {
    const { status, stdout, stderr } = vpnctl(...words);
    assert.deepEqual([status, stdout], [69, ''], stderr);
    assert.match(stderr, /^vpnctl: [^\n]*no answer at \/no\/such\/socket[^\n]*\n$/);
  }
});
