/** Runs a Resolver as told on standard input, one JSON object a line; answers `done ID ERROR`. The log goes to stderr. */
import { createInterface } from 'node:readline';
import { Resolver } from '../../../src/host/resolver/resolver.js';

const resolver = new Resolver({
  stateDir: process.argv[2] ?? '',
  log: (level, event, fields) => console.error(level, event, JSON.stringify(fields ?? {})),
  onFight: (what) => console.error('fight', what),
});

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, method, argument } = JSON.parse(line);
  try {
    await resolver[method as 'apply' | 'restore' | 'sweep'](argument);
    console.log(`done ${id} `);
  } catch (error) {
    console.log(`done ${id} ${JSON.stringify((error as Error).message)}`);
  }
});
console.log('ready');
