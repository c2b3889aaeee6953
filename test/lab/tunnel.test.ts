/**
 * packets() on a real TUN, in one host without any link:
 *
 *   ping 10.77.0.2 ──► tun77 10.77.0.1/24 ──► packets(fd): an echo request answered by hand
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';

/** Answers every ICMP echo request and says how the iteration ended. */
const PROGRAM = (blocking: boolean) => `
  import { openTun, setBlocking } from '/run/repo/dist/src/kernel/tun.js';
  import { packets } from '/run/repo/dist/src/tunnel/index.js';
  const { fd } = openTun('tun77');
  setBlocking(fd, ${blocking});
  const stream = packets(fd);
  let answered = 0;
  console.log('open');
  console.log('write while down', stream.write(Buffer.alloc(20, 0x45)));
  process.on('SIGTERM', () => void stream.close());
  for await (const packet of stream) {
    if (packet[9] !== 1 || packet[20] !== 8) continue;
    const reply = Buffer.from(packet);
    packet.subarray(12, 16).forEach((byte, i) => { reply[16 + i] = byte; });
    packet.subarray(16, 20).forEach((byte, i) => { reply[12 + i] = byte; });
    reply[20] = 0;
    const sum = reply.readUInt16BE(22) + 0x0800;
    reply.writeUInt16BE((sum & 0xffff) + (sum >> 16), 22);
    stream.write(reply);
    if (++answered === 50) console.log('all answered');
  }
  console.log('ended', stream.write(Buffer.alloc(20)), JSON.stringify(stream.counters));
`;

for (const blocking of [true, false]) {
  test(`packets() on a TUN, ${blocking ? 'blocking' : 'non-blocking'}`, { timeout: 180_000 }, async (t) => {
    if (!requireRoot(t)) return;
    const lab = await Lab.create();
    t.after(() => lab.close());
    const host = await lab.host('one');

    for (const ending of ['the link is deleted', 'close()'] as const) {
      const app = host.spawnNode('--input-type=module', ['-e', PROGRAM(blocking)]);
      await app.waitFor(/^write while down false$/m);
      await host.ip('link set tun77 addrgenmode none');
      await host.configure('tun77', ['10.77.0.1/24']);
      await host.run('ping', ['-c50', '-i0.002', '-W15', '10.77.0.2']);
      // With one answer ping waits for the others only twice as long as for the slowest so far.
      await app.waitFor(/^all answered$/m);
      if (ending === 'close()') process.kill(app.pid, 'SIGTERM');
      else await host.ip('link delete tun77');
      const { status, stdout, stderr } = await app.exited;
      assert.equal(status, 0, stderr);
      assert.match(stdout, /^ended false \{"read":50,"written":50,"rejected":2\}$/m, ending);
      assert.deepEqual(await host.json('ip', ['-j', 'link', 'show', 'type', 'tun']), [], ending);
    }
  });
}
