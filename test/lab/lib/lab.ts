/**
 * Hosts made of network and mount namespaces, and cables (veth pairs) between them, without touching the machine: each
 * namespace is held by a `sleep` that is bounded in time and dies with this process, found by its pid, never named in
 * /run/netns. A host has its own /etc, /run and repository path; /sys stays the machine's, so that cgroups are seen.
 *
 *   const lab = await Lab.create();
 *   const a = await lab.host('a'), b = await lab.host('b');
 *   await lab.link(a, 'eth0', ['192.0.2.1/24'], b, 'eth0', ['192.0.2.2/24']);
 *   await a.run('ping', ['-c1', '192.0.2.2']);
 *   await lab.close();
 */
import { chmodSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { programPrefix } from '../../../src/host/numbers.js';
import { ATTACH_TYPE, detachPrograms as detach } from '../../../src/kernel/bpf-attach.js';
import { cgroup2Root } from '../../../src/kernel/cgroup.js';
import { whyNoCgroup } from './cgroup.js';
import { LabHost } from './host.js';
import { type LabProcess, start } from './process.js';

/** The repository's root: this file is dist/test/lab/lib/lab.js. */
const REPOSITORY = fileURLToPath(new URL('../../../..', import.meta.url));

/**
 * Runs in the new namespaces. The repository and node are bind-mounted under /run, because a test uid may not be allowed
 * to walk the way to where they really are. /etc gets an overlay so that resolv.conf may be renamed over; where that is
 * refused (root of a user namespace does not own /etc), only the file itself is private. $1: repository, $2: node, $3: seconds to live.
 */
const HOLDER = `
set -e
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/repo /run/vpnd /run/etc/upper /run/etc/work
for entry in dist node_modules src test examples docs package.json; do
  [ -e "$1/$entry" ] || continue
  if [ -d "$1/$entry" ]; then mkdir "/run/repo/$entry"; else : > "/run/repo/$entry"; fi
  mount --rbind "$1/$entry" "/run/repo/$entry"
done
: > /run/node
mount --bind "$2" /run/node
if mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc 2>/dev/null &&
  rm -f /etc/resolv.conf 2>/dev/null && [ -w /etc ]; then
  echo 'nameserver 192.0.2.53' > /etc/resolv.conf
else
  echo 'nameserver 192.0.2.53' > /run/etc/resolv.conf
  target=$(readlink -f /etc/resolv.conf)
  if [ ! -e "$target" ]; then mkdir -p "\${target%/*}"; : > "$target"; fi
  mount --bind /run/etc/resolv.conf "$target"
fi
ip link set lo up
cd /proc/sys/net
for family in default all; do
  echo 0 > ipv6/conf/$family/accept_dad
  echo 0 > ipv6/conf/$family/accept_ra
  echo 0 > ipv6/conf/$family/router_solicitations
done
echo '0 65535' > ipv4/ping_group_range 2>/dev/null || true
# Whoever is given any port does not get one that a test has in mind: those are below.
echo '54000 60999' > ipv4/ip_local_port_range
cd /
echo ready
exec sleep "$3"
`;

export class Lab {
  /** A folder for sockets and files, the same path inside every host; every uid may enter it. */
  readonly directory: string;
  readonly #hosts: { host: LabHost; holder: LabProcess; namespace: string }[] = [];
  readonly #lifetimeSeconds: number;
  readonly #onExit = () => this.#removeDirectory();

  private constructor(directory: string, lifetimeSeconds: number) {
    this.directory = directory;
    this.#lifetimeSeconds = lifetimeSeconds;
    process.on('exit', this.#onExit);
  }

  static async create(options: { lifetimeSeconds?: number } = {}): Promise<Lab> {
    const directory = mkdtempSync(join(tmpdir(), 'vpn-lab-'));
    chmodSync(directory, 0o755);
    return new Lab(directory, options.lifetimeSeconds ?? 1200);
  }

  async host(name: string): Promise<LabHost> {
    const script = ['sh', '-c', HOLDER, 'holder', REPOSITORY, process.execPath, String(this.#lifetimeSeconds)];
    const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
    const holder = start('setpriv', ['--pdeathsig', 'KILL', 'unshare', '--net', '--mount', ...script], {
      env,
      background: true,
    });
    await holder.waitFor(/^ready$/m);
    const host = new LabHost(name, holder.pid, this.directory);
    this.#hosts.push({ host, holder, namespace: readlinkSync(`/proc/${holder.pid}/ns/net`) });
    return host;
  }

  /** A cable between two hosts, working when the promise resolves: links up, IPv6 addresses usable at once (nodad). */
  async link(
    a: LabHost,
    aDevice: string,
    aAddresses: readonly string[],
    b: LabHost,
    bDevice: string,
    bAddresses: readonly string[],
  ): Promise<void> {
    await a.ip(`link add ${aDevice} type veth peer name ${bDevice} netns ${b.pid}`);
    await Promise.all([a.configure(aDevice, aAddresses), b.configure(bDevice, bAddresses)]);
    await Promise.all([a.linkIsUp(aDevice), b.linkIsUp(bDevice)]);
  }

  /** Ends everything that runs in the hosts, and with it the namespaces. */
  async close(): Promise<void> {
    const namespaces = new Set(this.#hosts.map((each) => each.namespace));
    const holders = new Set(this.#hosts.map((each) => each.holder.pid));
    for (const pid of processesIn(namespaces)) if (!holders.has(pid)) killNow(pid);
    await Promise.all(this.#hosts.map((each) => each.holder.kill('SIGKILL')));
    for (const namespace of namespaces) detachPrograms(namespace);
    this.#hosts.length = 0;
    process.off('exit', this.#onExit);
    this.#removeDirectory();
  }

  #removeDirectory(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** A service that is killed leaves its programs on the machine's root cgroup, which takes 64 of a kind. */
function detachPrograms(namespace: string): void {
  const root = whyNoCgroup() === undefined ? cgroup2Root() : undefined;
  if (root === undefined) return;
  const prefix = programPrefix(BigInt(namespace.slice('net:['.length, -1)));
  for (const attachType of Object.values(ATTACH_TYPE)) {
    detach(root, attachType, { name: (name) => name.startsWith(prefix) });
  }
}

/** One that ends with another is gone by then. */
function killNow(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Only the lab's own processes can be in namespaces that the lab made. */
function processesIn(namespaces: ReadonlySet<string>): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        return namespaces.has(readlinkSync(`/proc/${pid}/ns/net`));
      } catch {
        return false;
      }
    })
    .map(Number);
}
