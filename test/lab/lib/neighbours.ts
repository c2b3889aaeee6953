/**
 * Other programs that take part in a host's routing and firewall, as their rules look in the kernel: wg-quick(8), Tailscale,
 * firewalld, ufw. What they lead to is a host of its own that has the "internet" addresses too and says its name:
 *
 *   app wg0        10.66.0.2/24, fd66::2/64 ──────── wg       .1, ::1, PLACES
 *       tailscale0 100.64.0.2/24, fd7a:115c:a1e0::2 ─ tailnet  .1, ::1
 */
import { PLACES, startServers } from './exits.js';
import type { LabHost } from './host.js';
import type { PolicyLab } from './policy-lab.js';

export const WG = { name: 'wg', link: 'wg0', client: { ipv4: '10.66.0.2', ipv6: 'fd66::2' } } as const;
export const TAILNET = {
  name: 'tailnet',
  link: 'tailscale0',
  address: { ipv4: '100.64.0.1', ipv6: 'fd7a:115c:a1e0::1' },
  client: { ipv4: '100.64.0.2', ipv6: 'fd7a:115c:a1e0::2' },
  /** Of tailscaled's own sockets. */
  mark: 0x80000,
} as const;

/** The far ends, and the links to them. What leads there comes with `wgQuick` and `tailscale`. */
export async function startFarEnds({ lab, app }: PolicyLab): Promise<void> {
  const [wg, tailnet] = await Promise.all([lab.host(WG.name), lab.host(TAILNET.name)]);
  await lab.link(app, WG.link, ['10.66.0.2/24', 'fd66::2/64'], wg, 'eth0', ['10.66.0.1/24', 'fd66::1/64']);
  await lab.link(app, TAILNET.link, [`${TAILNET.client.ipv4}/32`, `${TAILNET.client.ipv6}/128`], tailnet, 'eth0', [
    `${TAILNET.address.ipv4}/24`,
    `${TAILNET.address.ipv6}/64`,
  ]);
  await wg.configure(
    'lo',
    PLACES.map((address) => `${address}/${address.includes(':') ? 128 : 32}`),
  );
  await wg.sysctl('net.ipv4.icmp_echo_ignore_all=1', 'net.ipv6.icmp.echo_ignore_all=1');
  await wg.spawn('python3', [wg.path('test/lab/lib/servers/icmp.py'), WG.name]).waitFor(/^ready$/m);
  const { ipv4, ipv6 } = TAILNET.address;
  await Promise.all([startServers(wg, WG.name, PLACES), startServers(tailnet, TAILNET.name, [ipv4, ipv6])]);
}

const sh = (host: LabHost, script: string) => host.run('sh', ['-ec', script]);

/** What `wg-quick up` does for AllowedIPs = 0.0.0.0/0, ::/0. */
export async function wgQuickUp(app: LabHost): Promise<void> {
  await sh(
    app,
    `ip -6 route add ::/0 via fd66::1 dev wg0 table 51820
     ip -6 rule add not fwmark 51820 table 51820
     ip -6 rule add table main suppress_prefixlength 0
     ip -4 route add 0.0.0.0/0 via 10.66.0.1 dev wg0 table 51820
     ip -4 rule add not fwmark 51820 table 51820
     ip -4 rule add table main suppress_prefixlength 0
     sysctl -qw net.ipv4.conf.all.src_valid_mark=1`,
  );
  const chains = (ip: string, address: string) => `
table ${ip} wg-quick-wg0 {
  chain preraw { type filter hook prerouting priority raw; iifname != "wg0" ${ip} daddr ${address} fib saddr type != local drop; }
  chain premangle { type filter hook prerouting priority mangle; meta l4proto udp meta mark set ct mark; }
  chain postmangle { type filter hook postrouting priority mangle; meta l4proto udp mark 51820 ct mark set mark; }
}`;
  await app.run('nft', ['-f', '-'], { input: `${chains('ip', WG.client.ipv4)}${chains('ip6', WG.client.ipv6)}\n` });
}

export async function wgQuickDown(app: LabHost): Promise<void> {
  await sh(
    app,
    `for f in -4 -6; do ip $f rule del table 51820; ip $f rule del table main suppress_prefixlength 0; ip $f route flush table 51820; done
     nft 'delete table ip wg-quick-wg0; delete table ip6 wg-quick-wg0'
     sysctl -qw net.ipv4.conf.all.src_valid_mark=0`,
  );
}

/** Tailscale's rules (wgengine/router of tailscale): its own sockets past its table, everybody else into that first. */
export async function tailscaleUp(app: LabHost): Promise<void> {
  await sh(
    app,
    `for f in -4 -6; do
       ip $f rule add pref 5210 fwmark 0x80000/0xff0000 table main
       ip $f rule add pref 5230 fwmark 0x80000/0xff0000 table default
       ip $f rule add pref 5250 fwmark 0x80000/0xff0000 type unreachable
       ip $f rule add pref 5270 table 52
     done
     ip -4 route add 100.64.0.0/24 dev tailscale0 src ${TAILNET.client.ipv4} table 52
     ip -6 route add fd7a:115c:a1e0::/48 dev tailscale0 src ${TAILNET.client.ipv6} table 52`,
  );
}

/** Ports that the firewalls below leave open and closed. */
export const OPEN_PORT = 22;
export const CLOSED_PORT = 2222;

/** firewalld with its nftables back end, IPv6_rpfilter=yes, zone public on all links with ssh: shortened, nothing else left out. */
export const FIREWALLD = `
table inet firewalld {
  chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; }
  chain nat_PREROUTING { type nat hook prerouting priority dstnat + 10; policy accept; }
  chain nat_POSTROUTING { type nat hook postrouting priority srcnat + 10; policy accept; }
  chain nat_OUTPUT { type nat hook output priority -90; policy accept; }
  chain filter_PREROUTING {
    type filter hook prerouting priority filter + 10; policy accept;
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
    meta nfproto ipv6 fib saddr . mark . iif oif missing drop
  }
  chain raw_PREROUTING {
    type filter hook prerouting priority raw + 10; policy accept;
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
    meta nfproto ipv6 fib saddr . mark . iif oif missing drop
  }
  chain filter_IN_public {
    tcp dport ${OPEN_PORT} accept
    ip6 daddr fe80::/64 udp dport 546 accept
    meta l4proto { icmp, ipv6-icmp } accept
  }
  chain filter_INPUT_ZONES {
    goto filter_IN_public
  }
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    reject with icmpx admin-prohibited
  }
  chain filter_OUTPUT {
    type filter hook output priority filter + 10; policy accept;
    ct state { established, related } accept
    oifname "lo" accept
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24 } reject with icmpv6 addr-unreachable
  }
}
`;

/** ufw's chains by iptables-nft: default deny incoming, allow outgoing, 22/tcp allowed. */
export const UFW = (['ip', 'ip6'] as const)
  .map(
    (ip) => `
table ${ip} filter {
  chain ufw-not-local {
    fib daddr type local counter return
    fib daddr type multicast counter return
    ${ip === 'ip' ? 'fib daddr type broadcast counter return' : ''}
    counter drop
  }
  chain INPUT {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state related,established accept
    ct state invalid drop
    ${ip === 'ip' ? 'icmp type echo-request accept' : 'icmpv6 type { echo-request, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept'}
    jump ufw-not-local
    tcp dport ${OPEN_PORT} counter accept
  }
  chain FORWARD { type filter hook forward priority filter; policy drop; }
  chain OUTPUT {
    type filter hook output priority filter; policy accept;
    oifname "lo" accept
    ct state related,established accept
    ct state new accept
  }
}
`,
  )
  .join('');
