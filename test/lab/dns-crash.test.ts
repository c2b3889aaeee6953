/**
 * vpnd killed in the middle of telling the machine's resolver about root's VPN: whatever it was at, its successor finds the
 * machine's own configuration, a VPN can be set up again, and destroy leaves every byte as it was. lib/dns-lab.ts has the picture.
 *
 *   vpnd ✝ ── resolv.conf, resolv.conf.before-vpnd, openresolv's records, resolved's link ── vpnd's successor
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BACK_ENDS, type DnsLab, dnsLab, dnsOf } from './lib/dns-lab.js';
import { startApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';
import { startVpnd, type Vpnd, type VpndOptions } from './lib/vpnd.js';

const ROUNDS = 20;

/** When it has swept; it listens before. */
async function startReady({ app }: DnsLab, options: VpndOptions): Promise<Vpnd> {
  const vpnd = await startVpnd(app, options);
  await vpnd.process.waitFor(/ ready /, 60_000);
  return vpnd;
}

for (const backEnd of BACK_ENDS) {
  test(`${backEnd}: vpnd killed at any moment of setUp, started again, set up again and destroyed, ${ROUNDS} times: the original`, {
    timeout: 600_000,
  }, async (t) => {
    const lab = await dnsLab(t, backEnd);
    if (!lab) return;
    const exit = exitOf(lab, 2);
    const config = vpnConfig(exit.vnic, dnsOf(exit, { searchDomains: ['corp.example'] }));
    const original = await lab.file();
    const directory = lab.vpnd.policyFile.replace(/\/[^/]*$/, '');
    let vpnd = lab.vpnd;
    let root = await startApp(lab.app, 0, vpnd);
    let setUpMs = 100;
    let changed = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const failed = root.call('setUp', config).catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, (setUpMs * (round + 1)) / ROUNDS));
      await vpnd.kill9();
      await failed;
      if ((await lab.file()) !== original) changed++;
      const victim = root;
      [vpnd, root] = await Promise.all([startReady(lab, { directory }), startApp(lab.app, 0, vpnd)]);
      // resolved hears by itself of the end of a link.
      const isOriginal = async () => (await lab.file()) === original || undefined;
      if (backEnd === 'systemd-resolved') await eventually('the original', isOriginal).catch(() => undefined);
      assert.equal(await lab.file(), original, `round ${round}: started again`);
      await victim.kill9();

      const before = performance.now();
      await root.call('setUp', config);
      setUpMs = performance.now() - before;
      assert.notEqual(await lab.file(), original);
      await root.call('destroy');
      assert.equal(await lab.file(), original, `round ${round}: destroyed`);
    }
    t.diagnostic(`killed with the file changed: ${changed} of ${ROUNDS}`);
    assert.equal(await lab.lookUp({ uid: 2002, name: 'end.example.net' }), 'machine');
    assert.deepEqual(await leftovers(lab), []);
  });
}

test('file: vpnd killed before each of its changes, in setUp, in destroy and at start: the original', {
  timeout: 600_000,
}, async (t) => {
  const lab = await dnsLab(t, 'file');
  if (!lab) return;
  const exit = exitOf(lab, 2);
  const original = await lab.file();
  const directory = lab.vpnd.policyFile.replace(/\/[^/]*$/, '');
  await lab.vpnd.kill9();
  const dying = (change: number) => ({
    directory,
    env: {
      RESOLV_CHANGE: String(change),
      NODE_OPTIONS: `--import ${lab.app.path('dist/test/lab/lib/vpnd-that-dies.js')}`,
    },
  });
  const states = new Set<string>();
  let deaths = 0;
  for (let change = 0, lived = false; !lived; change++) {
    assert.ok(change < 40);
    // Dies again at start, where it puts back what the one before has left, then with a successor that lives.
    const first = await startReady(lab, dying(change)).catch(() => undefined);
    if (first) {
      const root = await startApp(lab.app, 0, first);
      const work = async () => {
        await root.call('setUp', vpnConfig(exit.vnic, dnsOf(exit)));
        await root.call('destroy');
      };
      lived = await work().then(
        () => true,
        () => false,
      );
      await root.kill9();
      if (lived) await first.kill9();
    }
    if (!lived) deaths++;
    states.add(`${(await lab.file()) === original} ${await leftovers(lab)}`);
    for (let again = 0; again < 2; again++)
      await startReady(lab, dying(again)).then(
        (each) => each.kill9(),
        () => {},
      );
    const last = await startReady(lab, { directory });
    assert.equal(await lab.file(), original, `change ${change}`);
    assert.deepEqual(await leftovers(lab), [], `change ${change}`);
    await last.kill9();
  }
  // Between backup and write, and with the write done, were among them.
  assert.ok(deaths >= 6, `${deaths} deaths`);
  for (const state of ['true resolv.conf.before-vpnd', 'false resolv.conf.before-vpnd']) {
    assert.ok(
      [...states].some((each) => each.startsWith(state)),
      `${state} among ${[...states].join('; ')}`,
    );
  }
});

/** What stands beside resolv.conf. */
async function leftovers({ app }: DnsLab): Promise<string[]> {
  const { stdout } = await app.run('sh', ['-c', 'ls /etc | grep "^resolv.conf." || true']);
  return stdout.split('\n').filter((name) => name !== '');
}
