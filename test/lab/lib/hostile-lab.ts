/**
 * A tunnel that is attacked, its peers, and somebody who can reach its UDP port:
 *
 *   here                                    there
 *   eth0 192.0.2.1/24 ───────────────────── eth0 192.0.2.2/24
 *   wg0  10.9.0.1/24  ═════════════════════ wg0  10.9.0.2  wireguard-go
 *        10.10.0.1/24 ═════════════════════ our0 10.10.0.2 this tunnel
 *        10.11.0.1/24 ═ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ far0 10.11.0.2 a peer nobody knows the place of (in mallory's host)
 *   this tunnel
 *   eth1 198.51.100.1/24 ────────────────── eth0 198.51.100.2/24 mallory, who is the default route as well
 *                                           lo   10.66.0.0/16
 */
import type { TestContext } from 'node:test';
import { type Attacker, startAttacker } from '../attackers/wireguard-flood.js';
import type { LabHost } from './host.js';
import { type OurTunnel, startOurTunnel } from './our-tunnel.js';
import { receiveTransfers } from './transfer.js';
import { INSIDE } from './two-hosts.js';
import { type WireGuardKeys, type WireGuardPeer, wireGuardKeys } from './wireguard-go.js';
import { type Pair, pingSizes, startPair } from './wireguard-lab.js';

export interface HostileLab extends Pair {
  /** This tunnel, in the host of wireguard-go. */
  second: OurTunnel;
  mallory: LabHost;
  attacker: Attacker;
  /** Where `here` is attacked. */
  target: { address: string; port: number };
  /** Of the peer that is not there yet. */
  farKeys: WireGuardKeys;
  /** How a peer at mallory's finds `here`. */
  hereForFar: WireGuardPeer;
}

export const SECOND = { here: '10.10.0.1', there: '10.10.0.2', port: 51003 } as const;
export const FAR = { here: '10.11.0.1', there: '10.11.0.2' } as const;

/** Both sessions are established when it returns, and transfers are taken at both ends. */
export async function hostileLab(t: TestContext): Promise<HostileLab> {
  // Its initiation gives old timestamps something to be older than.
  const pair = await startPair(t, { initiator: 'theirs' });
  const { lab, here, there, ours } = pair;
  const mallory = await lab.host('mallory');
  await lab.link(here, 'eth1', ['198.51.100.1/24'], mallory, 'eth0', ['198.51.100.2/24']);
  await here.ip(
    'route add default via 198.51.100.2',
    `address add ${SECOND.here}/24 dev wg0`,
    `address add ${FAR.here}/24 dev wg0`,
  );
  await mallory.ip('route add local 10.66.0.0/16 dev lo');
  // What is spoofed has no way back.
  await here.sysctl('net.ipv4.conf.all.rp_filter=0', 'net.ipv4.conf.eth1.rp_filter=0');
  const [secondKeys, farKeys] = [wireGuardKeys(), wireGuardKeys()];
  await ours.addPeers(
    {
      publicKey: secondKeys.publicKey,
      endpoint: `192.0.2.2:${SECOND.port}`,
      allowedIps: [`${SECOND.there}/32`],
    },
    { publicKey: farKeys.publicKey, allowedIps: [`${FAR.there}/32`] },
  );
  await here.ip(
    `route replace ${SECOND.there} dev wg0 src ${SECOND.here}`,
    `route replace ${FAR.there} dev wg0 src ${FAR.here}`,
  );
  const second = await startOurTunnel(there, 'our0', {
    keys: secondKeys,
    listenPort: SECOND.port,
    addresses: [`${SECOND.there}/24`],
    peers: [{ publicKey: ours.publicKey, endpoint: `192.0.2.1:${ours.listenPort}`, allowedIps: [`${SECOND.here}/32`] }],
  });
  await pingSizes(there, INSIDE.IPv4.here, [56]);
  await pingSizes(here, SECOND.there, [56]);
  await Promise.all([
    receiveTransfers(here, INSIDE.IPv4.here),
    receiveTransfers(here, SECOND.here),
    receiveTransfers(there, INSIDE.IPv4.there),
  ]);
  const target = { address: '198.51.100.1', port: ours.listenPort };
  const hereForFar = {
    publicKey: ours.publicKey,
    endpoint: `${target.address}:${target.port}`,
    allowedIps: [`${FAR.here}/32`],
  };
  return { ...pair, second, mallory, attacker: startAttacker(mallory), target, farKeys, hereForFar };
}

/** Bytes of a key as wg(8) writes it. */
export function keyBytes(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, 'base64'));
}
