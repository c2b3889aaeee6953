/**
 * A tunnel protocol of one's own, for openTunnel(): one IP packet in one datagram, sealed with AES-256-GCM. The data path does the
 * rest: thread, system calls, segments. own-protocol-end.ts runs it.
 *
 *   nonce 12 | sealed packet | tag 16
 *
 * It shows the interface and is no VPN to use: one key for ever and for both sides, replayed datagrams are packets again, random
 * nonces are safe for 2^32 packets a key (NIST SP 800-38D), and node:crypto makes objects for each packet, which is slow.
 */
import { createCipheriv, createDecipheriv, randomFillSync } from 'node:crypto';
import { type CreateProtocol, type Destination, Endpoint, type EndpointText } from 'vpn-manager/tunnel';

export interface OwnProtocolOptions {
  /** 32 bytes. */
  key: Uint8Array;
  /** Absent: who is first to send something authentic. */
  peer?: EndpointText | undefined;
}

const NONCE_BYTES = 12;
const OVERHEAD = NONCE_BYTES + 16;

/** Runs in the tunnel's thread. All positions are offsets into its memory. */
export const createProtocol: CreateProtocol = ({ arena: { memory } }, options) => {
  const { key, peer } = options as OwnProtocolOptions;
  if (key.length !== 32) throw new Error(`key: has ${key.length} bytes, not 32`);
  const far: Destination = { endpoint: peer && Endpoint.of(peer.address, peer.port, peer.scopeId) };
  let rejected = 0;
  return {
    outbox: [], // no handshakes, no keepalives
    nextDeadlineMs: Number.POSITIVE_INFINITY,
    tick: () => {},
    route: () => far, // one peer gets everything
    seal: (_far, from, length, to) => {
      const cipher = createCipheriv('aes-256-gcm', key, randomFillSync(memory.subarray(to, to + NONCE_BYTES)));
      memory.set(cipher.update(memory.subarray(from, from + length)), to + NONCE_BYTES);
      cipher.final();
      memory.set(cipher.getAuthTag(), to + NONCE_BYTES + length);
      return length + OVERHEAD;
    },
    open: (from, length, to, source) => {
      try {
        const datagram = memory.subarray(from, from + length);
        const decipher = createDecipheriv('aes-256-gcm', key, datagram.subarray(0, NONCE_BYTES));
        decipher.setAuthTag(datagram.subarray(-16));
        memory.set(decipher.update(datagram.subarray(NONCE_BYTES, -16)), to);
        decipher.final(); // throws, as everything above does, for what is not from the other side
      } catch {
        rejected++;
        return 0;
      }
      far.endpoint ??= Endpoint.at(memory, source);
      return length - OVERHEAD;
    },
    call: () => ({ rejected }),
    close: () => key.fill(0),
  };
};
