/**
 * Many users with a VPN each, from one process: every connection is made under another effective uid, which is what the
 * service takes for the caller's. Also holds the TUN `sink0`, to which sends under measurement go: nobody reads it, so that
 * what is measured is the way there. many-vpns COUNT plain|dns|tun; `tun` makes the interfaces and addresses only.
 */
import { execFileSync } from 'node:child_process';
import { closeSync } from 'node:fs';
import { socketPath } from '../../src/ipc/methods.js';
import { ServiceConnection } from '../../src/ipc/service-connection.js';
import { openTun } from '../../src/kernel/tun.js';
import { receiveWithFds, unixPair } from '../../src/kernel/unix-socket.js';
import { FIRST_OF_CROWD, LARGEST_CROWD } from './crowd.js';

const [count, kind] = [Number(process.argv[2]), process.argv[3]];
if (count > LARGEST_CROWD) throw new RangeError(`more than ${LARGEST_CROWD} users`);

function config(index: number) {
  const [high, low] = [index >> 8, index & 0xff];
  return {
    addresses: [
      { address: { address: `10.${high}.${low}.5` }, prefixLength: 24 },
      { address: { address: `fd00:${high}:${low}::5` }, prefixLength: 64 },
    ],
    ...(kind === 'dns' && { dnsAddresses: [`10.${high}.${low}.53`] }),
  };
}

async function setUp(index: number): Promise<void> {
  process.seteuid?.(FIRST_OF_CROWD + index);
  const service = new ServiceConnection(socketPath());
  const [mine, theirs] = unixPair();
  process.seteuid?.(0);
  service.hold(true);
  await service.call('setUp', { config: config(index) }, [theirs], () => closeSync(theirs));
  // The service keeps no copy: without a descriptor the vNIC would go.
  receiveWithFds(mine);
  closeSync(mine);
}

function makeTun(index: number): void {
  const { name } = openTun(`tun${index}`);
  for (const { address, prefixLength } of config(index).addresses) {
    const text = `${address.address}/${prefixLength}`;
    execFileSync(
      'ip',
      ['address', 'add', text, 'dev', name, 'noprefixroute', 'nodad'].slice(0, text.includes(':') ? 7 : 6),
    );
  }
  execFileSync('ip', ['link', 'set', name, 'up', 'addrgenmode', 'none']);
}

openTun('sink0');
for (let index = 0; index < count; index++) {
  if (kind === 'tun') makeTun(index);
  else await setUp(index);
}
console.log('ready');
setInterval(() => {}, 1 << 30);
