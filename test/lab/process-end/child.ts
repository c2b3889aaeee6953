/**
 * A process that brings itself into one state, prints `ready`, and on SIGUSR2 ends in one way:
 *
 *   child.js STATE ENDING [SOCKET]     STATE: call | up | read, each also with `service-` in front: the service runs inside,
 *                                      on SOCKET     ENDING: exit (3) | throw | natural
 *
 * A natural end is what it says: nothing is called to end, what keeps the process alive is taken away. A signal handler
 * keeps no process alive.
 */
import { read } from 'node:fs';
import { dirname, join } from 'node:path';
import { type RunningService, startService } from '../../../src/service/index.js';
import { vpn } from '../../../src/vpn/index.js';

const [state = '', ending = '', socket = ''] = process.argv.slice(2);
const kind = state.replace(/^service-/, '');
let service: RunningService | undefined;
if (state !== kind) {
  service = await startService({ socket, stateDir: join(dirname(socket), 'state') });
  process.env.VPND_SOCKET = service.socket;
}
const connection = vpn.createVpnConnection({});

function setUp(): Promise<number> {
  return connection.setUp({
    addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }],
    dnsAddresses: ['10.0.0.1'],
    isBlocking: kind === 'read',
  });
}

async function takeAway(): Promise<void> {
  await connection.destroy();
  console.log('destroyed');
  await service?.close();
}

function end(): void {
  if (ending === 'exit') process.exit(3);
  if (ending === 'throw') throw new Error('uncaught on purpose');
}

if (kind !== 'call') {
  const fd = await setUp();
  // Twice, so that one is not luck; more than the four threads there are would starve whoever shares them.
  for (let reader = 0; kind === 'read' && reader < 2; reader++) readOn(fd);
}
process.once('SIGUSR2', () => {
  if (kind === 'call') {
    const outcome = setUp();
    // The call has been sent by the time an immediate runs, and cannot have been answered.
    setImmediate(end);
    if (ending === 'natural') void outcome.then(takeAway);
  } else if (ending === 'natural') {
    void takeAway();
  } else {
    end();
  }
});
// A call state without a VPN has nothing else that waits for the signal.
const waiting = kind === 'call' ? setInterval(() => {}, 1000) : undefined;
process.once('SIGUSR2', () => clearInterval(waiting));
console.log('ready');

function readOn(fd: number): void {
  read(fd, Buffer.alloc(2048), 0, 2048, null, (error) => {
    if (error) console.log(`read ended ${error.code}`);
    else readOn(fd);
  });
}
