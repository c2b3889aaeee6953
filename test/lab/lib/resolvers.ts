/**
 * Real resolvers in a host of the lab, from packages that scripts/setup has unpacked and not installed: systemd-resolved with
 * a D-Bus of its own, and openresolv. Each host has its own /run, so that several can have them at once.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type LabHost, REPOSITORY_IN_HOST } from './host.js';
import { isInstalled, requireRoot } from './prerequisites.js';
import type { LabProcess } from './process.js';
import { eventually } from './vpn-lab.js';

const CACHE = 'node_modules/.cache/vpn-manager/resolvers';
/** This file is dist/test/lab/lib/resolvers.js. */
const FOLDER = fileURLToPath(new URL(`../../../../${CACHE}`, import.meta.url));
const RESOLVED = `${REPOSITORY_IN_HOST}/${CACHE}/systemd-resolved`;
const OPENRESOLV = `${REPOSITORY_IN_HOST}/${CACHE}/openresolv`;

/** First line of a test with real resolvers. On Debian as root they can be had, so there their lack fails the test. */
export function requireResolvers(t: TestContext): boolean {
  if (!requireRoot(t)) return false;
  const isRealRoot = /^\s*0\s+0\s+4294967295$/m.test(readFileSync('/proc/self/uid_map', 'utf8'));
  if (!isRealRoot) t.skip('Real resolvers need root itself: in a user namespace /etc and /usr cannot be overlaid.');
  const missing = [
    ...(existsSync(join(FOLDER, 'complete')) ? [] : ['systemd-resolved and openresolv, which scripts/setup unpacks']),
    ...(isInstalled('dbus-daemon') ? [] : ['dbus-daemon (package dbus-daemon)']),
  ].join(' and ');
  if (isRealRoot && missing !== '') {
    if (isInstalled('apt-get')) throw new Error(`This test needs ${missing}: run scripts/setup.`);
    t.skip(`This test needs ${missing}; they come from Debian packages.`);
  }
  return isRealRoot && missing === '';
}

const BUS_CONFIG = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <includedir>${RESOLVED}/usr/share/dbus-1/system.d</includedir>
</busconfig>
`;

/** A system bus at its usual place. */
export async function startBus(host: LabHost): Promise<LabProcess> {
  await host.run('mkdir', ['-p', '/run/dbus']);
  await host.run('tee', ['/run/bus.conf'], { input: BUS_CONFIG });
  const bus = host.spawn('dbus-daemon', ['--config-file=/run/bus.conf', '--nofork', '--nopidfile', '--print-address']);
  await bus.waitFor(/unix:path=/);
  return bus;
}

/** Once for each host: its user, its configuration (servers of the machine), its stub as /etc/resolv.conf. */
export async function installResolved(host: LabHost, servers: readonly string[]): Promise<void> {
  const script = `
    grep -q ^systemd-resolve: /etc/passwd || echo 'systemd-resolve:x:990:990::/:/usr/sbin/nologin' >> /etc/passwd
    grep -q ^systemd-resolve: /etc/group || echo 'systemd-resolve:x:990:' >> /etc/group
    mkdir -p /run/systemd/resolve /etc/systemd
    chown systemd-resolve: /run/systemd/resolve
    cat > /etc/systemd/resolved.conf
    ln -sfn ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf`;
  const settings = ['FallbackDNS=', 'DNSSEC=no', 'LLMNR=no', 'MulticastDNS=no', 'DNSOverTLS=no'];
  const input = ['[Resolve]', `DNS=${servers.join(' ')}`, ...settings, ''].join('\n');
  await host.run('sh', ['-ec', script], { input });
}

/** Returns when it answers on the bus. */
export async function startResolved(host: LabHost): Promise<LabProcess> {
  const resolved = host.spawn(`${RESOLVED}/lib/systemd/systemd-resolved`, [], { env: resolvedEnvironment() });
  await eventually('systemd-resolved answers', async () => {
    if (!resolved.running) throw new Error(`systemd-resolved has ended:\n${resolved.stdout}${resolved.stderr}`);
    return (await resolvectl(host, 'status').catch(() => undefined)) && true;
  });
  return resolved;
}

/** What resolvectl(1) prints. */
export function resolvectl(host: LabHost, ...args: string[]): Promise<string> {
  return resolvectlAs(host, 0, ...args);
}

export async function resolvectlAs(host: LabHost, uid: number, ...args: string[]): Promise<string> {
  const { stdout } = await host.run(`${RESOLVED}/usr/bin/resolvectl`, args, { uid, env: resolvedEnvironment() });
  return stdout;
}

function resolvedEnvironment(): Record<string, string> {
  const root = join(FOLDER, 'systemd-resolved');
  const libraries = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((file) => /\.so(\.|$)/.test(file));
  const folders = new Set(libraries.map((file) => `${RESOLVED}/${dirname(file)}`));
  return { LD_LIBRARY_PATH: [...folders].join(':'), SYSTEMD_LOG_TARGET: 'console' };
}

/** openresolv at its usual places, having made /etc/resolv.conf from what `eth0` got. */
export async function installOpenresolv(host: LabHost, servers: readonly string[]): Promise<void> {
  const script = `
    for folder in sbin lib; do
      mkdir -p /run/usr/$folder/upper /run/usr/$folder/work
      mount -t overlay -o "lowerdir=/usr/$folder,upperdir=/run/usr/$folder/upper,workdir=/run/usr/$folder/work" overlay "/usr/$folder"
    done
    cp ${OPENRESOLV}/sbin/resolvconf /usr/sbin/
    cp -r ${OPENRESOLV}/lib/resolvconf /usr/lib/
    cp ${OPENRESOLV}/etc/resolvconf.conf /etc/
    rm -f /etc/resolv.conf
    resolvconf -a eth0`;
  await host.run('sh', ['-ec', script], { input: servers.map((server) => `nameserver ${server}\n`).join('') });
}
