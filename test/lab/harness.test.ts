/**
 * The lab itself, on the standard topology (standard-lab.ts): what every other lab test relies on.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { canonicalState, diffState } from './lib/canonical-state.js';
import { startPeer, startTunnelPeer } from './lib/peers.js';
import { requireRoot } from './lib/prerequisites.js';
import { ADDRESSES, standardLab } from './lib/standard-lab.js';

test('a lab has hosts, servers, captures and states, and leaves nothing', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { lab, app, router, server } = await standardLab();
  t.after(() => lab.close());

  await t.test('hosts reach each other by both families, under another uid', async () => {
    await startPeer(
      server,
      { kind: 'whoami', name: 'server', port: 7 },
      { kind: 'http', port: 80 },
      { kind: 'dns', name: 'far', a: '203.0.113.53', aaaa: '2001:db8::53' },
    );
    for (const target of [ADDRESSES.server.ipv4, ADDRESSES.internet.ipv6]) {
      await app.run('ping', ['-c1', '-W15', target], { uid: 2001 });
    }
    const { stdout } = await app.run('id', ['-G'], { uid: 2001, gid: 2002, groups: [2003, 2004] });
    assert.equal(stdout.trim(), '2002 2003 2004');
    const script = `
      const net = require('node:net'), dgram = require('node:dgram'), dns = require('node:dns').promises;
      net.connect(7, '${ADDRESSES.internet.ipv4}').once('data', function (line) { console.log('tcp', String(line).split(' ', 2).join(' ')); this.destroy(); });
      const udp = dgram.createSocket('udp6');
      udp.on('message', (m) => { console.log('udp', String(m)); udp.close(); });
      udp.send('hello', 7, '${ADDRESSES.server.ipv6}');
      const resolver = new dns.Resolver();
      resolver.setServers(['${ADDRESSES.server.ipv4}']);
      resolver.resolve4('example.org').then((a) => console.log('dns', a[0]));
      resolver.resolve6('example.org').then((a) => console.log('dns', a[0]));
      resolver.resolveTxt('example.org').then((a) => console.log('dns', a[0][0]));
      fetch('http://${ADDRESSES.server.ipv4}/100000').then((r) => r.arrayBuffer()).then((b) => console.log('http', b.byteLength));
      console.log('uid', process.getuid());`;
    const output = (await app.node('-e', [script], { uid: 2001 })).stdout.trim().split('\n');
    assert.deepEqual(output.map((line) => line.replace(/ \d+ hello$/, ' hello')).sort(), [
      'dns 2001:db8::53',
      'dns 203.0.113.53',
      'dns far',
      'http 100000',
      `tcp server ${ADDRESSES.app.ipv4}`,
      `udp server ${ADDRESSES.app.ipv6} hello`,
      'uid 2001',
    ]);
  });

  await t.test('a tunnel peer turns datagrams into packets of a TUN in another host, and back', async () => {
    const exit = await lab.host('exit');
    const addresses = ['10.9.0.1/24', 'fd09::1/64'];
    await startTunnelPeer(server, { port: 51820, device: 'tun0', addresses, exit });
    const script = `
      const echo = Buffer.from('4500001c0001000040010000' + '0a090002' + '0a090001' + '0800f7fe00000001', 'hex');
      const sum = (bytes) => { let s = 0; for (let i = 0; i < bytes.length; i += 2) s += bytes.readUInt16BE(i); while (s > 0xffff) s = (s & 0xffff) + (s >> 16); return s ^ 0xffff; };
      echo.writeUInt16BE(sum(echo.subarray(0, 20)), 10);
      const udp = require('node:dgram').createSocket('udp4');
      udp.on('message', (m) => { console.log(m[20], m.subarray(12, 20).join('.')); udp.close(); });
      udp.send(echo, 51820, '${ADDRESSES.server.ipv4}');`;
    const { stdout } = await app.node('-e', [script]);
    assert.equal(stdout.trim(), '0 10.9.0.1.10.9.0.2');
    assert.deepEqual((await server.json('ip', ['-j', 'link', 'show', 'type', 'tun'])).length, 0);
  });

  await t.test('a capture misses nothing and parses what it saw', async () => {
    const capture = await app.capture('eth0');
    await app.run('ping', ['-c200', '-i0.002', '-W15', ADDRESSES.server.ipv4], { uid: 2001 });
    await app.run('ping', ['-c3', '-i0.01', '-W15', ADDRESSES.server.ipv6], { uid: 2001 });
    const seen = await capture.stop();
    const out = (protocol: string, source: string) =>
      seen.filter((packet) => packet.protocol === protocol && packet.source === source);
    assert.equal(out('icmp', ADDRESSES.app.ipv4).length, 200);
    assert.equal(out('icmp', ADDRESSES.server.ipv4).length, 200);
    const echoes = out('icmpv6', ADDRESSES.app.ipv6).filter((packet) => packet.destination === ADDRESSES.server.ipv6);
    assert.equal(echoes.length, 3);
    assert.equal(echoes[0]?.length, 104);
  });

  await t.test('the canonical state stays equal, tells each change, and comes back', async () => {
    const before = await canonicalState(app);
    await app.run('ping', ['-c1', ADDRESSES.server.ipv6]);
    assert.deepEqual(diffState(before, await canonicalState(app)), []);
    await app.ip('rule add pref 77 uidrange 5-5 lookup 99', 'route add 10.0.0.0/8 dev eth0 table 99');
    await app.run('nft', ['add table inet t { chain c { counter accept; }; }']);
    await app.sysctl('net.ipv4.conf.eth0.arp_ignore=1');
    await app.run('sh', ['-c', 'echo "nameserver 192.0.2.54" > /etc/resolv.conf']);
    const diff = diffState(before, await canonicalState(app));
    for (const part of ['rule4', 'route4', 'nft', 'arp_ignore', 'resolv.conf']) {
      assert.ok(
        diff.some((line) => line.includes(part)),
        `${part} in\n${diff.join('\n')}`,
      );
    }
    await app.ip('rule del pref 77', 'route flush table 99');
    await app.run('nft', ['delete table inet t']);
    await app.sysctl('net.ipv4.conf.eth0.arp_ignore=0');
    await app.run('sh', ['-c', 'echo "nameserver 192.0.2.53" > /etc/resolv.conf']);
    assert.deepEqual(diffState(before, await canonicalState(app)), []);
  });

  await t.test('a command that fails or lasts is an error', async () => {
    await assert.rejects(app.run('false'), /exit 1/);
    await assert.rejects(app.run('sleep', ['9'], { timeoutMs: 100 }), /not done within 100 ms/);
    assert.equal((await router.run('sh', ['-c', 'exit 3'], { check: false })).status, 3);
  });

  await t.test('close() ends every process, also those that hide, and removes the folder', async () => {
    await app.run('sh', ['-c', 'setsid sleep 77 >/dev/null 2>&1 & echo $!']);
    const orphan = Number((await app.run('sh', ['-c', 'setsid sleep 77 >/dev/null 2>&1 & echo $!'])).stdout);
    await lab.close();
    assert.equal(existsSync(lab.directory), false);
    for (const pid of [app.pid, router.pid, server.pid, orphan]) {
      const gone = await ended(pid);
      assert.ok(gone, `pid ${pid} is alive`);
    }
  });
});

async function ended(pid: number): Promise<boolean> {
  for (let tries = 0; tries < 1000; tries++) {
    try {
      process.kill(pid, 0);
    } catch {
      return true;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return false;
}
