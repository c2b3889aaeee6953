/**
 * What a lab needs of the machine: root or a user namespace, /dev/net/tun and a few commands. Says in one sentence what is
 * missing, with the package that has it.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'node:test';

/** Command to Debian package. */
const COMMANDS: Record<string, string> = {
  ip: 'iproute2',
  nft: 'nftables',
  tcpdump: 'tcpdump',
  ping: 'iputils-ping',
  sysctl: 'procps',
  nsenter: 'util-linux',
  unshare: 'util-linux',
  setpriv: 'util-linux',
};

const INSIDE = 'VPN_LAB_USER_NAMESPACE';

/** sysexits.h: a service that is needed is not there. */
export const EX_UNAVAILABLE = 69;

/** Undefined when a lab can be built here. */
export function whyNoLab(): string | undefined {
  if (process.getuid?.() !== 0)
    return 'A lab needs root: run it as root, or inside "unshare --user --map-root-user --map-auto".';
  const missing = Object.keys(COMMANDS).filter((command) => !isInstalled(command));
  if (missing.length > 0) {
    const packages = [...new Set(missing.map((command) => COMMANDS[command]))].join(' ');
    return `A lab needs ${missing.join(', ')}: install the package${packages.includes(' ') ? 's' : ''} ${packages}.`;
  }
  try {
    closeSync(openSync('/dev/net/tun', 'r+'));
  } catch (error) {
    return `A lab needs /dev/net/tun (${(error as NodeJS.ErrnoException).code}): load the module tun and allow reading and writing it.`;
  }
  return undefined;
}

/** First line of every lab test: skips it with the reason where no lab can be built. Returns whether it may go on. */
export function requireRoot(t: TestContext): boolean {
  const reason = whyNoLab();
  if (reason !== undefined) t.skip(reason);
  return reason === undefined;
}

/**
 * For programs that may be started by anyone: as root returns at once; otherwise runs this very program again as root of a
 * new user namespace with a range of uids, where /run is a tmpfs, and exits with its status. Without the means, one sentence
 * and exit 69.
 */
export function reexecInUserNamespace(): void {
  if (process.getuid?.() === 0) return;
  const uid = process.getuid?.() ?? -1;
  const username = nameOf(uid);
  if (!isInstalled('newuidmap') || !isInstalled('unshare')) {
    leave('Without root this needs a user namespace with several uids: install the packages uidmap and util-linux.');
  }
  if (!hasRange('/etc/subuid', username, uid) || !hasRange('/etc/subgid', username, uid)) {
    leave(
      `Without root this needs a subordinate uid and gid range: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${username} (package uidmap).`,
    );
  }
  if (process.env[INSIDE] !== undefined) leave('The user namespace gave no root.');
  const namespaces = ['--user', '--map-root-user', '--map-auto', '--net', '--mount'];
  const script = ['sh', '-c', 'mount -t tmpfs -o mode=0755 tmpfs /run && exec setpriv --pdeathsig KILL "$@"', 'sh'];
  const self = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  // Ctrl-C reaches the program inside by itself; this one waits for its end.
  process.on('SIGINT', () => {});
  const child = spawnSync('unshare', [...namespaces, ...script, ...self], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: '1' },
  });
  if (child.status === 1 && !canMakeNamespace(namespaces)) {
    leave(
      'This kernel or its administrator refuses user namespaces to users (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces): run it as root.',
    );
  }
  process.exit(child.status ?? 1);
}

/** The words that enter a host's namespaces from a shell outside. */
export function enterCommand(pid: number): string {
  const user = process.env[INSIDE] === undefined ? '' : ' -U --preserve-credentials';
  return `nsenter -t ${pid}${user} -n -m`;
}

function canMakeNamespace(namespaces: readonly string[]): boolean {
  return spawnSync('unshare', [...namespaces, 'true']).status === 0;
}

/** The number itself for a user that has no passwd entry. */
function nameOf(uid: number): string {
  try {
    return userInfo().username;
  } catch {
    return String(uid);
  }
}

/** subuid(5): user name or number, first id, count. */
function hasRange(file: string, username: string, uid: number): boolean {
  try {
    const owners = readFileSync(file, 'utf8').split('\n');
    return owners.some((line) => line.startsWith(`${username}:`) || line.startsWith(`${uid}:`));
  } catch {
    return false;
  }
}

export function isInstalled(command: string): boolean {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function leave(sentence: string): never {
  console.error(sentence);
  process.exit(EX_UNAVAILABLE);
}
