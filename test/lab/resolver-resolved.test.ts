/**
 * A real systemd-resolved on a D-Bus of its own is told of the VPN and asked by libc. Topology: lib/resolver-lab.ts.
 *
 *   getent ── 127.0.0.53 systemd-resolved ─┬─ vpn-tun0 ── 10.9.0.11   (answers 192.0.2.99)
 *                                          └─ eth0 ────── 192.0.2.1   (answers 192.0.2.98)
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { MAX_DNS_ADDRESSES, MAX_SEARCH_DOMAINS } from '../../src/model/limits.js';
import type { LabProcess } from './lib/process.js';
import { logged, MACHINE, type ResolverLab, resolverLab, startResolver, VPN } from './lib/resolver-lab.js';
import { installResolved, requireResolvers, resolvectl, startBus, startResolved } from './lib/resolvers.js';
import { eventually } from './lib/vpn-lab.js';

interface ResolvedLab extends ResolverLab {
  bus: LabProcess;
  resolved: LabProcess;
}

async function resolvedLab(t: TestContext): Promise<ResolvedLab | undefined> {
  if (!requireResolvers(t)) return undefined;
  const lab = await resolverLab(t);
  await installResolved(lab.app, [MACHINE.server]);
  const bus = await startBus(lab.app);
  const resolved = await startResolved(lab.app);
  assert.equal(await lab.lookUp('before.example'), MACHINE.answer);
  return { ...lab, bus, resolved };
}

/** What resolved says of the link: `Link 2 (vpn-tun0): VALUE`, folded to the terminal's width. */
async function linkHas({ app }: ResolverLab, what: 'dns' | 'domain' | 'default-route'): Promise<string> {
  const line = await resolvectl(app, what, 'vpn-tun0');
  return line
    .slice(line.indexOf('):') + 2)
    .trim()
    .replace(/\s+/g, ' ');
}

const STUB = /^nameserver 127\.0\.0\.53$/m;

test('systemd-resolved: servers in order, domains, every name to the VPN, and all as before afterwards', {
  timeout: 120_000,
}, async (t) => {
  const lab = await resolvedLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  const file = await lab.read();
  const flushes = () => lab.resolved.stderr.match(/Flushed all caches/g)?.length ?? 0;
  await resolver.apply(
    lab.request({ servers: [VPN.server, VPN.server6], searchDomains: ['corp.example', 'x.example'] }),
  );
  assert.equal(await linkHas(lab, 'dns'), `${VPN.server} ${VPN.server6}`);
  assert.deepEqual((await linkHas(lab, 'domain')).split(' ').sort(), ['corp.example', 'x.example', '~.']);
  assert.equal(await linkHas(lab, 'default-route'), 'yes');
  const asked = await lab.asked(async () => {
    assert.equal(await lab.lookUp('intranet'), VPN.answer);
    assert.equal(await lab.lookUp('www.example.net'), VPN.answer);
    assert.equal(await lab.lookUp('before.example'), VPN.answer);
  });
  assert.deepEqual(
    asked.vpn,
    ['before.example', 'intranet.corp.example', 'www.example.net'].map((name) => `${name} @${VPN.server}`),
  );
  assert.deepEqual(asked.machine, []);
  assert.equal(flushes(), 1);
  assert.match(await lab.read(), STUB);
  assert.match(await lab.read(), /^search corp\.example x\.example$/m);

  await resolver.restore();
  assert.equal(await linkHas(lab, 'dns'), '');
  assert.equal(await linkHas(lab, 'domain'), '');
  assert.equal(await lab.lookUp('www.example.net'), MACHINE.answer);
  assert.equal(await lab.read(), file);
  assert.equal(flushes(), 2);
});

test('systemd-resolved: a VPN that is not for every name answers for its domains only', {
  timeout: 120_000,
}, async (t) => {
  const lab = await resolvedLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await resolver.apply(lab.request({ exclusive: false }));
  assert.equal(await linkHas(lab, 'domain'), 'corp.example');
  assert.equal(await linkHas(lab, 'default-route'), 'no');
  const asked = await lab.asked(async () => {
    assert.equal(await lab.lookUp('intranet'), VPN.answer);
    assert.equal(await lab.lookUp('www.example.net'), MACHINE.answer);
  });
  assert.deepEqual(asked, {
    vpn: [`intranet.corp.example @${VPN.server}`],
    machine: [`www.example.net @${MACHINE.server}`],
  });
});

test('systemd-resolved: takes as many servers and domains as a VPN may have', { timeout: 120_000 }, async (t) => {
  const lab = await resolvedLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  const servers = Array.from({ length: MAX_DNS_ADDRESSES }, (_, index) => `10.9.0.${index + 20}`);
  const searchDomains = Array.from({ length: MAX_SEARCH_DOMAINS }, (_, index) => `department-${index}.example`);
  await resolver.apply(lab.request({ servers, searchDomains }));
  assert.deepEqual((await linkHas(lab, 'dns')).split(' '), servers);
  assert.deepEqual((await linkHas(lab, 'domain')).split(' ').sort(), [...searchDomains, '~.'].sort());
});

test('systemd-resolved: a server that refuses is followed by the next', { timeout: 120_000 }, async (t) => {
  const lab = await resolvedLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await resolver.apply(lab.request({ servers: [VPN.closed, VPN.server] }));
  const asked = await lab.asked(async () => assert.equal(await lab.lookUp('www.example.net'), VPN.answer));
  assert.deepEqual(asked.machine, []);
  assert.ok(
    asked.vpn.includes(`www.example.net @${VPN.closed}`) && asked.vpn.includes(`www.example.net @${VPN.server}`),
  );
});

test('systemd-resolved: killed and started again without its memory, it is told again, five times', {
  timeout: 240_000,
}, async (t) => {
  const lab = await resolvedLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await resolver.apply(lab.request());
  for (let round = 0, { resolved } = lab; round < 5; round++) {
    await resolved.kill('SIGKILL');
    await lab.app.run('rm', ['-rf', '/run/systemd/resolve/netif']);
    resolved = await startResolved(lab.app);
    await eventually(
      'the link has its server again',
      async () => (await linkHas(lab, 'dns')) === VPN.server || undefined,
    );
    await eventually('every name goes there', async () => (await linkHas(lab, 'default-route')) === 'yes' || undefined);
    const asked = await lab.asked(async () => assert.equal(await lab.lookUp(`round${round}.example`), VPN.answer));
    assert.deepEqual(asked, { vpn: [`round${round}.example @${VPN.server}`], machine: [] });
  }
  await resolver.restore();
  assert.equal(await linkHas(lab, 'dns'), '');
});

test('systemd-resolved: the bus and resolved die; when both are back, it is told again', {
  timeout: 120_000,
}, async (t) => {
  const lab = await resolvedLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await resolver.apply(lab.request());
  await lab.bus.kill('SIGKILL');
  await lab.resolved.kill('SIGKILL');
  await lab.app.run('rm', ['-rf', '/run/systemd/resolve/netif', '/run/dbus/system_bus_socket']);
  await startBus(lab.app);
  await startResolved(lab.app);
  await eventually(
    'the link has its server again',
    async () => (await linkHas(lab, 'dns')) === VPN.server || undefined,
  );
  assert.equal(await lab.lookUp('www.example.net'), VPN.answer);
});

test('systemd-resolved: restore() does not wait for a bus that is dead or for a resolved that does not answer', {
  timeout: 120_000,
}, async (t) => {
  const lab = await resolvedLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await resolver.apply(lab.request());
  await lab.app.run('kill', ['-STOP', String(lab.resolved.pid)]);
  await assert.rejects(resolver.restore(), /RevertLink: org\.freedesktop\.DBus\.Error\.NoReply/);
  await lab.app.run('kill', ['-CONT', String(lab.resolved.pid)]);
  await resolver.restore();
  await eventually('nothing is left', async () => (await linkHas(lab, 'dns')) === '' || undefined);

  await resolver.apply(lab.request());
  await lab.bus.kill('SIGKILL');
  await resolver.restore();
});

test('systemd-resolved that does not answer at apply() is 2200003 in a sentence', { timeout: 120_000 }, async (t) => {
  const lab = await resolvedLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await lab.app.run('kill', ['-STOP', String(lab.resolved.pid)]);
  await assert.rejects(
    resolver.apply(lab.request()),
    /System internal error\. the machine's resolver \(systemd-resolved\) cannot be told: SetLinkDNS: /,
  );
});

test('where resolved is not running its file is replaced; when it starts it is told and the file comes back', {
  timeout: 120_000,
}, async (t) => {
  const lab = await resolvedLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await lab.resolved.kill('SIGKILL');
  await resolver.apply(lab.request());
  assert.match(await lab.read(), new RegExp(`^nameserver ${VPN.server}$`, 'm'));
  assert.equal(await lab.lookUp('www.example.net'), VPN.answer);

  await startResolved(lab.app);
  await eventually('the link has its server', async () => (await linkHas(lab, 'dns')) === VPN.server || undefined);
  await logged(resolver, /resolver-again .*"resolved started".*"systemd-resolved"/);
  assert.equal(
    (await lab.app.run('readlink', ['/etc/resolv.conf'])).stdout,
    '../run/systemd/resolve/stub-resolv.conf\n',
  );
  assert.match(await lab.read(), STUB);
  assert.equal(await lab.lookUp('intranet'), VPN.answer);
});

test('systemd-resolved forgets a link that goes; restore() then has nothing to do', { timeout: 120_000 }, async (t) => {
  const lab = await resolvedLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await resolver.apply(lab.request());
  await lab.app.ip('link delete vpn-tun0');
  await resolver.restore();
  assert.equal(await lab.lookUp('www.example.net'), MACHINE.answer);
});

test('a machine that turns from resolved to a file of its own while the VPN is up keeps that file', {
  timeout: 120_000,
}, async (t) => {
  const lab = await resolvedLab(t);
  if (!lab) return;
  const resolver = await startResolver(lab.app);
  await resolver.apply(lab.request());
  const own = `nameserver ${MACHINE.server}\n`;
  await lab.app.run('sh', ['-ec', 'cat > /etc/resolv.conf.new && mv /etc/resolv.conf.new /etc/resolv.conf'], {
    input: own,
  });
  await logged(resolver, /resolver-again .*"file"/);
  assert.equal(await linkHas(lab, 'dns'), '');
  assert.equal(await lab.lookUp('www.example.net'), VPN.answer);
  await resolver.restore();
  assert.equal(await lab.read(), own);
});
