/**
 * The five steps of the VPN developer guide: a UDP tunnel socket, protect, setUp, forward, destroy. The "protocol" is the
 * simplest there is: one datagram, one IP packet, in clear.
 *
 *   node dist/examples/tunnel-app.js SERVER PORT IPV4/LENGTH [IPV6/LENGTH]      ends on Ctrl-C or SIGTERM
 */
import { type LinkAddress, vpn } from 'vpn-manager';
import { socket } from 'vpn-manager/kit';
import { packets } from 'vpn-manager/tunnel';

const [server, port, ...own] = process.argv.slice(2);
if (!server || !port || own.length === 0) {
  console.error('usage: node dist/examples/tunnel-app.js SERVER PORT IPV4/LENGTH [IPV6/LENGTH]');
  process.exit(64);
}
process.once('uncaughtException', (error) => {
  console.error(error.message);
  process.exit(1);
});
// What is up stays up when nobody reads what it says.
process.stdout.on('error', () => {});

async function timed<T>(name: string, work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  const result = await work();
  console.log(`${name} ${(performance.now() - start).toFixed(1)} ms`);
  return result;
}

function linkAddress(text: string): LinkAddress {
  const [address = '', length] = text.split('/');
  return { address: { address, family: address.includes(':') ? 2 : 1 }, prefixLength: Number(length) };
}

// 1. The tunnel to the VPN server: an ordinary UDP socket.
const tunnel = socket.constructUDPSocketInstance();
await tunnel.bind({ address: '0.0.0.0' });
const peer = { address: server, port: Number(port) };

// 2. Its datagrams must not go into the VPN that they carry.
const connection = vpn.createVpnConnection({});
await timed('protect', async () => connection.protect(await tunnel.getSocketFd()));

// 3. The vNIC: from here on everything this user sends arrives at `fd`. No routes given: all of it.
const fd = await timed('setUp', () => connection.setUp({ addresses: own.map(linkAddress), mtu: 1400 }));

// 4. Forward, both ways.
const stream = packets(fd);
tunnel.on('message', ({ message }) => {
  stream.write(new Uint8Array(message));
});

// 5. The end: vNIC, rules and routes go; the network is as it was.
async function end(): Promise<void> {
  await timed('destroy', () => connection.destroy());
  await stream.close();
  await tunnel.close();
  console.log(`forwarded ${stream.counters.read} packets out, ${stream.counters.written} in`);
}
process.once('SIGTERM', end).once('SIGINT', end);

console.log(`forwarding, fd ${fd}`);
for await (const packet of stream) {
  // send() reports an unreachable peer; a tunnel drops the packet, as any link does.
  tunnel.send({ address: peer, data: packet }).catch(() => {});
}
