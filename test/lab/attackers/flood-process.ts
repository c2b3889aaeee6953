/**
 * The attacker of wireguard-flood.ts: sends messages (wireguard-messages.ts) to a UDP port, as many and as fast as it is told, each
 * line of standard input a request and each line of standard output its answer (tunnel-end-protocol.ts has the form). One
 * system call a datagram, so that none arrives joined with others: that is the dearest form for whoever receives them.
 */
import { randomBytes } from 'node:crypto';
import { createInterface } from 'node:readline';
import { libc } from '../../../src/kernel/ffi.js';
import { AF_INET, SOCK_DGRAM } from '../../../src/kernel/socket-options.js';
import { MESSAGE_COOKIE_REPLY } from '../../../src/tunnel/wireguard/constants.js';
import { MacSender } from '../../../src/tunnel/wireguard/cookie.js';
import { decodeBytes, encodeBytes } from '../lib/tunnel-end-protocol.js';
import type { FloodOrder, FloodReport } from './wireguard-flood.js';
import { type Attack, messagesOf } from './wireguard-messages.js';

const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const IPPROTO_RAW = 255;
const IPPROTO_UDP = 17;
const IP_AND_UDP_BYTES = 28;
const MSG_DONTWAIT = 0x40;

interface Way {
  send(message: Uint8Array, index: number): void;
  /** Datagrams that came back since the last call. */
  answers(): number;
  close(): void;
}

const pause = new Int32Array(new SharedArrayBuffer(4));

function flood({ target, attack, count, perSecond, from }: FloodOrder): FloodReport {
  const messages = messagesOf(attack);
  const way = from === 'anywhere' ? spoofing(target) : sockets(target, from === 'here' ? [undefined] : from, attack);
  const total = count ?? messages.length;
  const begin = performance.now();
  let sent = 0;
  let answers = 0;
  while (sent < total) {
    const due = Math.min(total, Math.ceil(((performance.now() - begin) / 1000) * perSecond));
    for (; sent < due; sent++) way.send(messages[sent % messages.length] ?? new Uint8Array(), sent);
    answers += way.answers();
    Atomics.wait(pause, 0, 0, 1);
  }
  const seconds = (performance.now() - begin) / 1000;
  way.close();
  return { sent, seconds, answers };
}

/** A socket for each of the addresses. Who gets a cookie there uses it from then on. */
function sockets(target: FloodOrder['target'], addresses: readonly (string | undefined)[], attack: Attack): Way {
  const to = sockaddr(target.address, target.port);
  const answer = Buffer.alloc(4096);
  const all = addresses.map((address) => {
    const fd = libc.socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    const own = sockaddr(address ?? '0.0.0.0', 0);
    if (libc.bind(fd, own, own.length) !== 0) throw new Error(`bind ${address}`);
    const macs = address === undefined || !('publicKey' in attack) ? undefined : new MacSender(attack.publicKey);
    return { fd, macs };
  });
  return {
    send: (message, index) => {
      const socket = all[index % all.length];
      if (socket === undefined) return;
      socket.macs?.addMacs(message, 0);
      libc.sendto(socket.fd, message, message.length, 0, to, to.length);
    },
    answers: () => {
      let count = 0;
      for (const { fd, macs } of all) {
        for (let length = 0; ; count++) {
          length = libc.recv(fd, answer, answer.length, MSG_DONTWAIT);
          if (length < 0) break;
          if (answer[0] === MESSAGE_COOKIE_REPLY) macs?.takeCookieReply(answer.subarray(0, length), 0);
        }
      }
      return count;
    },
    close: () => {
      for (const { fd } of all) libc.close(fd);
    },
  };
}

/** raw(7) with an IPv4 header of our own; the kernel fills in its length and checksum. UDP's may be zero (RFC 768). */
function spoofing(target: FloodOrder['target']): Way {
  const fd = libc.socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_RAW);
  if (fd < 0) throw new Error('raw sockets need root');
  const to = sockaddr(target.address, 0);
  const packet = Buffer.alloc(65_535);
  packet.set([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, IPPROTO_UDP]);
  packet.set(to.subarray(4, 8), 16);
  packet.writeUInt16BE(target.port, 22);
  const random = randomBytes(65_536);
  return {
    send: (message, index) => {
      const at = (index * 6) % (random.length - 6);
      packet.set(random.subarray(at, at + 4), 12);
      // Not of a network that means something by itself: 11.0.0.0 to 126.255.255.255.
      packet[12] = 11 + ((packet[12] ?? 0) % 116);
      packet.set(random.subarray(at + 4, at + 6), 20);
      packet[20] = (packet[20] ?? 0) | 4;
      packet.writeUInt16BE(8 + message.length, 24);
      packet.set(message, IP_AND_UDP_BYTES);
      libc.sendto(fd, packet, IP_AND_UDP_BYTES + message.length, 0, to, to.length);
    },
    answers: () => 0,
    close: () => libc.close(fd),
  };
}

function sockaddr(address: string, port: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(AF_INET, 0);
  bytes.writeUInt16BE(port, 2);
  bytes.set(address.split('.').map(Number), 4);
  return bytes;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { number, ...order } = decodeBytes(line) as FloodOrder & { number: number };
  console.log(JSON.stringify({ begun: number }));
  console.log(encodeBytes({ number, ...flood(order) }));
}
