/**
 * A VPN that leads nowhere: sets one up, shows what the kernel sends into it, and destroys it on Ctrl-C.
 *
 *   node dist/examples/up.js [IPV4]
 */
import { type BusinessError, vpn } from 'vpn-manager';
import { packets } from 'vpn-manager/tunnel';

const [address = '10.0.0.5'] = process.argv.slice(2);
process.stdout.on('error', () => process.exit(1)); // nobody looks; the VPN ends with its process
const connection = vpn.createVpnConnection({});

try {
  const fd = await connection.setUp({
    addresses: [{ address: { address, family: 1 }, prefixLength: 24 }],
    dnsAddresses: ['10.0.0.1'],
    mtu: 1400,
  });
  console.log(`up, fd ${fd}; Ctrl-C ends it`);
  process.once('SIGINT', () => void connection.destroy()).once('SIGTERM', () => void connection.destroy());
  // The iteration ends when the VPN does.
  for await (const packet of packets(fd)) {
    console.log(`${packet.length} bytes, IP version ${(packet[0] ?? 0) >> 4}, protocol ${packet[9]}`);
  }
  console.log('down');
} catch (error) {
  console.error(JSON.stringify(error as BusinessError));
  process.exitCode = 1;
}
