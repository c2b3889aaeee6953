/**
 * wireguard-go, wg, OpenVPN and iperf3 from packages that scripts/setup has unpacked and not installed: where a host of the lab
 * finds them and their libraries.
 */
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { REPOSITORY_IN_HOST } from './host.js';
import { isInstalled, requireRoot } from './prerequisites.js';

const CACHE = 'node_modules/.cache/vpn-manager/wireguard';
/** This file is dist/test/lab/lib/unpacked-peers.js. */
const FOLDER = fileURLToPath(new URL(`../../../../${CACHE}`, import.meta.url));
const ROOT = `${REPOSITORY_IN_HOST}/${CACHE}/root`;

/** Paths inside a host. */
export const PROGRAMS = {
  wireguardGo: `${ROOT}/usr/bin/wireguard-go`,
  wg: `${ROOT}/usr/bin/wg`,
  wgQuick: `${ROOT}/usr/bin/wg-quick`,
  openvpn: `${ROOT}/usr/sbin/openvpn`,
  iperf3: `${ROOT}/usr/bin/iperf3`,
} as const;

/** Undefined when they are there. */
export function whyNoPeers(): string | undefined {
  if (!existsSync(join(FOLDER, 'complete'))) return 'wireguard-go, OpenVPN and iperf3 are missing: run scripts/setup.';
  return isInstalled('openssl') ? undefined : 'openssl is missing: install the package openssl.';
}

/** First line of a test with these programs. On Debian they can be had, so there their lack fails the test. */
export function requirePeers(t: TestContext): boolean {
  if (!requireRoot(t)) return false;
  const reason = whyNoPeers();
  if (reason === undefined) return true;
  if (isInstalled('apt-get')) throw new Error(reason);
  t.skip('This test needs wireguard-go, OpenVPN and iperf3, which scripts/setup unpacks from Debian packages.');
  return false;
}

/** For what is started with them: their libraries, and no advice to use the kernel's WireGuard. */
export function peerEnvironment(): Record<string, string> {
  const root = join(FOLDER, 'root');
  const libraries = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((file) => /\.so(\.|$)/.test(file));
  return {
    LD_LIBRARY_PATH: [...new Set(libraries.map((file) => `${ROOT}/${dirname(file)}`))].join(':'),
    WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD: '1',
  };
}
