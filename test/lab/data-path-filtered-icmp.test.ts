/**
 * A router with a smaller MTU that keeps to itself what does not fit: no "fragmentation needed", no "packet too big" (RFC 2923,
 * section 2.1). With DF on the tunnel's datagrams a packet that is sent alone vanishes for ever, however often TCP sends it,
 * while batches, which the kernel sends without DF, pass: downloads work, and the first large request of a page hangs.
 *
 *   here                            router                                 there
 *   eth0 192.0.2.1/32 ───────────── west      1300 bytes, east ──────────── eth0 192.0.2.2/32
 *        2001:db8:1::1/128                                                      2001:db8:1::2/128
 *   tun0 10.9.0.1/24, fd09::1/64 ══════════════ UDP ══════════════════════ tun0 10.9.0.2/24, fd09::2/64
 *
 * Over IPv6 nobody but the sender makes fragments (RFC 8200, section 5), so there the tunnel depends on what routers say.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { LabHost } from './lib/host.js';
import { Lab } from './lib/lab.js';
import { FAMILIES, startPlainPair } from './lib/plain-tunnel.js';
import { requireRoot } from './lib/prerequisites.js';
import { receiveTransfers, transfer } from './lib/transfer.js';
import { type Hosts, INSIDE, OUTSIDE } from './lib/two-hosts.js';

const TIMEOUT = { timeout: 180_000 };
const NARROW_MTU = 1300;
const REQUESTS = 20;
/** TCP sends again after 0.2, 0.6, 1.4, 3 and 6.2 s. */
const PATIENCE_SECONDS = 30;
/** One segment of the connection: with headers more than the narrow link takes, less than the vNIC's MTU. */
const REQUEST_BYTES = 1330;

/** Each connection answers with as many bytes as it was sent. */
const SERVER = `
import socket, sys, threading
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s = socket.socket(family)
s.bind((sys.argv[1], 7100))
s.listen(64)
print('ready', flush=True)
def serve(c):
    left = ${REQUEST_BYTES}
    while left > 0 and (data := c.recv(left)): left -= len(data)
    if left == 0: c.sendall(b'.' * ${REQUEST_BYTES})
    c.close()
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
`;

/**
 * As TLS hellos: one request a connection, one full packet, and one after the other, so that none shares a batch. Ends with the
 * first that is not answered; prints how many were.
 */
const REQUEST = `
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
answered = 0
try:
    while answered < ${REQUESTS}:
        s = socket.create_connection((sys.argv[1], 7100), ${PATIENCE_SECONDS})
        s.sendall(b'.' * ${REQUEST_BYTES})
        left = ${REQUEST_BYTES}
        while left > 0 and (data := s.recv(left)): left -= len(data)
        if left > 0: break
        answered += 1
except socket.timeout: pass
print(answered)
`;

async function fullPackets(from: LabHost, to: LabHost, address: string): Promise<number> {
  const server = to.spawn('python3', ['-c', SERVER, address]);
  await server.waitFor(/^ready$/m);
  const { stdout } = await from.run('python3', ['-c', REQUEST, address], { timeoutMs: 90_000 });
  return Number(stdout);
}

async function routedHosts(t: Pick<TestContext, 'after'>, filter: string): Promise<Hosts> {
  const lab = await Lab.create();
  t.after(() => lab.close());
  const [here, router, there] = await Promise.all([lab.host('here'), lab.host('router'), lab.host('there')]);
  const connect = async (host: typeof here, side: 'here' | 'there', device: string, far: 'here' | 'there') => {
    const own = [`${OUTSIDE.IPv4[side]}/32`, `${OUTSIDE.IPv6[side]}/128`];
    await lab.link(host, 'eth0', own, router, device, ['192.0.2.254/32', '2001:db8:1::fe/128']);
    await host.ip(
      'route add 192.0.2.254 dev eth0',
      'route add 2001:db8:1::fe dev eth0',
      `route add ${OUTSIDE.IPv4[far]} via 192.0.2.254`,
      `route add ${OUTSIDE.IPv6[far]} via 2001:db8:1::fe`,
    );
    // The route's and not the link's: a veth takes nothing from its other end that is larger than its own MTU.
    const mtu = side === 'there' ? ` mtu lock ${NARROW_MTU}` : '';
    await router.ip(...FAMILIES.map((family) => `route add ${OUTSIDE[family][side]} dev ${device}${mtu}`));
  };
  await connect(here, 'here', 'west', 'there');
  await connect(there, 'there', 'east', 'here');
  await router.run('sh', [
    '-c',
    'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding',
  ]);
  const rules = `table inet silent {
    chain out { type filter hook output priority 0; ${filter} }
  }`;
  await router.run('nft', ['-f', '-'], { input: rules });
  return { lab, here, there };
}

const SILENT = 'icmp type destination-unreachable drop; icmpv6 type packet-too-big drop;';

test(
  'IPv4: a packet that is sent alone passes a narrow router that filters ICMP, as batches do',
  TIMEOUT,
  async (t) => {
    if (!requireRoot(t)) return;
    const { here, there } = await startPlainPair(t, { hosts: await routedHosts(t, SILENT) });
    for (const family of FAMILIES) {
      const answered = await fullPackets(here.host, there.host, INSIDE[family].there);
      assert.equal(answered, REQUESTS, `${family}: answered requests of one full packet`);
      await receiveTransfers(there.host, INSIDE[family].there);
      await transfer(here.host, INSIDE[family].there, 4 << 20);
    }
  },
);

test('IPv6: what a narrow router says is heard, and packets and batches pass in fragments', TIMEOUT, async (t) => {
  if (!requireRoot(t)) return;
  const { here, there } = await startPlainPair(t, { outside: 'IPv6', hosts: await routedHosts(t, '') });
  for (const family of FAMILIES) {
    const answered = await fullPackets(here.host, there.host, INSIDE[family].there);
    assert.equal(answered, REQUESTS, `${family}: answered requests of one full packet`);
    await receiveTransfers(there.host, INSIDE[family].there);
    await transfer(here.host, INSIDE[family].there, 4 << 20);
  }
});
