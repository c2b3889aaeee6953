/**
 * The real NetworkManager in a host of the lab, from packages that scripts/setup has unpacked and not installed, with a system
 * bus, /etc, /var/lib and /sys of its own. It has one profile, `lab`, with what eth0 has in the lab; its resolv.conf is the
 * host's.
 */
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type LabHost, REPOSITORY_IN_HOST } from './host.js';
import { isInstalled } from './prerequisites.js';
import type { LabProcess } from './process.js';
import { requireResolvers } from './resolvers.js';
import { eventually } from './vpn-lab.js';

const CACHE = 'node_modules/.cache/vpn-manager/network-manager';
/** This file is dist/test/lab/lib/network-manager.js. */
const FOLDER = fileURLToPath(new URL(`../../../../${CACHE}`, import.meta.url));
const ROOT = `${REPOSITORY_IN_HOST}/${CACHE}/root`;

/** Like the resolvers: on Debian as root it can be had, so there its lack fails the test. */
export function requireNetworkManager(t: TestContext): boolean {
  if (!requireResolvers(t)) return false;
  if (existsSync(join(FOLDER, 'complete'))) return true;
  if (isInstalled('apt-get')) throw new Error('This test needs NetworkManager, which scripts/setup unpacks: run it.');
  t.skip('This test needs NetworkManager, which comes from a Debian package.');
  return false;
}

const BUS_CONFIG = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
  </policy>
</busconfig>
`;
const SETTINGS = `[main]
plugins=keyfile
auth-polkit=false
no-auto-default=*
rc-manager=file
[logging]
level=INFO
`;
const PROFILE = `[connection]
id=lab
type=ethernet
interface-name=eth0
[ipv4]
method=manual
address1=192.168.50.2/24,192.168.50.1
route-metric=100
dns=192.168.50.1;
[ipv6]
method=manual
address1=fd50::2/64,fd50::1
route-metric=100
`;

/** Once for each host. */
export async function installNetworkManager(host: LabHost): Promise<void> {
  await host.run('mkdir', [
    '-p',
    '/run/dbus',
    '/etc/NetworkManager/system-connections',
    '/run/nm/upper',
    '/run/nm/work',
  ]);
  const files = {
    '/run/bus.conf': BUS_CONFIG,
    '/etc/NetworkManager/NetworkManager.conf': SETTINGS,
    '/etc/NetworkManager/system-connections/lab.nmconnection': PROFILE,
  };
  for (const [path, input] of Object.entries(files)) await host.run('tee', [path], { input });
  await host.run('chmod', ['600', '/etc/NetworkManager/system-connections/lab.nmconnection']);
  await host.run('mount', [
    '-t',
    'overlay',
    '-o',
    'lowerdir=/var/lib,upperdir=/run/nm/upper,workdir=/run/nm/work',
    'overlay',
    '/var/lib',
  ]);
  const bus = host.spawn('dbus-daemon', ['--config-file=/run/bus.conf', '--nofork', '--nopidfile', '--print-address']);
  await bus.waitFor(/unix:path=/);
}

/** Returns when it has looked at all links. A /sys of this network namespace, read-only: so it does without udev. */
export async function startNetworkManager(host: LabHost): Promise<LabProcess> {
  const script = `
    mount -t sysfs -o ro sysfs /sys
    mkdir -p /var/lib/NetworkManager /run/NetworkManager
    exec ${ROOT}/usr/sbin/NetworkManager --no-daemon`;
  const manager = host.spawn('unshare', ['--mount', 'sh', '-ec', script], { env: environment() });
  await eventually('NetworkManager is ready', async () => {
    if (!manager.running) throw new Error(`NetworkManager has ended:\n${manager.stdout}${manager.stderr}`);
    return (await nmcli(host, '-t', '-f', 'STARTUP', 'general').catch(() => '')).trim() === 'started' || undefined;
  });
  return manager;
}

export async function nmcli(host: LabHost, ...args: string[]): Promise<string> {
  const { stdout } = await host.run(`${ROOT}/usr/bin/nmcli`, args, { env: environment(), timeoutMs: 60_000 });
  return stdout;
}

function environment(): Record<string, string> {
  const root = join(FOLDER, 'root');
  const libraries = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((file) => /\.so(\.|$)/.test(file));
  return { LD_LIBRARY_PATH: [...new Set(libraries.map((file) => `${ROOT}/${dirname(file)}`))].join(':') };
}
