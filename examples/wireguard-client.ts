/**
 * A WireGuard client in the five steps of the VPN developer guide; `vpnctl up` does the same with a wg-quick file. Everything this
 * user sends goes to the one peer.
 *
 *   vpnctl wg genkey > client.key
 *   node dist/examples/wireguard-client.js KEY_FILE PEER_KEY ADDRESS PORT IPV4/LENGTH [IPV6/LENGTH]   ends on Ctrl-C or SIGTERM
 */
import { closeSync, readFileSync } from 'node:fs';
import { type LinkAddress, vpn } from 'vpn-manager';
import { openTunnelSocket, publicKeyOf, startWireGuard, withOffload } from 'vpn-manager/tunnel';

const [keyFile, peerKey, address, port, ...own] = process.argv.slice(2);
if (!keyFile || !peerKey || !address || !port || own.length === 0) {
  console.error(
    'usage: node dist/examples/wireguard-client.js KEY_FILE PEER_KEY ADDRESS PORT IPV4/LENGTH [IPV6/LENGTH]',
  );
  process.exit(64);
}
process.once('uncaughtException', (error) => {
  console.error(error.message);
  process.exit(1);
});
// What is up stays up when nobody reads what it says.
process.stdout.on('error', () => {});
const mtu = 1408; // 80 bytes under a path of 1500, rounded down to whole blocks of the cipher

function keyOf(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, 'base64'));
}

function linkAddress(text: string): LinkAddress {
  const [address = '', length] = text.split('/');
  return { address: { address, family: address.includes(':') ? 2 : 1 }, prefixLength: Number(length) };
}

// 1. The tunnel to the server: a UDP socket for IPv4 and IPv6.
const socket = openTunnelSocket();

// 2. Its datagrams must not go into the VPN that they carry.
const connection = vpn.createVpnConnection({});
await connection.protect(socket.fd);

// 3. The vNIC, with segmentation offload. No routes given: all of this user's traffic.
const tunFd = await connection.setUp(withOffload({ addresses: own.map(linkAddress), mtu }));

// 4. WireGuard between the two, in a thread of its own.
const privateKey = keyOf(readFileSync(keyFile, 'utf8'));
console.log(`public key ${Buffer.from(publicKeyOf(privateKey)).toString('base64')}`);
const peer = {
  publicKey: keyOf(peerKey),
  endpoint: { address, port: Number(port) },
  allowedIps: ['0.0.0.0/0', '::/0'],
};
const change = { privateKey, peers: [{ ...peer, persistentKeepaliveSeconds: 25 }] };
const wireguard = await startWireGuard({ tunFd, socketFd: socket.fd, mtu, change });
privateKey.fill(0);
console.log(`up, UDP port ${socket.port}`);

// 5. The end: the keys first, then vNIC, rules and routes.
async function end(): Promise<void> {
  const { traffic } = await wireguard.status();
  await wireguard.close();
  await connection.destroy();
  for (const fd of [tunFd, socket.fd]) closeSync(fd);
  console.log(`carried ${traffic.packetsOut} packets out, ${traffic.packetsIn} in`);
}
process.once('SIGTERM', end).once('SIGINT', end);

const failure = await wireguard.ended;
// The VPN ends with its process: covered traffic does not wait for a thread that is no more.
if (failure) throw failure;
