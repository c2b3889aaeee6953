/**
 * How the service is started on this machine, for those who find it not running. Only what is there is named: a unit where systemd has
 * one, the command where sudo finds it, else this very installation's, by the node that runs us.
 */
import { accessSync, constants } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DEFAULT_SOCKET } from './methods.js';

const SYSTEMD_IS_RUNNING = '/run/systemd/system';
/** systemd.unit(5). */
const UNIT_FOLDERS = ['/etc', '/run', '/usr/local/lib', '/usr/lib', '/lib'].map((folder) => `${folder}/systemd/system`);
/** Where sudo looks, whatever the caller's path says (secure_path in sudoers(5)). */
const COMMAND_FOLDERS = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

export interface Machine {
  isThere(path: string): boolean;
  uid: number;
  /** The node that runs this process, and vpnd beside this file. */
  node: string;
  vpnd: string;
}

function thisMachine(): Machine {
  const vpnd = fileURLToPath(new URL('../service/vpnd.js', import.meta.url));
  return { isThere, uid: process.geteuid?.() ?? -1, node: process.execPath, vpnd };
}

/** @example startHint('/run/vpnd/vpnd.sock') // 'start it with: sudo systemctl start vpnd' */
export function startHint(socket: string, machine = thisMachine()): string {
  const { isThere, uid } = machine;
  const command = startCommand(socket, machine);
  if (command === undefined) return 'install vpnd and start it';
  if (uid === 0) return `start it with: ${command}`;
  return isCommand('sudo', isThere) ? `start it with: sudo ${command}` : `start it, as root, with: ${command}`;
}

function startCommand(socket: string, { isThere, node, vpnd }: Machine): string | undefined {
  const isDefault = socket === DEFAULT_SOCKET;
  const isUnit = isThere(SYSTEMD_IS_RUNNING) && UNIT_FOLDERS.some((folder) => isThere(`${folder}/vpnd.service`));
  if (isUnit && isDefault) return 'systemctl start vpnd';
  const where = isDefault ? '' : ` --socket ${word(socket)}`;
  // The command begins with `env node`.
  if (isCommand('vpnd', isThere) && isCommand('node', isThere)) return `vpnd${where}`;
  return isThere(vpnd) ? `${word(node)} ${word(vpnd)}${where}` : undefined;
}

function isCommand(name: string, isThere: Machine['isThere']): boolean {
  return COMMAND_FOLDERS.some((folder) => isThere(`${folder}/${name}`));
}

/** For a shell. */
function word(text: string): string {
  return /^[\w./@%+:=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function isThere(path: string): boolean {
  try {
    accessSync(path, constants.F_OK);
    return true;
  } catch {
    // Whatever the reason: what cannot be seen is not named.
    return false;
  }
}
