/** `node --import vpn-manager/register FILE.ets [METHOD…]` on small components: order, outcome, exit status. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../..', import.meta.url));
let directory = '';

const page = `
import { socket } from '@kit.NetworkKit';
import { common } from '@kit.AbilityKit';
import { twice } from './lib';

@Entry
@Component
struct Index {
  private context: common.UIAbilityContext = this.getUIContext().getHostContext() as common.UIAbilityContext;
  first(): void { console.info('first ' + JSON.stringify(this.context)); }
  calls(): void {
    const tcp: socket.TCPSocket = socket.constructTCPSocketInstance();
    tcp.bind({ address: '127.0.0.1' }, () => {
      tcp.connect({ address: { address: '127.0.0.1', port: 1 } }).catch((error: Error) => console.info(error.message));
    });
  }
  next(): void { console.info('next'); }
  async waits(): Promise<void> {
    await new Promise<void>(resolve => setTimeout(resolve, 20));
    console.info(twice('waited '));
  }
  build() { console.info('built'); }
}
`;

const files = {
  'page.ets': page,
  'lib.ets': 'export function twice(text: string): string { return text + text; }\n',
  'throws.ets': `@Entry @Component struct Page {\n  ok() { console.info('ok'); }\n  bad() { throw new Error('boom'); }\n  build() {}\n}\n`,
  'rejects.ets': `@Entry @Component struct Page {\n  async bad(): Promise<void> { throw new Error('boom'); }\n}\n`,
  'broken.ets': '@Entry\nstruct Page {\n  foo( }\n',
  'plain.ets': `console.info('plain');\n`,
  'legacy.mjs': `import vpn from '@ohos.net.vpn';\nimport * as kit from '@kit.NetworkKit';\nconsole.info(vpn === kit.vpn);\n`,
};

before(() => {
  directory = mkdtempSync(join(tmpdir(), 'ets-runner-'));
  mkdirSync(join(directory, 'node_modules'));
  symlinkSync(root, join(directory, 'node_modules/vpn-manager'));
  for (const [file, text] of Object.entries(files)) writeFileSync(join(directory, file), text);
});

after(() => rmSync(directory, { recursive: true, force: true }));

function run(...script: string[]): { status: number | null; stdout: string; stderr: string } {
  const options = { cwd: directory, encoding: 'utf8', timeout: 90_000 } as const;
  return spawnSync(process.execPath, ['--import', 'vpn-manager/register', ...script], options);
}

const refused = 'Connection refused. write ECONNREFUSED';

for (const type of ['no package.json', 'commonjs', 'module']) {
  test(`all methods but build run in order, each after the calls of the one before (${type})`, () => {
    if (type !== 'no package.json') writeFileSync(join(directory, 'package.json'), JSON.stringify({ type }));
    const { status, stdout, stderr } = run('page.ets');
    assert.equal(stderr, '');
    assert.deepEqual(stdout.split('\n'), ['first {}', refused, 'next', 'waited waited ', '']);
    assert.equal(status, 0);
  });
}

test('named methods run in the order named, build too', () => {
  const { status, stdout } = run('page.ets', 'waits', 'build', 'first');
  assert.deepEqual([status, stdout], [0, 'waited waited \nbuilt\nfirst {}\n']);
});

test('an unknown method is exit 2 with a sentence, and nothing has run', () => {
  const { status, stdout, stderr } = run('page.ets', 'first', 'second');
  assert.deepEqual([status, stdout], [2, '']);
  assert.equal(stderr, 'Index in page.ets has no method second; it has first, calls, next, waits, build.\n');
});

test('methods of a script without a component are exit 2; without methods it simply runs', () => {
  assert.equal(run('plain.ets', 'first').status, 2);
  const { status, stdout } = run('plain.ets');
  assert.deepEqual([status, stdout], [0, 'plain\n']);
});

for (const file of ['throws.ets', 'rejects.ets']) {
  test(`a method that fails is exit 1 with the error on stderr (${file})`, () => {
    const { status, stderr } = run(file);
    assert.equal(status, 1);
    assert.match(stderr, /Error: boom\n/);
  });
}

test('a syntax error names file, line and column', () => {
  const { status, stderr } = run('broken.ets');
  assert.equal(status, 1);
  assert.match(stderr, /broken\.ets:3:8: /);
});

test('a script in JavaScript gets the hooks only', () => {
  const { status, stdout } = run('legacy.mjs');
  assert.deepEqual([status, stdout], [0, 'true\n']);
});

test('without ohos-typescript one sentence names the command that installs it', () => {
  const bare = join(directory, 'bare');
  const copy = join(bare, 'node_modules/vpn-manager');
  cpSync(join(root, 'dist/src'), join(copy, 'dist/src'), { recursive: true });
  cpSync(join(root, 'package.json'), join(copy, 'package.json'));
  cpSync(join(directory, 'page.ets'), join(bare, 'page.ets'));
  const options = { cwd: bare, encoding: 'utf8' } as const;
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'vpn-manager/register', 'page.ets'], options);
  assert.equal(status, 1);
  assert.match(stderr, /page\.ets needs the ArkTS compiler: npm install --save-dev ohos-typescript\n/);
});
