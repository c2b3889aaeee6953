/** What a holder of a TUN with IFF_VNET_HDR can do with it, honest or not. Part of operations.ts. */
import { errnoName } from '../../../../src/kernel/errno.js';
import { errno, libc } from '../../../../src/kernel/ffi.js';
import { probeOffload, VNET_HEADER_BYTES } from '../../../../src/kernel/tun-offload.js';

const SYS_IOCTL = process.arch === 'x64' ? 16 : 29;
const MAX_PACKET_BYTES = 65_535;

/** What a mirror has seen. */
export interface Mirrored {
  /** TUN_F_* that are on. */
  offload: number;
  packets: number;
  largest: number;
  /** gso_type of headers, sorted, each once. */
  types: number[];
  /** Errnos of writes, each once. */
  refused: string[];
}

const mirrors = new Map<number, Mirrored>();

export const offloadOperations = {
  /** One write(2) of bytes in hexadecimal: `ok` or the errno's name. */
  write: async (fd: number, hex: string): Promise<string> => write(fd, Buffer.from(hex, 'hex')),

  /** ioctl(2) with a number, or with a pointer to an int of that value (or to bytes in hexadecimal). `ok` or the errno's name. */
  ioctl: async (fd: number, request: number, argument: number | { int: number } | { hex: string }): Promise<string> => {
    if (typeof argument === 'number') return named(libc.syscall(SYS_IOCTL, fd, request, argument));
    const memory = Buffer.alloc(256);
    if ('int' in argument) memory.writeInt32LE(argument.int);
    else memory.write(argument.hex, 'hex');
    return named(libc.ioctl(fd, request, memory));
  },

  /**
   * Writes the packets with headers of any content, most of them nearly right, at most so many and for so long. Counts what the
   * kernel said.
   */
  writeAnyHeaders: async (
    fd: number,
    packets: string[],
    limits: { seed: number; count: number; timeMs: number },
  ): Promise<Record<string, number>> => {
    const bodies = packets.map((hex) => Buffer.from(hex, 'hex'));
    const said: Record<string, number> = {};
    const random = randomFrom(limits.seed);
    const end = performance.now() + limits.timeMs;
    for (let written = 0; written < limits.count && performance.now() < end; written++) {
      const body = bodies[random() % bodies.length] as Buffer;
      const result = write(fd, Buffer.concat([anyHeader(random, body.length), body]));
      said[result] = (said[result] ?? 0) + 1;
      if (written % 64 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    return said;
  },

  /**
   * From now on every packet comes back with its addresses swapped and its header as it is: who connects to any address in the
   * tunnel meets listeners of his own. No checksum changes by that. Needs a descriptor that does not block.
   */
  mirror: async (fd: number): Promise<number> => {
    const seen: Mirrored = { offload: probeOffload(fd), packets: 0, largest: 0, types: [], refused: [] };
    mirrors.set(fd, seen);
    void (async () => {
      const buffer = Buffer.alloc(VNET_HEADER_BYTES + MAX_PACKET_BYTES);
      for (;;) {
        const length = libc.read(fd, buffer, buffer.length);
        if (length > 0) reflect(fd, buffer.subarray(0, length), seen);
        else if (errnoName(errno()) !== 'EAGAIN') return;
        else await new Promise((resolve) => setTimeout(resolve, 1));
      }
    })();
    return seen.offload;
  },
  mirrored: async (fd: number): Promise<Mirrored | undefined> => mirrors.get(fd),
};

function write(fd: number, bytes: Uint8Array): string {
  return named(libc.write(fd, bytes, bytes.length));
}

function named(result: number): string {
  return result < 0 ? errnoName(errno()) : 'ok';
}

function reflect(fd: number, bytes: Buffer, seen: Mirrored): void {
  const packet = bytes.subarray(VNET_HEADER_BYTES);
  const [at, size] = (packet[0] ?? 0) >> 4 === 4 ? [12, 4] : [8, 16];
  const source = Buffer.from(packet.subarray(at, at + size));
  packet.copyWithin(at, at + size, at + 2 * size);
  packet.set(source, at + size);
  seen.packets++;
  seen.largest = Math.max(seen.largest, packet.length);
  seen.types = [...new Set([...seen.types, bytes[1] ?? 0])].sort();
  const result = write(fd, bytes);
  if (result !== 'ok') seen.refused = [...new Set([...seen.refused, result])];
}

/** struct virtio_net_hdr; see tun-offload.ts. Each field is right for a packet of that length, at an edge, or anything. */
function anyHeader(random: () => number, length: number): Buffer {
  const header = Buffer.alloc(VNET_HEADER_BYTES);
  const pick = (...values: readonly number[]) => values[random() % values.length] ?? 0;
  const field = (...likely: readonly number[]) => (random() % 4 > 0 ? pick(...likely) : random() & 0xffff);
  header.writeUInt8(field(0, 1, 1, 2, 3) & 0xff, 0);
  header.writeUInt8(field(0, 1, 3, 4, 5, 5, 0x81, 0x84, 0x85) & 0xff, 1);
  header.writeUInt16LE(field(0, 28, 40, 48, 60, length & 0xffff, (length + 1) & 0xffff), 2);
  header.writeUInt16LE(field(0, 1, 8, 536, 1200, 1400, length & 0xffff, 0xfffe, 0xffff), 4);
  header.writeUInt16LE(field(0, 8, 20, 20, 40, 40, (length - 2) & 0xffff, 0xffff), 6);
  header.writeUInt16LE(field(0, 6, 6, 12, 16, 16, 0xfffe, 0xffff), 8);
  return header;
}

/** mulberry32: small, and the same everywhere. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}
