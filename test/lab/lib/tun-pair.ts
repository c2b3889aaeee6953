/**
 * Two TUNs in a host of the lab, for kernel-segments.test.ts: `in0` with a vnet header, `out0` without. Each line of standard
 * input is one write to `in0` in hexadecimal; the answer is one line, numbered from 1: what write(2) said, and all that came out of `out0`.
 */
import { createInterface } from 'node:readline';
import { errnoName } from '../../../src/kernel/errno.js';
import { errno, libc } from '../../../src/kernel/ffi.js';
import { openTun } from '../../../src/kernel/tun.js';
import { setVnetHeaderBytes } from '../../../src/kernel/tun-offload.js';

export interface TunPairAnswer {
  number: number;
  written: string;
  packets: string[];
}

const input = openTun('in0', { vnetHeader: true });
setVnetHeaderBytes(input.fd);
const output = openTun('out0');
const buffer = Buffer.alloc(65_536);
console.log('ready');

/** For a packet to read: mostly the kernel forwards within write(2), but now and then a moment later. */
function wait(timeoutMs: number): void {
  const POLLIN = 1;
  const set = Buffer.alloc(128);
  set.writeInt32LE(output.fd, 0);
  set.writeInt16LE(POLLIN, 4);
  libc.poll(set, 1, timeoutMs);
}

/** What the kernel sends on its own account, to IPv6 multicast groups, is left out. */
function read(): string[] {
  const packets: string[] = [];
  for (;;) {
    const length = libc.read(output.fd, buffer, buffer.length);
    if (length <= 0) return packets;
    const isMulticast = (buffer[0] as number) >> 4 === 6 && buffer[24] === 0xff;
    if (!isMulticast) packets.push(buffer.toString('hex', 0, length));
  }
}

/** Until nothing has come for a while. */
function readAll(): string[] {
  const packets: string[] = [];
  for (let timeoutMs = 5000; ; timeoutMs = 200) {
    wait(timeoutMs);
    const more = read();
    if (more.length === 0 && timeoutMs < 5000) return packets;
    packets.push(...more);
  }
}

let number = 0;
for await (const line of createInterface({ input: process.stdin })) {
  read();
  const bytes = Buffer.from(line, 'hex');
  const written = libc.write(input.fd, bytes, bytes.length) === bytes.length ? 'ok' : errnoName(errno());
  const answer: TunPairAnswer = { number: ++number, written, packets: readAll() };
  console.log(JSON.stringify(answer));
}
