/**
 * Which destinations a VPN takes. The exit and the server have the same addresses and say their names; prefixes in the tests
 * choose between:
 *
 *   app                              router              server                        exit1
 *   uid 2001 ── vpn-tun0 ═══════════════════════════════ UDP 51821 ═════════════════ 203.0.113.10, 198.51.100.2, 10.77.0.53, …
 *                eth0 ────────────── 192.0.2.1 ───────── 203.0.113.10, 198.51.100.2
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect, PLACES } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { route, vpnConfig } from './lib/vpn-app.js';
import { exitOf, vpnLab } from './lib/vpn-lab.js';

const { internet, server } = ADDRESSES;
const BEHIND = ['10.77.0.53', 'fd77::53'];

test('routes of a VPN', { timeout: 180_000 }, async (t) => {
  const lab = await vpnLab(t, { more: BEHIND });
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);

  /** Who answers at each address, by TCP and by UDP: the same, or the difference is told. */
  async function answers(addresses: readonly string[]): Promise<string[]> {
    const ask = (transport: 'tcp' | 'udp') =>
      user.call('ask', ...addresses.map((address) => ({ transport, address, timeoutMs: 20_000 })));
    const [tcp, udp] = await Promise.all([ask('tcp'), ask('udp')]);
    const client = { exit1: exit.client, server: ADDRESSES.app };
    return addresses.map((address, index) => {
      assert.equal(tcp[index], udp[index], address);
      const [name = '', source] = tcp[index]?.split(' ') ?? [];
      const expected = client[name as keyof typeof client];
      if (expected) assert.equal(source, address.includes(':') ? expected.ipv6 : expected.ipv4, address);
      return name;
    });
  }

  const cases: [string, Parameters<typeof vpnConfig>[1], [address: string, by: string][]][] = [
    [
      'excluded prefixes leave physically, the rest goes in',
      {
        routes: [
          route(`${internet.ipv4}/32`, { isExcludedRoute: true }),
          route('2001:db8:f::/48', { isExcludedRoute: true }),
        ],
      },
      [
        [internet.ipv4, 'server'],
        [internet.ipv6, 'server'],
        [server.ipv4, 'exit1'],
        [server.ipv6, 'exit1'],
      ],
    ],
    [
      'an address inside an excluded prefix can be included again',
      {
        routes: [
          route('0.0.0.0/0'),
          route('::/0'),
          route('198.51.0.0/16', { isExcludedRoute: true }),
          route(`${server.ipv4}/32`),
          route('2001:db8::/32', { isExcludedRoute: true }),
          route(`${internet.ipv6}/128`),
        ],
      },
      [
        [server.ipv4, 'exit1'],
        [internet.ipv4, 'exit1'],
        [internet.ipv6, 'exit1'],
        [server.ipv6, 'server'],
      ],
    ],
    [
      'without a default route only the named prefixes go in',
      { routes: [route('203.0.113.0/24'), route('2001:db8:f::/48')] },
      [
        [internet.ipv4, 'exit1'],
        [internet.ipv6, 'exit1'],
        [server.ipv4, 'server'],
        [server.ipv6, 'server'],
        [exit.ipv4, 'exit1'],
        [exit.ipv6, 'exit1'],
      ],
    ],
    [
      'routes with a gateway go in, whichever gateway it is',
      {
        routes: [
          route('203.0.113.0/24', { gateway: exit.ipv4 }),
          route('2001:db8:f::/48', { gateway: exit.ipv6 }),
          route(`${server.ipv4}/32`, { gateway: exit.client.ipv4 }),
        ],
      },
      [
        [internet.ipv4, 'exit1'],
        [internet.ipv6, 'exit1'],
        [server.ipv4, 'exit1'],
        [server.ipv6, 'server'],
      ],
    ],
    [
      'a default route by a gateway takes everything',
      { routes: [route('0.0.0.0/0', { gateway: exit.ipv4 }), route('::/0', { gateway: exit.ipv6 })] },
      PLACES.map((address) => [address, 'exit1']),
    ],
    [
      'a DNS server is where the routes say: inside when one names it, else outside',
      {
        routes: [
          route('203.0.113.0/24'),
          route('2001:db8:f::/48'),
          ...['10.77.0.53/32', 'fd77::53/128'].map((prefix) => route(prefix)),
        ],
        dnsAddresses: [...BEHIND, server.ipv4, server.ipv6],
      },
      [
        ...BEHIND.map((address): [string, string] => [address, 'exit1']),
        [server.ipv4, 'server'],
        [server.ipv6, 'server'],
      ],
    ],
    [
      'half of the address space each: no default, and yet everything',
      { routes: [route('0.0.0.0/1'), route('128.0.0.0/1'), route('::/1'), route('8000::/1')] },
      PLACES.map((address) => [address, 'exit1']),
    ],
  ];

  for (const [name, more, expected] of cases) {
    await t.test(name, async () => {
      await connect(owner, exit, vpnConfig(exit.vnic, more));
      try {
        assert.deepEqual(
          await answers(expected.map(([address]) => address)),
          expected.map(([, by]) => by),
        );
      } finally {
        await owner.call('destroy');
      }
    });
  }

  await t.test('a more specific route of the host, as a DHCP server can push it, does not win', async () => {
    await lab.app.ip(`route add ${internet.ipv4}/32 via 192.0.2.1`, `route add ${internet.ipv6}/128 via 2001:db8:1::1`);
    await lab.app.ip('route add 128.0.0.0/1 via 192.0.2.1');
    await connect(owner, exit, vpnConfig(exit.vnic));
    assert.deepEqual(await answers(PLACES), ['exit1', 'exit1', 'exit1', 'exit1']);
    await owner.call('destroy');
  });
});
