/** Which words `vpnctl down` takes for a tunnel. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isMeant } from '../../../src/cli/down.js';

test('a tunnel is meant by its name, its link, and its file as one may say it from any folder', (t) => {
  const home = realpathSync(mkdtempSync(join(tmpdir(), 'vpn-down-')));
  const before = process.cwd();
  t.after(() => {
    process.chdir(before);
    rmSync(home, { recursive: true });
  });
  mkdirSync(join(home, 'other'));
  for (const name of ['office', 'Büro Zürich (Gäste-WLAN)']) {
    const file = join(home, `${name}.conf`);
    writeFileSync(file, '');
    const tunnel = { name, file, link: 'vpn-tun0' };
    const is = (which: string) => isMeant(tunnel, which);
    process.chdir(home);
    for (const which of [name, `${name}.conf`, `./${name}.conf`, `other/../${name}.conf`, file, 'vpn-tun0']) {
      assert.ok(is(which), which);
    }
    process.chdir(join(home, 'other'));
    for (const which of [name, `${name}.conf`, `../${name}.conf`, file, 'vpn-tun0']) assert.ok(is(which), which);
    symlinkSync(file, `link-${name}`);
    assert.ok(is(`./link-${name}`), 'a link to the file');
    for (const which of [
      `./${name}.conf`,
      `/elsewhere/${name}.conf`,
      'vpn-tun1',
      'off',
      '',
      '.',
      `${name}.conf.conf`,
    ]) {
      assert.ok(!is(which), `not ${which}`);
    }
    rmSync(file);
    assert.ok(is(`../${name}.conf`), 'although the file is gone');
  }
});

test('a tunnel from standard input is meant by - and stdin', () => {
  const tunnel = { name: 'stdin', file: '-', link: 'vpn-tun0' };
  for (const which of ['-', 'stdin', 'vpn-tun0']) assert.ok(isMeant(tunnel, which), which);
  assert.ok(!isMeant(tunnel, './-'));
});
