/**
 * What Docker makes of a host: a bridge with containers (network namespaces), addresses of its own for both families, and the
 * tables that it writes through iptables-nft, published port included.
 *
 *   app  docker0 172.17.0.1/16, fd17::1/64 ─┬─ cN  container1: eth0 172.17.0.2, fd17::2   whoami on port 80
 *                                           └─ cN  container2: eth0 172.17.0.3, fd17::3
 *        port 8080 of app's addresses is published: port 80 of container1
 */
import type { LabHost } from './host.js';
import type { Lab } from './lab.js';
import { startPeer } from './peers.js';

export const BRIDGE = 'docker0';
export const BRIDGE_ADDRESS = { ipv4: '172.17.0.1', ipv6: 'fd17::1' } as const;
export const PUBLISHED_PORT = 8080;

export interface Container {
  host: LabHost;
  ipv4: string;
  ipv6: string;
}

/** A container in a network of Docker's; its server says its name. */
export async function startContainer(lab: Lab, app: LabHost, number: number): Promise<Container> {
  const name = `container${number}`;
  const host = await lab.host(name);
  const [ipv4, ipv6] = [`172.17.0.${number + 1}`, `fd17::${number + 1}`];
  await lab.link(host, 'eth0', [`${ipv4}/16`, `${ipv6}/64`], app, `c${number}`, []);
  await app.ip(`link set c${number} master ${BRIDGE}`);
  await host.ip(`route add default via ${BRIDGE_ADDRESS.ipv4}`, `route add ::/0 via ${BRIDGE_ADDRESS.ipv6}`);
  await startPeer(host, { kind: 'whoami', name, port: 80 });
  return { host, ipv4, ipv6 };
}

/** The bridge, forwarding and Docker's tables. */
export async function startDocker(app: LabHost): Promise<void> {
  await app.ip(`link add ${BRIDGE} type bridge mcast_snooping 0 forward_delay 0`);
  await app.configure(BRIDGE, [`${BRIDGE_ADDRESS.ipv4}/16`, `${BRIDGE_ADDRESS.ipv6}/64`]);
  await app.sysctl('net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  await loadDockerTables(app);
}

/** As dockerd does at its start, and again after a firewall has been reloaded. */
export async function loadDockerTables(app: LabHost): Promise<void> {
  const tables = [
    dockerTables('ip', '172.17.0.0/16', '172.17.0.2', '172.17.0.2:80', '127.0.0.0/8'),
    dockerTables('ip6', 'fd17::/64', 'fd17::2', '[fd17::2]:80', '::1/128'),
  ];
  await app.run('nft', ['-f', '-'], { input: tables.join('') });
}

/** The listing of what iptables-nft makes for `docker run -p 8080:80`, matches in nft's own words. */
function dockerTables(family: 'ip' | 'ip6', subnet: string, container: string, published: string, loopback: string) {
  return `
table ${family} nat {
  chain DOCKER {
    iifname "${BRIDGE}" counter return
    iifname != "${BRIDGE}" tcp dport ${PUBLISHED_PORT} counter dnat to ${published}
    iifname != "${BRIDGE}" udp dport ${PUBLISHED_PORT} counter dnat to ${published}
  }
  chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local counter jump DOCKER; }
  chain OUTPUT { type nat hook output priority -100; policy accept; ${family} daddr != ${loopback} fib daddr type local counter jump DOCKER; }
  chain POSTROUTING {
    type nat hook postrouting priority srcnat; policy accept;
    ${family} saddr ${subnet} oifname != "${BRIDGE}" counter masquerade
    ${family} saddr ${container} ${family} daddr ${container} tcp dport 80 counter masquerade
  }
}
table ${family} filter {
  chain DOCKER {
    ${family} daddr ${container} iifname != "${BRIDGE}" oifname "${BRIDGE}" tcp dport 80 counter accept
    ${family} daddr ${container} iifname != "${BRIDGE}" oifname "${BRIDGE}" udp dport 80 counter accept
  }
  chain FORWARD {
    type filter hook forward priority filter; policy drop;
    oifname "${BRIDGE}" ct state related,established counter accept
    oifname "${BRIDGE}" counter jump DOCKER
    iifname "${BRIDGE}" oifname != "${BRIDGE}" counter accept
    iifname "${BRIDGE}" oifname "${BRIDGE}" counter accept
  }
}
`;
}
