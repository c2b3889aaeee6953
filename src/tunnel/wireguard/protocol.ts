/**
 * WireGuard as a protocol of the data path: a Device on the tunnel's memory, with the fastest cipher there is. Loaded in the
 * tunnel's thread; ../wireguard-tunnel.ts is what its owner sees.
 */
import { cipherSuite } from '../evp-ciphers.js';
import type { CreateProtocol, TunnelProtocol } from '../protocol.js';
import { MESSAGE_INITIATION, MESSAGE_TRANSPORT } from './constants.js';
import { Device } from './device.js';
import type { DeviceChange } from './device-config.js';
import { Endpoint } from './endpoint.js';
import { messageType } from './messages.js';
import { SCRATCH_BYTES } from './outbound.js';
import type { Peer } from './peer.js';

export type WireGuardRequest =
  | { question: 'configure'; change: DeviceChange }
  | { question: 'begin' }
  | { question: 'status' }
  | { question: 'secrets' };

export const createProtocol: CreateProtocol = ({ arena, mtu, nowMs: startMs }, options) => {
  const { memory, view } = arena;
  const device = new Device({ ciphers: cipherSuite(arena), scratch: arena.reserve(SCRATCH_BYTES), mtu });
  configure(device, options as DeviceChange, startMs);
  const protocol: TunnelProtocol<Peer> = {
    outbox: device.outbox,
    get nextDeadlineMs() {
      return device.nextDeadlineMs;
    },
    route: (from, length) => device.peerFor(from, length),
    seal: (peer, from, length, to, nowMs) => device.seal(peer, from, length, to, nowMs),
    open: (from, length, to, source, nowMs) => {
      // The type is 32 bits in little-endian; anything else than 1 to 4 is for the device to count.
      if (memory[from] === MESSAGE_TRANSPORT || length < 4) {
        const bytes = device.open(from, length, to, nowMs);
        const peer = device.lastPeer;
        if (peer !== undefined && !peer.endpoint?.isAt(view, source)) peer.roam(Endpoint.at(memory, source));
        return bytes;
      }
      // Not even copied: strangers may send 64 KiB at a time.
      if (messageType(memory, from, length) === undefined) {
        device.counters.malformed++;
        return 0;
      }
      // Who begins the handshake chose our address. Where we began it the kernel did, and may choose another tomorrow.
      const isInitiation = memory[from] === MESSAGE_INITIATION;
      const endpoint = isInitiation ? Endpoint.withLocalAt(memory, source) : Endpoint.at(memory, source);
      device.handle(memory.slice(from, from + length), endpoint, nowMs);
      return 0;
    },
    tick: (nowMs) => device.tick(nowMs),
    call: (request, nowMs) => answer(device, request as WireGuardRequest, nowMs),
    close: () => device.close(),
  };
  return protocol as TunnelProtocol;
};

function answer(device: Device, request: WireGuardRequest, nowMs: number): unknown {
  if (request.question === 'configure') return configure(device, request.change, nowMs);
  if (request.question === 'begin') return device.begin(nowMs);
  return request.question === 'status' ? device.status() : device.secrets();
}

/** The change is this thread's own copy: its keys are zeroed when the device has taken them. */
function configure(device: Device, change: DeviceChange, nowMs: number): void {
  try {
    device.configure(change, nowMs);
  } finally {
    change.privateKey?.fill(0);
    for (const { presharedKey } of change.peers ?? []) presharedKey?.fill(0);
  }
}
