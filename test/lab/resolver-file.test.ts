/**
 * A plain /etc/resolv.conf, as a file and as a mount of its own; libc asks. Topology: lib/resolver-lab.ts. How the original
 * outlives a kill at every step is in test/unit/host/resolver/resolv-file.test.ts.
 *
 *   getent ── /etc/resolv.conf ─┬─ vpn-tun0 ── 10.9.0.11, fd09::1   (answers 192.0.2.99)
 *                               └─ eth0 ────── 192.0.2.1            (answers 192.0.2.98)
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { requireRoot } from './lib/prerequisites.js';
import { MACHINE, type ResolverLab, resolverLab, startResolver, VPN } from './lib/resolver-lab.js';
import { eventually } from './lib/vpn-lab.js';

const ORIGINAL = `# by hand\nnameserver ${MACHINE.server}\nsearch lan.example\n`;

async function fileLab(t: TestContext): Promise<ResolverLab | undefined> {
  if (!requireRoot(t)) return undefined;
  const lab = await resolverLab(t);
  await lab.app.run('sh', ['-c', 'cat > /etc/resolv.conf'], { input: ORIGINAL });
  return lab;
}

/** The file becomes a mount of another file, as in a container. */
async function mountFile({ app }: ResolverLab, isFolderReadOnly: boolean): Promise<void> {
  // Root of a user namespace cannot write there in the first place.
  const make = '[ ! -w /etc ] || { mount --bind /etc /etc; mount -o remount,bind,ro /etc; };';
  const readOnly = isFolderReadOnly ? make : '';
  const script = `cat > /run/resolv.conf; ${readOnly} mount --bind /run/resolv.conf /etc/resolv.conf`;
  await app.run('sh', ['-ec', script], { input: ORIGINAL });
}

async function assertUsed(lab: ResolverLab): Promise<void> {
  const asked = await lab.asked(async () => {
    assert.equal(await lab.lookUp('intranet'), VPN.answer);
    assert.equal(await lab.lookUp('www.example.net'), VPN.answer);
  });
  assert.deepEqual(asked, {
    vpn: [`intranet.corp.example @${VPN.server}`, `www.example.net @${VPN.server}`],
    machine: [],
  });
}

const leftovers = async ({ app }: ResolverLab) =>
  (await app.run('sh', ['-c', 'ls /etc | grep "^resolv.conf." || true'])).stdout;

test('file: the VPN’s servers and domains instead of the machine’s, and the file as before afterwards', {
  timeout: 120_000,
}, async (t) => {
  const lab = await fileLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await resolver.apply(lab.request());
  await assertUsed(lab);
  await resolver.restore();
  assert.equal(await lab.read(), ORIGINAL);
  assert.equal(await leftovers(lab), '');
  assert.equal(await lab.lookUp('www.example.net'), MACHINE.answer);
});

test('file: a server that refuses is followed by the next, of either family', { timeout: 120_000 }, async (t) => {
  const lab = await fileLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await resolver.apply(lab.request({ servers: [VPN.closed, VPN.server6] }));
  const asked = await lab.asked(async () => assert.equal(await lab.lookUp('www.example.net'), VPN.answer));
  assert.deepEqual(asked, {
    vpn: [`www.example.net @${VPN.closed}`, `www.example.net @${VPN.server6}`],
    machine: [],
  });
});

test('file: what DHCP writes meanwhile takes no DNS from the VPN, and is what comes back', {
  timeout: 120_000,
}, async (t) => {
  const lab = await fileLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await resolver.apply(lab.request());
  const ours = await lab.read();
  const lease = `nameserver ${MACHINE.server}\n# lease of today\n`;
  await lab.app.run('sh', ['-c', 'cat > /etc/resolv.conf'], { input: lease });
  await eventually('the file is the VPN’s again', async () => (await lab.read()) === ours || undefined);
  await assertUsed(lab);
  await resolver.restore();
  assert.equal(await lab.read(), lease);
});

for (const [what, isFolderReadOnly] of [
  ['a mount', false],
  ['a mount in a folder that takes no file', true],
] as const) {
  test(`file that is ${what}: written in place, overwritten from outside, put back`, {
    timeout: 120_000,
  }, async (t) => {
    const lab = await fileLab(t);
    if (!lab) return;
    await mountFile(lab, isFolderReadOnly);
    const resolver = await startResolver(lab.app);
    await resolver.apply(lab.request());
    await assertUsed(lab);
    const ours = await lab.read();
    // The container's engine has the file under another name.
    await lab.app.run('sh', ['-c', 'cat > /run/resolv.conf'], { input: `${ORIGINAL}# renewed\n` });
    await eventually('the file is the VPN’s again', async () => (await lab.read()) === ours || undefined);
    await resolver.restore();
    assert.equal(await lab.read(), `${ORIGINAL}# renewed\n`);
    assert.equal(await leftovers(lab), '');
  });

  test(`file that is ${what}: killed, applied again, killed, swept: the original`, { timeout: 120_000 }, async (t) => {
    const lab = await fileLab(t);
    if (!lab) return;
    await mountFile(lab, isFolderReadOnly);
    await killTwice(lab);
  });
}

test('file: killed, applied again, killed, swept: the original', { timeout: 120_000 }, async (t) => {
  const lab = await fileLab(t);
  if (lab) await killTwice(lab);
});

async function killTwice(lab: ResolverLab): Promise<void> {
  for (const servers of [[VPN.server], [VPN.server6]]) {
    const resolver = await startResolver(lab.app);
    await resolver.apply(lab.request({ servers }));
    assert.equal(await lab.lookUp('www.example.net'), VPN.answer);
    await resolver.process.kill('SIGKILL');
    assert.equal(await lab.lookUp('www.example.net'), VPN.answer);
  }
  const last = await startResolver(lab.app);
  await last.sweep();
  assert.equal(await lab.read(), ORIGINAL);
  assert.equal(await leftovers(lab), '');
}
