/**
 * The topology of most lab tests:
 *
 *   app                       router                          server
 *   eth0 192.0.2.2/24 ─────── eth0 192.0.2.1/24
 *        2001:db8:1::2/64          2001:db8:1::1/64
 *                             eth1 198.51.100.1/24 ────────── eth0 198.51.100.2/24
 *                                  2001:db8:2::1/64                2001:db8:2::2/64
 *                                                             lo   203.0.113.10/32, 2001:db8:f::10/128 ("internet")
 *
 * The router forwards both families. What a server sees as a client's address tells the path it came by.
 */
import type { LabHost } from './host.js';
import { Lab } from './lab.js';

export const ADDRESSES = {
  app: { ipv4: '192.0.2.2', ipv6: '2001:db8:1::2' },
  server: { ipv4: '198.51.100.2', ipv6: '2001:db8:2::2' },
  internet: { ipv4: '203.0.113.10', ipv6: '2001:db8:f::10' },
} as const;

export interface StandardLab {
  lab: Lab;
  app: LabHost;
  router: LabHost;
  server: LabHost;
}

export interface StandardLabOptions {
  lifetimeSeconds?: number;
  /** More addresses of the server that the router sends there: further hosts of the "internet". */
  internet?: readonly string[];
}

export async function standardLab(options: StandardLabOptions = {}): Promise<StandardLab> {
  const { internet = [], ...rest } = options;
  const lab = await Lab.create(rest);
  try {
    const [app, router, server] = await Promise.all([lab.host('app'), lab.host('router'), lab.host('server')]);
    const { ipv4, ipv6 } = ADDRESSES.internet;
    const far = [ipv4, ipv6, ...internet];
    await lab.link(app, 'eth0', ['192.0.2.2/24', '2001:db8:1::2/64'], router, 'eth0', [
      '192.0.2.1/24',
      '2001:db8:1::1/64',
    ]);
    await lab.link(router, 'eth1', ['198.51.100.1/24', '2001:db8:2::1/64'], server, 'eth0', [
      '198.51.100.2/24',
      '2001:db8:2::2/64',
    ]);
    await Promise.all([
      app.ip('route add default via 192.0.2.1', 'route add ::/0 via 2001:db8:1::1'),
      router.sysctl('net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'),
      router.ip(...far.map((each) => `route add ${each} via ${gateway(each)}`)),
      server.configure('lo', far.map(hostPrefix)),
      server.ip('route add default via 198.51.100.1', 'route add ::/0 via 2001:db8:2::1'),
    ]);
    return { lab, app, router, server };
  } catch (error) {
    await lab.close();
    throw error;
  }
}

function gateway(address: string): string {
  return address.includes(':') ? ADDRESSES.server.ipv6 : ADDRESSES.server.ipv4;
}

function hostPrefix(address: string): string {
  return `${address}/${address.includes(':') ? 128 : 32}`;
}
