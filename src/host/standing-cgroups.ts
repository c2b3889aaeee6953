/**
 * The cgroups that an application list means and that stand already: sockets made there before the VPN carry no mark and are told
 * by their cgroup. Those to come need nothing of this.
 */
import { statSync } from 'node:fs';
import { unlessAbsent } from '../kernel/absence.js';
import { cgroup2Root } from '../kernel/cgroup.js';
import { BusinessError } from '../model/errors.js';
import { cgroupsOf } from './app-scan.js';
import type { AppSelector } from './applications.js';
import type { StandingCgroup } from './plan.js';

/** Where nft looks cgroups up, whatever is mounted elsewhere. */
const NFT_ROOT = '/sys/fs/cgroup';
const MAX_LEVEL = 255;

export interface Standing {
  /** Paths in cgroup v2. */
  paths: string[];
  cgroups: StandingCgroup[];
}

/** Throws BusinessError 2200003 where cgroup v2 is missing, or mounted where nft does not find it, and the selectors need it. */
export function requireCgroups(selectors: readonly AppSelector[]): void {
  if (selectors.some(({ kind }) => kind !== 'uid')) rootForNft();
}

/** Throws as requireCgroups() does. */
export async function standingCgroups(selectors: readonly AppSelector[]): Promise<Standing> {
  const ids = selectors.flatMap((selector) => (selector.kind === 'app' ? [selector.id] : []));
  const named = selectors.flatMap((selector) => (selector.kind === 'cgroup' ? [selector.path] : []));
  if (ids.length + named.length === 0) return { paths: [], cgroups: [] };
  const root = rootForNft();
  const running = ids.length > 0 ? await cgroupsOf(ids) : [];
  const paths = [...new Set([...named, ...running.map(({ path }) => path)])];
  return { paths, cgroups: paths.filter(isWritable).map((path) => standing(root, path)) };
}

function rootForNft(): string {
  const root = cgroup2Root();
  if (root !== undefined && (root === NFT_ROOT || root.startsWith(`${NFT_ROOT}/`))) return root;
  const where = root === undefined ? 'is not mounted' : `is mounted at ${root}, not under ${NFT_ROOT}`;
  throw new BusinessError(2200003, undefined, `application lists need cgroup v2, which ${where}`);
}

/**
 * Whether it is still there, given its name: nft refuses a rule, and with it all others, for one that has gone. Throws KernelError
 * when it cannot be told.
 */
export function stands(name: string): boolean {
  const directory = `${NFT_ROOT}/${name}`;
  return unlessAbsent('stat', directory, () => statSync(directory)) !== undefined;
}

/** nft's strings have no escape for a quote, and its levels one byte. Such a cgroup's old sockets are ended, by number, but not marked. */
function isWritable(path: string): boolean {
  return /^[\x20\x21\x23-\x7e]+$/.test(path) && levelOf(path) <= MAX_LEVEL;
}

function levelOf(path: string): number {
  return path.split('/').length - 1;
}

function standing(root: string, path: string): StandingCgroup {
  return { level: levelOf(path), name: `${root}${path}`.slice(NFT_ROOT.length + 1) };
}
