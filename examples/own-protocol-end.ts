/**
 * One end of a tunnel with the protocol of own-protocol.ts. The end without a peer waits for the other one.
 *
 *   openssl rand -base64 32 > shared.key
 *   node dist/examples/own-protocol-end.js KEY_FILE PORT IPV4/LENGTH FAR_PREFIX [PEER_ADDRESS PEER_PORT]   ends on SIGTERM
 */
import { closeSync, readFileSync } from 'node:fs';
import { type LinkAddress, vpn } from 'vpn-manager';
import { openTunnel, openTunnelSocket, withOffload } from 'vpn-manager/tunnel';
import type { OwnProtocolOptions } from './own-protocol.js';

const [keyFile, port, own, far, peerAddress, peerPort] = process.argv.slice(2);
if (!keyFile || !port || !own || !far) {
  console.error(
    'usage: node dist/examples/own-protocol-end.js KEY_FILE PORT IPV4/LENGTH FAR_PREFIX [PEER_ADDRESS PEER_PORT]',
  );
  process.exit(64);
}
process.once('uncaughtException', (error) => {
  console.error(error.message);
  process.exit(1);
});
// What is up stays up when nobody reads what it says.
process.stdout.on('error', () => {});
const mtu = 1400; // the protocol's 28 bytes, UDP's 8 and IPv6's 40 fit into a path of 1500

function linkAddress(text: string): LinkAddress {
  const [address = '', length] = text.split('/');
  return { address: { address, family: address.includes(':') ? 2 : 1 }, prefixLength: Number(length) };
}

const socket = openTunnelSocket(Number(port));
const connection = vpn.createVpnConnection({});
await connection.protect(socket.fd);
const tunFd = await connection.setUp(
  withOffload({
    addresses: [linkAddress(own)],
    routes: [{ destination: linkAddress(far), gateway: { address: '' } }],
    isIPv6Accepted: true, // and with no route of its own: as without a VPN
    mtu,
  }),
);

const options: OwnProtocolOptions = {
  key: new Uint8Array(Buffer.from(readFileSync(keyFile, 'utf8'), 'base64')),
  peer: peerAddress === undefined ? undefined : { address: peerAddress, port: Number(peerPort) },
};
// The module is loaded in the tunnel's thread, and gets a copy of the options.
const protocol = new URL('./own-protocol.js', import.meta.url);
const tunnel = await openTunnel({ tunFd, socketFd: socket.fd, mtu, protocol, options });
options.key.fill(0);
console.log(`up, UDP port ${socket.port}`);

async function end(): Promise<void> {
  const { counters, offload } = await tunnel.status();
  const { rejected } = (await tunnel.call('counters')) as { rejected: number };
  await tunnel.close();
  await connection.destroy();
  for (const fd of [tunFd, socket.fd]) closeSync(fd);
  console.log(
    `${counters.packetsOut} packets out by ${counters.tunReads} reads, ${counters.packetsIn} in, ${rejected} rejected`,
  );
  console.log(`segments: of TCP ${offload.tcp}, of UDP ${offload.udp}, of the socket ${offload.socket}`);
}
process.once('SIGTERM', end).once('SIGINT', end);

const failure = await tunnel.ended;
if (failure) throw failure;
