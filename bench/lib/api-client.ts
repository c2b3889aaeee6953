/**
 * An app, by the public API only; see driver.ts for how it is told what to do.
 *
 *   up NAME | down     a VPN of configs.ts, and its end; answers milliseconds
 *   protect N WIDTH    N calls, WIDTH of them at a time; answers calls a second, and p50 and p99 in milliseconds
 *   loop N             N VPNs, one after the other
 */
import { closeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { socket, vpn } from '../../src/vpn/kit.js';
import { LARGE, SMALL } from './configs.js';
import { quantile } from './statistics.js';

const CONFIGS = { ...SMALL, ...LARGE };
const connection = vpn.createVpnConnection({});
let tun = -1;

async function up(name: string): Promise<number> {
  const config = CONFIGS[name];
  if (!config) throw new Error(`no config ${name}`);
  const start = performance.now();
  tun = await connection.setUp(config);
  return performance.now() - start;
}

async function down(): Promise<number> {
  const start = performance.now();
  await connection.destroy();
  closeSync(tun);
  return performance.now() - start;
}

async function protect(count: number, width: number): Promise<string> {
  const udp = socket.constructUDPSocketInstance();
  const fd = await udp.getSocketFd();
  const times: number[] = [];
  let left = count;
  const worker = async () => {
    while (left-- > 0) {
      const start = performance.now();
      await connection.protect(fd);
      times.push(performance.now() - start);
    }
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: width }, worker));
  const seconds = (performance.now() - start) / 1000;
  await udp.close();
  return [count / seconds, quantile(times, 0.5), quantile(times, 0.99)].join(' ');
}

async function loop(count: number): Promise<void> {
  for (let round = 0; round < count; round++) {
    await up('IPv4');
    await down();
  }
}

const COMMANDS: Record<string, (...words: string[]) => Promise<unknown>> = {
  up: (...words) => up(words.join(' ')),
  down,
  protect: (count, width) => protect(Number(count), Number(width)),
  loop: (count) => loop(Number(count)),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [number, command = '', ...words] = line.split(' ');
  console.log(`done ${number} ${await COMMANDS[command]?.(...words)}`);
}
process.exit();
