/**
 * This tunnel against a real wireguard-go:
 *
 *   here                                    there
 *   eth0 192.0.2.1/24 ───────────────────── eth0 192.0.2.2/24
 *        2001:db8:1::1/64                        2001:db8:1::2/64
 *   wg0  10.9.0.1/24, fd09::1/64 ══════════ wg0  10.9.0.2/24, fd09::2/64
 *   this tunnel                             wireguard-go
 */
import type { TestContext } from 'node:test';
import { startCapture } from './capture.js';
import type { LabHost } from './host.js';
import { type OurTunnel, startOurTunnel } from './our-tunnel.js';
import type { CapturedPacket } from './pcap.js';
import { type Hosts, INSIDE, OUTSIDE, twoHosts } from './two-hosts.js';
import { startWireGuardGo, type WireGuardGo, wireGuardKeys, wireGuardPresharedKey } from './wireguard-go.js';

export const PORTS = { here: 51001, there: 51002 } as const;

export interface Pair extends Hosts {
  ours: OurTunnel;
  theirs: WireGuardGo;
}

export interface PairOptions {
  /** Who knows where the other one is, and so has to begin. */
  initiator?: 'ours' | 'theirs';
  outside?: keyof typeof OUTSIDE;
  /** Default: none. `different`: each has another one. */
  presharedKey?: 'same' | 'different';
  /** Of the one that begins. */
  persistentKeepalive?: number;
  offload?: boolean;
}

/** Nothing has been sent yet when it returns, unless the initiator has a persistent keepalive. */
export async function startPair(t: Pick<TestContext, 'after'>, options: PairOptions = {}): Promise<Pair> {
  const { initiator = 'ours', outside = 'IPv4', offload = true } = options;
  const hosts = await twoHosts(t);
  const keys = { ours: wireGuardKeys(), theirs: wireGuardKeys() };
  const presharedKey = wireGuardPresharedKey();
  const of = (who: 'ours' | 'theirs') => {
    const [side, far] = who === 'ours' ? (['here', 'there'] as const) : (['there', 'here'] as const);
    const begins = who === initiator;
    const address = OUTSIDE[outside][far];
    const preshared = options.presharedKey === 'different' ? wireGuardPresharedKey() : presharedKey;
    return {
      keys: keys[who],
      listenPort: PORTS[side],
      addresses: [`${INSIDE.IPv4[side]}/24`, `${INSIDE.IPv6[side]}/64`],
      peers: [
        {
          publicKey: keys[who === 'ours' ? 'theirs' : 'ours'].publicKey,
          allowedIps: [`${INSIDE.IPv4[far]}/32`, `${INSIDE.IPv6[far]}/128`],
          ...(begins && { endpoint: `${outside === 'IPv6' ? `[${address}]` : address}:${PORTS[far]}` }),
          ...(options.presharedKey !== undefined && { presharedKey: preshared }),
          ...(begins &&
            options.persistentKeepalive !== undefined && { persistentKeepalive: options.persistentKeepalive }),
        },
      ],
    };
  };
  const start = {
    ours: () => startOurTunnel(hosts.here, 'wg0', { ...of('ours'), offload }),
    theirs: () => startWireGuardGo(hosts.there, 'wg0', of('theirs')),
  };
  // Who answers is there first.
  if (initiator === 'ours') {
    const theirs = await start.theirs();
    return { ...hosts, theirs, ours: await start.ours() };
  }
  const ours = await start.ours();
  return { ...hosts, ours, theirs: await start.theirs() };
}

export interface WireGuardMessage extends CapturedPacket {
  /** First byte of the message: 1 initiation, 2 response, 3 cookie reply, 4 data. */
  type: number;
  /** Bytes of the message. */
  size: number;
  from: 'ours' | 'theirs';
}

export interface MessageCapture {
  /** So far; the capture goes on. */
  peek(): Promise<WireGuardMessage[]>;
  stop(): Promise<WireGuardMessage[]>;
}

/**
 * Everything on the wire between the two from now on, except ARP and ICMPv6; what is no WireGuard message is an error.
 */
export async function captureMessages({ here, there }: Hosts): Promise<MessageCapture> {
  // The kernel otherwise carries what is sent with UDP_SEGMENT over the cable as one.
  for (const host of [here, there]) await host.ip('link set eth0 gso_max_segs 1');
  const capture = await startCapture(here, 'eth0', ['not arp']);
  const isMessage = ({ protocol }: CapturedPacket) => protocol !== 'icmpv6';
  const messages = (packets: CapturedPacket[]) => packets.filter(isMessage).map(wireGuardMessage);
  return { peek: async () => messages(await capture.peek()), stop: async () => messages(await capture.stop()) };
}

export function wireGuardMessage(packet: CapturedPacket): WireGuardMessage {
  const type = packet.payload[0] ?? 0;
  const isOurs = packet.sourcePort === PORTS.here || packet.destinationPort === PORTS.there;
  if (packet.protocol !== 'udp' || type < 1 || type > 4 || (packet.payload[1] ?? 0) !== 0) {
    throw new Error(
      `not WireGuard: ${packet.protocol} ${packet.source} > ${packet.destination}, ${packet.length} bytes`,
    );
  }
  const headers = packet.family === 1 ? 28 : 48;
  return { ...packet, type, size: packet.length - headers, from: isOurs ? 'ours' : 'theirs' };
}

/** In order, as "ours 1" or "theirs 2"; data as "ours 4". */
export function described(messages: readonly WireGuardMessage[]): string[] {
  return messages.map(({ type, from }) => `${from} ${type}`);
}

/**
 * wireguard-go sets the timer for a second try only when the first is sent. On a busy machine the response is there before it,
 * and a needless handshake comes REKEY_TIMEOUT (5 s) and up to a third of a second later.
 */
export function withoutRepeats(handshakes: readonly WireGuardMessage[]): WireGuardMessage[] {
  const kept: WireGuardMessage[] = [];
  for (let at = 0; at < handshakes.length; at += 2) {
    const pair = handshakes.slice(at, at + 2);
    const after = (pair[0]?.timeMs ?? 0) - (kept.at(-2)?.timeMs ?? Number.NEGATIVE_INFINITY);
    if (after < 5000 || after > 5500) kept.push(...pair);
  }
  return kept;
}

/** One echo after the other, each of another size; every byte of every answer is compared by ping(8). */
export async function pingSizes(host: LabHost, target: string, sizes: readonly number[]): Promise<void> {
  for (const size of sizes) {
    const { stdout } = await host.run('ping', ['-n', '-c1', '-W15', '-p', 'c0ffee', '-s', String(size), target]);
    if (/wrong data byte/.test(stdout)) throw new Error(`ping of ${size} bytes to ${target}:\n${stdout}`);
  }
}
