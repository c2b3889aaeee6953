/**
 * A WireGuard server: waits for its peers at a port, and learns from their handshakes where they are. By the same API as a client,
 * so what the peers reach is what the caller's VPN covers: the programs of this user, and as root those of everybody who has no
 * VPN of his own. It is no gateway: nothing is forwarded from one peer to another, or to the Internet.
 *
 *   node dist/examples/wireguard-server.js KEY_FILE PORT IPV4/LENGTH PEER_KEY,PREFIX[,PREFIX...] ...   ends on Ctrl-C or SIGTERM
 */
import { closeSync, readFileSync } from 'node:fs';
import { type LinkAddress, vpn } from 'vpn-manager';
import { openTunnelSocket, startWireGuard, withOffload } from 'vpn-manager/tunnel';

const [keyFile, port, own, ...allowed] = process.argv.slice(2);
if (!keyFile || !port || !own || allowed.length === 0) {
  console.error(
    'usage: node dist/examples/wireguard-server.js KEY_FILE PORT IPV4/LENGTH PEER_KEY,PREFIX[,PREFIX...] ...',
  );
  process.exit(64);
}
process.once('uncaughtException', (error) => {
  console.error(error.message);
  process.exit(1);
});
// What is up stays up when nobody reads what it says.
process.stdout.on('error', () => {});
const mtu = 1408;

function keyOf(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, 'base64'));
}

function linkAddress(text: string): LinkAddress {
  const [address = '', length] = text.split('/');
  return { address: { address, family: address.includes(':') ? 2 : 1 }, prefixLength: Number(length) };
}

const peers = allowed.map((words) => {
  const [publicKey = '', ...allowedIps] = words.split(',');
  return { publicKey: keyOf(publicKey), allowedIps };
});
const prefixes = peers.flatMap(({ allowedIps }) => allowedIps);

const socket = openTunnelSocket(Number(port));
const connection = vpn.createVpnConnection({});
await connection.protect(socket.fd);
const tunFd = await connection.setUp(
  withOffload({
    addresses: [linkAddress(own)],
    // Only the way to the peers: everything else goes on as without a VPN, and so does IPv6.
    routes: prefixes.map((prefix) => ({ destination: linkAddress(prefix), gateway: { address: '' } })),
    isIPv6Accepted: true,
    mtu,
  }),
);
const privateKey = keyOf(readFileSync(keyFile, 'utf8'));
const wireguard = await startWireGuard({ tunFd, socketFd: socket.fd, mtu, change: { privateKey, peers } });
privateKey.fill(0);
console.log(`up, UDP port ${socket.port}, ${peers.length} peers`);

async function end(): Promise<void> {
  for (const { publicKey, endpoint, receivedBytes, sentBytes } of (await wireguard.status()).peers) {
    const where = endpoint ? `${endpoint.address} port ${endpoint.port}` : 'nowhere';
    console.log(`${Buffer.from(publicKey).toString('base64')} ${where}: ${receivedBytes} bytes in, ${sentBytes} out`);
  }
  await wireguard.close();
  await connection.destroy();
  for (const fd of [tunFd, socket.fd]) closeSync(fd);
}
process.once('SIGTERM', end).once('SIGINT', end);

const failure = await wireguard.ended;
if (failure) throw failure;
