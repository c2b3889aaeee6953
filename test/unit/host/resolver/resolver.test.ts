/** The whole of it on machines whose resolver is the file alone: what is decided, watched, repaired and given back. */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { RepairRate } from '../../../../src/host/resolver/repair-rate.js';
import { fileText } from '../../../../src/host/resolver/resolv-conf.js';
import { Resolver } from '../../../../src/host/resolver/resolver.js';
import { REQUEST } from './lib/requests.js';

const TEXT = fileText(REQUEST, '');
const ORIGINAL = 'nameserver 192.0.2.53\n';

interface Machine {
  resolver: Resolver;
  path: string;
  events: string[];
  fights: string[];
  read(): string;
  /** Waits until the file says this. */
  says(text: string): Promise<void>;
}

function machine(t: TestContext, original = ORIGINAL, isOthers = false): Machine {
  const folder = mkdtempSync(join(tmpdir(), 'resolver-'));
  const path = join(folder, 'etc', 'resolv.conf');
  mkdirSync(join(folder, 'etc'));
  writeFileSync(path, original);
  const events: string[] = [];
  const fights: string[] = [];
  const resolver = new Resolver({
    stateDir: folder,
    log: (_, event) => events.push(event),
    onFight: (what) => fights.push(what),
    resolvConf: path,
    busSocket: join(folder, 'no-bus'),
    isOthers: async (asked) => isOthers && asked === path,
  });
  t.after(() => {
    resolver.close();
    rmSync(folder, { recursive: true });
  });
  const read = () => readFileSync(path, 'utf8');
  const says = async (text: string) => {
    for (let tries = 0; tries < 1500 && !(existsSync(path) && read() === text); tries++) await sleep(20);
    assert.equal(read(), text);
  };
  return { resolver, path, events, fights, read, says };
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('apply() writes the file, another apply() replaces it, restore() puts the original back, twice is fine', async (t) => {
  const { resolver, read, events } = machine(t);
  await resolver.apply(REQUEST);
  assert.equal(read(), TEXT);
  await resolver.apply({ ...REQUEST, servers: ['10.9.0.99'] });
  assert.match(read(), /^nameserver 10\.9\.0\.99$/m);
  await resolver.restore();
  assert.equal(read(), ORIGINAL);
  await resolver.restore();
  assert.deepEqual(events, ['resolver', 'resolver']);
});

test('calls that overlap are carried out in their order', async (t) => {
  const { resolver, read } = machine(t);
  await Promise.all([resolver.apply(REQUEST), resolver.restore(), resolver.apply(REQUEST), resolver.restore()]);
  assert.equal(read(), ORIGINAL);
});

test('what somebody writes, in place or by rename, is overwritten, and is what comes back', async (t) => {
  const { resolver, path, read, says } = machine(t);
  await resolver.apply(REQUEST);
  writeFileSync(path, 'nameserver 192.0.2.77\n');
  await says(TEXT);
  writeFileSync(`${path}.theirs`, 'nameserver 192.0.2.78\n');
  renameSync(`${path}.theirs`, path);
  await says(TEXT);
  rmSync(path);
  await says(TEXT);
  await resolver.restore();
  assert.equal(read(), 'nameserver 192.0.2.78\n');

  writeFileSync(path, 'nameserver 192.0.2.79\n');
  await sleep(300);
  assert.equal(read(), 'nameserver 192.0.2.79\n');
});

test('a fight is reported', { timeout: 100_000 }, async (t) => {
  const { resolver, path, says, fights } = machine(t);
  await resolver.apply(REQUEST);
  const begin = performance.now();
  // On a machine that stood still meanwhile the first ten may be too far apart.
  for (let round = 0; round < 10 || (fights.length === 0 && round < 40); round++) {
    writeFileSync(path, `nameserver 192.0.2.${100 + round}\n`);
    await says(TEXT);
  }
  assert.equal(fights.length, 1, fights.join());
  // Not a measurement: the first repair is at once, nine more cannot take less than nine half seconds.
  assert.ok(performance.now() - begin > 4400);
  await resolver.restore();
});

test('RepairRate lets one through at once and the next half a second later, and reports once a minute', () => {
  const rate = new RepairRate();
  assert.equal(rate.waitMs(1000), 0);
  assert.equal(rate.isFight(1000), false);
  assert.equal(rate.waitMs(1100), 400);
  assert.equal(rate.waitMs(1500), 0);
  const reports = Array.from({ length: 200 }, (_, index) => 1500 + 500 * index).filter((now) => rate.isFight(now));
  assert.deepEqual(reports, [4500, 64_500]);
  const calm = new RepairRate();
  assert.ok(Array.from({ length: 50 }, (_, index) => 2000 * index).every((now) => !calm.isFight(now)));
});

test('sweep() puts back what a dead service left, and touches nothing else', async (t) => {
  const { resolver, read, says } = machine(t);
  assert.equal(await resolver.sweep(), false);
  await resolver.apply(REQUEST);
  resolver.close();
  await says(TEXT);
  assert.equal(await resolver.sweep(), true);
  assert.equal(read(), ORIGINAL);
});

test('a file of systemd-resolved where no systemd-resolved answers is replaced like any other', async (t) => {
  const { resolver, path, read } = machine(t);
  rmSync(path);
  symlinkSync('/run/systemd/resolve/stub-resolv.conf', path);
  await resolver.apply(REQUEST);
  assert.equal(read(), TEXT);
  await resolver.restore();
  assert.throws(() => writeFileSync(path, '', { flag: 'ax' }), { code: 'EEXIST' });
});

test('a file that cannot be written is a warning, once, and what was told before is taken back', async (t) => {
  const { resolver, path, read, events } = machine(t);
  await resolver.apply(REQUEST);
  mkdirSync(`${path}.vpnd-new`);
  writeFileSync(join(`${path}.vpnd-new`, 'x'), '');
  await resolver.apply({ ...REQUEST, servers: ['10.9.0.99'] });
  await resolver.apply({ ...REQUEST, servers: ['10.9.0.98'] });
  assert.deepEqual(events, ['resolver', 'resolver-not-told']);
  rmSync(`${path}.vpnd-new`, { recursive: true });
  await resolver.restore();
  assert.equal(read(), ORIGINAL);
});

test('a file that can be written again is written', async (t) => {
  const { resolver, path, says, events } = machine(t);
  rmSync(path);
  mkdirSync(path);
  await resolver.apply(REQUEST);
  assert.deepEqual(events, ['resolver-not-told']);
  rmdirSync(path);
  writeFileSync(path, ORIGINAL);
  await says(TEXT);
  await resolver.restore();
  await says(ORIGINAL);
});

test("another network's file is neither written nor swept", async (t) => {
  const { resolver, path, read, events } = machine(t, ORIGINAL, true);
  writeFileSync(`${path}.before-vpnd`, 'of a service there');
  assert.equal(await resolver.sweep(), false);
  await resolver.apply(REQUEST);
  await resolver.restore();
  assert.deepEqual(events, ['resolver-not-told']);
  assert.equal(read(), ORIGINAL);
  assert.equal(readFileSync(`${path}.before-vpnd`, 'utf8'), 'of a service there');
});

test('a bad value is refused before anything is changed', async (t) => {
  const { resolver, read } = machine(t);
  await assert.rejects(resolver.apply({ ...REQUEST, servers: ['x\ny'] }), { code: 2200003 });
  assert.equal(read(), ORIGINAL);
});

test('search domains that resolv.conf has no room for are said in the log', async (t) => {
  const { resolver, events } = machine(t);
  const searchDomains = Array.from({ length: 64 }, (_, index) => `department-${index}.example`);
  await resolver.apply({ ...REQUEST, searchDomains });
  assert.deepEqual(events, ['resolver', 'search-domains-cut']);
  await resolver.restore();
});
