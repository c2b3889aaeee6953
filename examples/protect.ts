/**
 * A TCP connection that leaves by the physical network although the user has a VPN: protect it before connecting.
 *
 *   node dist/examples/protect.js ADDRESS PORT      prints what the server says first
 */
import { type BusinessError, vpn } from 'vpn-manager';
import { socket } from 'vpn-manager/kit';

const [address, port] = process.argv.slice(2);
if (!address || !port) {
  console.error('usage: node dist/examples/protect.js ADDRESS PORT');
  process.exit(64);
}
process.stdout.on('error', () => process.exit(1)); // nobody reads it
const connection = vpn.createVpnConnection({});
const tcp = socket.constructTCPSocketInstance();

try {
  // Bound and protected first: a socket that is connected already keeps the vNIC's source address.
  await tcp.bind({ address: '0.0.0.0' });
  await connection.protect(await tcp.getSocketFd());
  const greeting = new Promise<string>((resolve) => {
    tcp.on('message', ({ message }) => resolve(Buffer.from(message).toString().trim()));
  });
  await tcp.connect({ address: { address, port: Number(port) }, timeout: 6000 });
  console.log(await greeting);
} catch (error) {
  console.error(JSON.stringify(error as BusinessError));
  process.exitCode = 1;
} finally {
  await tcp.close();
}
