/**
 * The effect of every field of VpnConfig but the application lists, read from the kernel (`ip -j`, /proc) and from the packets
 * that come out of the TUN or cross the physical link.
 *
 *   app (vpnd, the apps) 192.0.2.2 ── router ── server 198.51.100.2, 203.0.113.10
 *                        2001:db8:1::2             2001:db8:2::2
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ADDRESSES } from '../lab/lib/standard-lab.js';
import { O_NONBLOCK } from './lib/app.js';
import { type Scene, scene, USERS } from './lib/scene.js';

const UID = USERS.system;
const A = { address: { address: '10.0.0.5', family: 1 }, prefixLength: 24 };
const A6 = { address: { address: '2001:db8:5::5', family: 2 }, prefixLength: 64 };
const { internet, server } = ADDRESSES;
const REFUSED = /^(Network is unreachable|No route to host)$/;

test('the fields of VpnConfig', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const app = await stage.app(UID);

  async function withVpn(config: object, work: (fd: number) => Promise<void>): Promise<void> {
    await stage?.unchanged(async () => {
      const fd = await app.setUp(config);
      try {
        await work(fd);
      } finally {
        await app.destroy();
        await app.do(({ fs }, open) => fs.closeSync(open), fd);
      }
    });
  }

  await t.test('VpnConfig: addresses', async () => {
    const second = { address: { address: '10.1.0.5' }, prefixLength: 32 };
    await withVpn({ addresses: [A, second, A6] }, async () => {
      assert.deepEqual(await addresses(stage), ['10.0.0.5/24', '10.1.0.5/32', '2001:db8:5::5/64']);
      assert.equal(await app.do((agent, to) => agent.source(to), internet.ipv4), '10.0.0.5');
      assert.equal(await app.do((agent, to) => agent.source(to), internet.ipv6), '2001:db8:5::5');
    });
  });

  await t.test('VpnConfig: routes', async () => {
    const route = (address: string, prefixLength: number, more = {}) => ({
      destination: { address: { address }, prefixLength },
      gateway: {},
      ...more,
    });
    // Host bits are cleared; nothing else is routed.
    await withVpn({ addresses: [A], routes: [route('203.0.113.77', 24)] }, async () => {
      assert.equal(await stage.way(UID, internet.ipv4), 'vpn-tun0');
      assert.equal(await stage.way(UID, server.ipv4), 'eth0');
    });
    const gateway = { address: '10.0.0.1' };
    await withVpn(
      { addresses: [A], routes: [route('203.0.113.0', 24, { gateway }), route('20.0.0.0', 8)] },
      async () => {
        assert.match(await route4(stage, internet.ipv4), / via 10\.0\.0\.1 dev vpn-tun0/);
        assert.doesNotMatch(await route4(stage, '20.0.0.1'), / via /);
      },
    );
    await withVpn({ addresses: [A], routes: [route('203.0.113.0', 24, { gateway, hasGateway: false })] }, async () => {
      assert.doesNotMatch(await route4(stage, internet.ipv4), / via /);
    });
    const excluded = route('203.0.113.0', 24, { isExcludedRoute: true });
    await withVpn({ addresses: [A], routes: [route('0.0.0.0', 0, { isDefaultRoute: true }), excluded] }, async () => {
      assert.equal(await stage.way(UID, internet.ipv4), 'eth0');
      assert.equal(await stage.way(UID, server.ipv4), 'vpn-tun0');
    });
    // None: the default route of every accepted family, before the routes of the physical link.
    await withVpn({ addresses: [A, A6] }, async () => {
      for (const to of [internet.ipv4, internet.ipv6, '192.0.2.1', '2001:db8:1::1']) {
        assert.equal(await stage.way(UID, to), 'vpn-tun0', to);
        assert.equal(await stage.way(USERS.other, to), 'eth0', to);
      }
    });
  });

  await t.test('VpnConfig: dnsAddresses', async () => {
    // What the user asks of any server arrives at the VPN's, by both families.
    await withVpn({ addresses: [A, A6], dnsAddresses: ['10.0.0.1', '2001:db8:5::1'] }, async (fd) => {
      assert.match(await ask(fd, '192.0.2.53'), /^45.{22}0a0000050a000001.{4}0035/);
      assert.match(
        await ask(fd, '2001:db8:1::53'),
        new RegExp(`^6.{15}20010db80005${'0'.repeat(19)}520010db80005${'0'.repeat(19)}1.{4}0035`),
      );
    });
    // Without the field it is routed like any other traffic: to whom it was sent.
    await withVpn({ addresses: [A] }, async (fd) => {
      assert.match(await ask(fd, '192.0.2.53'), /^45.{22}0a000005c0000235.{4}0035/);
    });
  });

  async function ask(fd: number, to: string): Promise<string> {
    return app.do(
      async (agent, tun, where) => {
        const { createSocket } = await import('node:dgram');
        const udp = createSocket(where.includes(':') ? 'udp6' : 'udp4');
        udp.send(Buffer.from('000101000001000000000000016100000100010', 'hex'), 53, where);
        const packet = await agent.packet(tun);
        udp.close();
        return packet;
      },
      fd,
      to,
    );
  }

  await t.test('VpnConfig: searchDomains', async () => {
    await withVpn({ addresses: [A], searchDomains: ['Example.ORG.', 'corp.example'] }, async () => {
      const [vpn] = await stage.status();
      assert.deepEqual(vpn?.searchDomains, ['example.org', 'corp.example']);
    });
  });

  await t.test('VpnConfig: mtu', async () => {
    for (const mtu of [576, 1280, 1400, 9000, 65535]) {
      await withVpn({ addresses: [A], mtu }, async () => assert.equal((await stage.link('vpn-tun0'))?.mtu, mtu));
    }
    await withVpn({ addresses: [A] }, async () => assert.equal((await stage.link('vpn-tun0'))?.mtu, 1500));
  });

  await t.test('VpnConfig: isIPv4Accepted', async () => {
    // Absent: true, even without an IPv4 address.
    await withVpn({ addresses: [A6] }, async () => assert.equal(await stage.way(UID, internet.ipv4), 'vpn-tun0'));
    await withVpn({ addresses: [A6], isIPv4Accepted: false }, async () => {
      assert.match(await stage.way(UID, internet.ipv4), REFUSED);
      assert.equal(await stage.way(UID, internet.ipv6), 'vpn-tun0');
      await assertRefusedWithoutPacket(server.ipv4);
    });
  });

  await t.test('VpnConfig: isIPv6Accepted', async () => {
    // Absent: false without an IPv6 address, true with one (decided).
    await withVpn({ addresses: [A] }, async () => {
      assert.match(await stage.way(UID, internet.ipv6), REFUSED);
      await assertRefusedWithoutPacket(server.ipv6);
    });
    await withVpn({ addresses: [A, A6] }, async () => assert.equal(await stage.way(UID, internet.ipv6), 'vpn-tun0'));
    await withVpn({ addresses: [A], isIPv6Accepted: false }, async () => {
      assert.match(await stage.way(UID, internet.ipv6), REFUSED);
      const { stdout } = await stage.host.run('sysctl', ['-n', 'net.ipv6.conf.vpn-tun0.disable_ipv6']);
      assert.equal(stdout.trim(), '1');
    });
    await withVpn({ addresses: [A], isIPv6Accepted: true }, async () => {
      assert.equal(await stage.way(UID, internet.ipv6), 'vpn-tun0');
    });
  });

  async function assertRefusedWithoutPacket(to: string): Promise<void> {
    const capture = await stage?.host.capture('eth0', ['tcp']);
    assert.match(
      await app.do((agent, where) => agent.connect(where, 7), to),
      /^(ENETUNREACH|EHOSTUNREACH|EADDRNOTAVAIL)$/,
    );
    assert.deepEqual(await capture?.stop(), []);
  }

  await t.test('VpnConfig: isLegacy', async () => {
    for (const isLegacy of [true, false, undefined]) {
      await withVpn({ addresses: [A], isLegacy }, async () => {
        const [vpn] = await stage.status();
        assert.equal(vpn?.isLegacy, isLegacy ?? false);
      });
    }
  });

  await t.test('VpnConfig: isBlocking', async () => {
    for (const isBlocking of [true, false, undefined]) {
      await withVpn({ addresses: [A], isBlocking }, async (fd) => {
        const { flags, link, file } = app.descriptor(fd);
        assert.deepEqual([link, file], ['vpn-tun0', '/dev/net/tun']);
        assert.equal((flags & O_NONBLOCK) === 0, isBlocking ?? false);
      });
    }
  });

  await t.test('isMetered and vpnId are accepted and shown', async () => {
    await withVpn({ addresses: [A], isMetered: true, vpnId: 'office' }, async () => {
      const [vpn] = await stage.status();
      assert.deepEqual([vpn?.isMetered, vpn?.vpnId], [true, 'office']);
    });
  });

  await t.test(
    'withOffload() gives a TUN with IFF_VNET_HDR, shown in the status; every other config gives one without',
    async () => {
      const plain = { addresses: [A] };
      for (const offload of [true, false]) {
        await app.do(
          async (agent, config, wanted) => {
            agent.kept.fd = await agent.connection.setUp(wanted ? agent.withOffload(config) : config);
          },
          plain,
          offload,
        );
        const device: Record<string, unknown> | undefined = (await stage.link('vpn-tun0'))?.linkinfo?.info_data;
        assert.deepEqual([device?.type, device?.pi, device?.vnet_hdr], ['tun', false, offload]);
        const [vpn] = await stage.status();
        assert.equal(vpn?.offload, offload);
        await app.destroy();
        await app.do((agent) => agent.fs.closeSync(Number(agent.kept.fd)));
      }
      // A field of that name, or a mark that says something else, is an unknown field.
      await withVpn({ ...plain, offload: true }, async () => {
        assert.equal((await stage.link('vpn-tun0'))?.linkinfo?.info_data.vnet_hdr, false);
      });
    },
  );
});

async function addresses(stage: Scene): Promise<string[] | undefined> {
  const link = await stage.link('vpn-tun0');
  return link?.addr_info.map(({ local, prefixlen }) => `${local}/${prefixlen}`);
}

async function route4(stage: Scene, to: string): Promise<string> {
  return (await stage.host.run('ip', ['route', 'get', to, 'uid', String(UID)])).stdout;
}
