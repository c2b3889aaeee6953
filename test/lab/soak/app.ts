/**
 * A process that uses the API many times: `operations COUNT` on standard input, `done` on standard output; `memory` for what
 * is left after collecting garbage. One in ten operations is setUp and destroy, the others protect, refused calls among them.
 */
import { closeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { BusinessError } from '../../../src/model/errors.js';
import { vpn } from '../../../src/vpn/index.js';
import { constructTCPSocketInstance, constructUDPSocketInstance } from '../../../src/vpn/socket.js';
import { measure } from './memory.js';

const CONFIG = {
  addresses: [
    { address: { address: '10.0.0.5' }, prefixLength: 24 },
    { address: { address: 'fd00::5' }, prefixLength: 64 },
  ],
  dnsAddresses: ['10.0.0.1'],
  searchDomains: ['example.org'],
};

async function refused(work: Promise<unknown>, code: number): Promise<void> {
  const outcome = await work.then(
    () => undefined,
    (error: BusinessError) => error.code,
  );
  if (outcome !== code) throw new Error(`${outcome} instead of ${code}`);
}

async function operation(number: number): Promise<void> {
  // A new object each time: nothing may hang on it.
  const connection = vpn.createVpnConnection({});
  if (number % 10 === 0) {
    const fd = await connection.setUp(CONFIG);
    if (number % 20 === 0) await refused(connection.setUp(CONFIG), 2203002);
    await connection.destroy();
    return closeSync(fd);
  }
  if (number % 10 === 5) return refused(connection.setUp({ addresses: [] }), 2200001);
  if (number % 10 === 6) return refused(connection.protect(0x7fffffff), 2203004);
  const socket = number % 2 === 0 ? constructUDPSocketInstance() : constructTCPSocketInstance();
  const fd = await socket.getSocketFd();
  await new Promise<void>((resolve, reject) => {
    connection.protect(fd, (error) => (error ? reject(error) : resolve()));
  });
  await socket.close();
}

for await (const line of createInterface({ input: process.stdin })) {
  const [word, count] = line.split(' ');
  if (word === 'operations') {
    for (let number = 0; number < Number(count); number++) await operation(number);
    console.log('done');
  } else if (word === 'memory') {
    console.log(`memory ${JSON.stringify(await measure())}`);
  } else {
    break;
  }
}
