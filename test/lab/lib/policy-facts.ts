/** What the leak tests know of the policy lab's traffic besides what the packets show, and when it was. */
import assert from 'node:assert/strict';
import type { VpnConfig } from '../../../src/model/vpn-types.js';
import { connect } from './exits.js';
import { type DepartedPacket, discoveryTarget } from './leak-check.js';
import { type Moment, PHYSICAL_LINKS, type PolicyLab } from './policy-lab.js';
import { ADDRESSES } from './standard-lab.js';
import { type VpnApp, vpnConfig } from './vpn-app.js';
import { exitOf } from './vpn-lab.js';

export const FAMILIES = ['ipv4', 'ipv6'] as const;

/**
 * ARP and neighbour discovery about the local networks are the kernel's, and no user's. What asks for a far address would be covered
 * traffic on a wrong way.
 */
export function isLinkUpkeep(packet: DepartedPacket): boolean {
  const target = discoveryTarget(packet) ?? '';
  return packet.protocol === 'arp'
    ? /^192\.168\.[56]0\./.test(target)
    : packet.hopLimit === 255 && /^(fe80|fd[56]0):/.test(target);
}

/** What had left when the clock (Date.now()) showed this; captures have the same clock. */
export async function momentAt(lab: PolicyLab, timeMs: number): Promise<Moment> {
  const packets = await lab.departed();
  const count = (link: string) => packets.filter((packet) => packet.link === link && packet.timeMs <= timeMs).length;
  return new Map(PHYSICAL_LINKS.map((link) => [link, count(link)]));
}

/** A VPN of this user's to the first exit. */
export async function raise(lab: PolicyLab, owner: number, more: Omit<VpnConfig, 'addresses'> = {}): Promise<VpnApp> {
  const exit = exitOf(lab, 1);
  const vpn = await lab.process(owner);
  await connect(vpn, exit, vpnConfig(exit.vnic, more));
  return vpn;
}

/** The user's traffic really goes through the first exit: a test of silence that began with it would show nothing. */
export async function isInside(lab: PolicyLab, uid: number): Promise<void> {
  for (const family of FAMILIES) {
    const question = { uid, protocol: 'tcp' as const, target: ADDRESSES.internet[family], timeoutMs: 20_000 };
    assert.deepEqual(await lab.probe(question), { side: 'exit1', source: exitOf(lab, 1).client[family] }, `uid ${uid}`);
    const name = await lab.probe({ ...question, protocol: 'dns-udp' });
    assert.deepEqual(name, { side: 'exit1' }, `uid ${uid}, DNS`);
  }
}

/** With an address of the first VPN's vNIC, on a physical link. */
export async function fromVnic(lab: PolicyLab): Promise<DepartedPacket[]> {
  const { ipv4, ipv6 } = exitOf(lab, 1).client;
  return (await lab.departed()).filter(({ source }) => source === ipv4 || source === ipv6);
}
