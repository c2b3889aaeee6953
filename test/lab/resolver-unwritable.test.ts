/**
 * A resolv.conf that cannot be written, and one that is another network's: root's VPN comes up all the same, since every query is
 * redirected; the log says what is lost and what to do. Nothing of the file changes.
 *
 *   app: root's vpn-tun0 ══ exit1 10.9.0.1, DNS      eth0 ── router ── server
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from './lib/exits.js';
import { type LabHost, REPOSITORY_IN_HOST } from './lib/host.js';
import { Lab } from './lib/lab.js';
import { FAMILIES } from './lib/policy-facts.js';
import { policyLab } from './lib/policy-lab.js';
import { requireRoot } from './lib/prerequisites.js';
import { installOpenresolv, requireResolvers } from './lib/resolvers.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { exitOf } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const sh = (host: LabHost, script: string) => host.run('sh', ['-ec', script]);
const LISTING =
  'ls -ldi --time-style=full-iso /etc/resolv.conf; ls /etc | grep resolv; cat /etc/resolv.conf 2>&1 || true; cat /run/resolvconf/interfaces/* 2>&1 || true';

/** What was kept of a predecessor's file is not touched either. */
const KEPT = 'echo kept > /etc/resolv.conf.before-vpnd';

/** What makes it so, and what the fix names. */
const OBSTACLES: Record<string, { make: string; undo: string; fix: RegExp }> = {
  'a read-only mount': {
    make: 'mount --bind /etc/resolv.conf /etc/resolv.conf; mount -o remount,bind,ro /etc/resolv.conf',
    undo: 'umount /etc/resolv.conf',
    fix: /EROFS.*mount/,
  },
  'in a folder that is a read-only mount': {
    make: 'mount --bind /etc /etc; mount -o remount,bind,ro /etc',
    undo: 'umount /etc',
    fix: /EROFS.*mount/,
  },
  immutable: {
    make: 'chattr +i /etc/resolv.conf',
    undo: 'chattr -i /etc/resolv.conf',
    fix: /EPERM.*chattr -i \/etc\/resolv\.conf/,
  },
  'a directory': {
    make: 'rm /etc/resolv.conf; mkdir /etc/resolv.conf',
    undo: 'rmdir /etc/resolv.conf; echo nameserver 192.0.2.53 > /etc/resolv.conf',
    fix: /EISDIR.*remove \/etc\/resolv\.conf/,
  },
  'on a full file system': {
    make: 'mkdir /run/full; mount -t tmpfs -o size=4k tmpfs /run/full; cp /etc/resolv.conf /run/full; mount --bind /run/full /etc',
    undo: 'umount /etc; umount /run/full; rmdir /run/full',
    fix: /ENOSPC.*room/,
  },
};

for (const [what, { make, undo, fix }] of Object.entries(OBSTACLES)) {
  test(`a resolv.conf that is ${what} is no reason to have no VPN`, { timeout: 180_000 }, async (t) => {
    const lab = await policyLab(t, { vpnd: { args: ['--log-level', 'debug'] } });
    if (!lab) return;
    await sh(lab.app, make);
    const before = (await sh(lab.app, LISTING)).stdout;
    const exit = exitOf(lab, 1);
    const env = { VPND_SOCKET: lab.vpnd.socket };
    const status = async () => (await lab.app.node('dist/src/cli/vpnctl.js', ['status'], { env })).stdout;
    for (const searchDomains of [['corp.example'], ['other.example']]) {
      const owner = await lab.process(0);
      await connect(owner, exit, vpnConfig(exit.vnic, { dnsAddresses: [exit.ipv4, exit.ipv6], searchDomains }));
      for (const uid of [0, 2001]) {
        for (const family of FAMILIES) {
          for (const protocol of ['dns-udp', 'dns-tcp'] as const) {
            const answer = await lab.probe({ uid, protocol, target: internet[family], timeoutMs: 20_000 });
            assert.deepEqual(answer, { side: exit.name }, `${uid} ${protocol} ${family}`);
          }
        }
      }
      assert.match(await status(), /^ {2}warning: .*search domains.*; to mend it: /m);
      await owner.call('destroy');
    }
    assert.equal((await sh(lab.app, LISTING)).stdout, before);
    const lines = lab.vpnd.log().split('\n');
    const warnings = lines.filter((line) => line.includes(' warning resolver-not-told '));
    assert.equal(warnings.length, 2, lab.vpnd.log());
    for (const warning of warnings) {
      assert.match(warning, fix);
      assert.match(warning, /\/etc\/resolv\.conf.*search domains/);
    }
    assert.deepEqual(
      lines.filter((line) => / error /.test(line)),
      [],
    );

    // The next one finds it as it should be.
    await sh(lab.app, undo);
    const owner = await lab.process(0);
    await connect(owner, exit, vpnConfig(exit.vnic, { dnsAddresses: [exit.ipv4], searchDomains: ['corp.example'] }));
    assert.match((await sh(lab.app, 'cat /etc/resolv.conf')).stdout, /^search corp\.example$/m);
    assert.doesNotMatch(await status(), /warning/);
    await owner.call('destroy');
  });
}

/**
 * The first process of a pid namespace is in the network of `app` and stands for the host; what is started in it is elsewhere. `told`:
 * which file is written, as `app` sees it; none: the log has why.
 */
const PLACES: Record<string, { enter: string; told?: string; hasResolvconf?: boolean }> = {
  'the mounts of the host': { enter: 'unshare --net' },
  'ip netns exec, and no file in /etc/netns': { enter: 'ip netns exec bare' },
  'ip netns exec, and a file in /etc/netns': { enter: 'ip netns exec named', told: '/etc/netns/named/resolv.conf' },
  'ip netns exec, and a copy of what the resolvconf of the host has made in /etc/netns': {
    enter: 'ip netns exec named',
    told: '/etc/netns/named/resolv.conf',
    hasResolvconf: true,
  },
  'an /etc of its own': { enter: 'unshare --net --mount sh OWN_ETC', told: '' },
  'the network of the host': { enter: '', told: '/etc/resolv.conf' },
};
const FIRST = `
mkdir -p /etc/netns/named
[ -e /etc/netns/named/resolv.conf ] || echo 'nameserver 192.0.2.77' > /etc/netns/named/resolv.conf
ip netns add bare
ip netns add named
$ENTER sh -c "$INNER"
exit $?
`;
const OWN_ETC = `
mount -t tmpfs tmpfs /etc
: > /etc/resolv.conf
exec "$@"
`;
const INNER = `
ip link set lo up
/run/node "$REPOSITORY/dist/src/service/vpnd.js" --socket "$VPND_SOCKET" --state-dir "$DIRECTORY" >&2 &
while [ ! -S "$VPND_SOCKET" ]; do sleep 0.05; done
exec /run/node "$REPOSITORY/dist/test/lab/lib/app/app.js"
`;

/** With the VPN of a service of the host's. */
async function startResolvconf(host: LabHost): Promise<void> {
  await installOpenresolv(host, ['192.0.2.53']);
  await sh(host, 'mkdir -p /etc/netns/named; cp /etc/resolv.conf /etc/netns/named/');
  await host.run('resolvconf', ['-a', 'tun.vpnd', '-x'], { input: 'nameserver 10.66.0.1\n' });
}

for (const [what, { enter, told, hasResolvconf = false }] of Object.entries(PLACES)) {
  const verb = told === undefined ? 'leaves resolv.conf alone' : 'writes its resolv.conf';
  test(`a service with ${what} ${verb}`, { timeout: 180_000 }, async (t) => {
    if (!requireRoot(t) || (hasResolvconf && !requireResolvers(t))) return;
    const lab = await Lab.create();
    t.after(() => lab.close());
    const host = await lab.host('app');
    if (hasResolvconf) await startResolvconf(host);
    if (told !== '/etc/resolv.conf') await sh(host, KEPT);
    const before = (await sh(host, LISTING)).stdout;
    writeFileSync(join(lab.directory, 'own-etc.sh'), OWN_ETC);
    const first = host.spawn('unshare', ['--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-ec', FIRST], {
      env: {
        ...{
          ENTER: enter.replace('OWN_ETC', join(lab.directory, 'own-etc.sh')),
          INNER,
          REPOSITORY: REPOSITORY_IN_HOST,
          DIRECTORY: join(lab.directory, 'state'),
        },
        VPND_SOCKET: join(lab.directory, 'vpnd.sock'),
      },
    });
    await first.waitFor(/^ready$/m, 60_000);
    const call = async (id: number, operation: string, ...args: unknown[]) => {
      first.write(`${JSON.stringify({ id, operation, args })}\n`);
      const [, result] = await first.waitFor(new RegExp(`^\\{"id":${id},(.*)\\}$`, 'm'), 40_000);
      assert.match(result ?? '', /^"result"/);
    };
    const dns = { dnsAddresses: ['10.77.0.1', 'fd77::1'], searchDomains: ['corp.example'] };
    await call(1, 'setUp', vpnConfig(['10.77.0.2/24', 'fd77::2/64'], dns));
    if (told === undefined) {
      await first.waitFor(/ warning resolver-not-told .*shared with another network namespace.*ip netns exec/);
      assert.doesNotMatch(first.stderr, / info resolver /);
    } else {
      await first.waitFor(/ info resolver kind=file /);
      assert.doesNotMatch(first.stderr, /resolver-not-told/);
    }
    if (told) assert.match((await sh(host, `cat ${told}`)).stdout, /^nameserver 10\.77\.0\.1$/m);
    // The bytes of a file that is a mount are kept beside it.
    const standing = (await sh(host, LISTING)).stdout.replace(/^resolv\.conf\.before-vpnd-\d+\n/m, '');
    if (told !== '/etc/resolv.conf') assert.equal(standing, before);
    await call(2, 'destroy');
    assert.equal((await sh(host, LISTING)).stdout, before);
  });
}
