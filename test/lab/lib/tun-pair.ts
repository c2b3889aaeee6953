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

/** The kernel forwards within write(2); what it sends on its own account, such as router solicitations, is left out. */
function read(): string[] {
  const packets: string[] = [];
  for (;;) {
    const length = libc.read(output.fd, buffer, buffer.length);
    if (length <= 0) return packets;
    const protocol = (buffer[0] as number) >> 4 === 4 ? buffer[9] : buffer[6];
    if (protocol !== 58) packets.push(buffer.toString('hex', 0, length));
  }
}

let number = 0;
for await (const line of createInterface({ input: process.stdin })) {
  read();
  const bytes = Buffer.from(line, 'hex');
  const written = libc.write(input.fd, bytes, bytes.length) === bytes.length ? 'ok' : errnoName(errno());
  const answer: TunPairAnswer = { number: ++number, written, packets: read() };
  console.log(JSON.stringify(answer));
}
