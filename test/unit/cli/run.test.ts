import assert from 'node:assert/strict';
import test from 'node:test';
import { parseLaunch } from '../../../src/cli/run.js';

test('parseLaunch() takes everything behind -- as the command, options and all', () => {
  assert.deepEqual(parseLaunch(['--app', 'firefox', '--', 'env', '--app', 'x', '--', '-y']), {
    app: 'firefox',
    command: 'env',
    args: ['--app', 'x', '--', '-y'],
  });
  assert.deepEqual(parseLaunch(['--app=a', '--', 'ls']), { app: 'a', command: 'ls', args: [] });
});

test('parseLaunch() refuses what it does not know, and what is missing', () => {
  const bad: [words: string[], said: RegExp][] = [
    [[], /--app ID/],
    [['--', 'ls'], /--app ID/],
    [['--app', 'a'], /command behind --/],
    [['--app', 'a', '--'], /command behind --/],
    [['--app', 'a', '--', ''], /command behind --/],
    [['--app', 'a', 'ls'], /ls/],
    [['ls', '--app', 'a', '--', 'ls'], /ls/],
    [['--app', 'a', '--json', '--', 'ls'], /--json/],
    [['--app', '--', 'ls'], /--app/],
  ];
  for (const [words, said] of bad) assert.throws(() => parseLaunch(words), { message: said }, words.join(' '));
});
