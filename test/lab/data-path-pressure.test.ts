/**
 * A link that is slower than what is sent: the UDP socket is full, the TUN is not read meanwhile, its queue fills and TCP waits,
 * as on any slow link. Nothing that was read is lost. Hosts and tunnel as in lib/plain-tunnel.ts; `here` sends through a
 * tbf(8) that holds whatever it is given, so that only the socket's buffer limits what is under way.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ALL_ARRIVED, sendDatagrams } from './lib/datagrams.js';
import type { LabHost } from './lib/host.js';
import { FAMILIES, type PlainPair, startPlainPair } from './lib/plain-tunnel.js';
import { requireRoot } from './lib/prerequisites.js';
import { receiveTransfers, transfer } from './lib/transfer.js';
import { INSIDE } from './lib/two-hosts.js';
import { eventually } from './lib/vpn-lab.js';

const MEGABYTE = 1 << 20;

/** `ip -s -j link`. */
interface LinkCounters {
  stats64: { tx: { dropped: number } };
}

/** $1: address. Bounded in time. */
const FLOOD = `
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 9))
print('flooding', flush=True)
end = time.time() + 15
while time.time() < end:
    try: s.send(bytes(1000))
    except OSError: pass
    time.sleep(0.001)
`;

/** Of all threads, proc_pid_stat(5): utime and stime in clock ticks of 10 ms. */
function processorMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function slowDown(host: LabHost, rate: string): Promise<void> {
  await host.run('tc', ['qdisc', 'replace', 'dev', 'eth0', 'root', 'tbf', 'rate', rate, 'burst', '20k', 'limit', '8m']);
}

/** Everything `here` has read from its TUN came out of the TUN `there`. */
async function assertNothingLost({ here, there }: PlainPair): Promise<void> {
  let [sent, arrived] = [(await here.status()).counters, (await there.status()).counters];
  // The last word of a connection may still be under way.
  const hasArrived = async () => {
    [sent, arrived] = [(await here.status()).counters, (await there.status()).counters];
    return (arrived.packetsIn === sent.packetsOut && arrived.bytesIn === sent.bytesOut) || undefined;
  };
  await eventually('what was sent', hasArrived).catch(() => undefined);
  assert.deepEqual([sent.unsent, sent.unroutable, sent.undelivered], [0, 0, 0]);
  assert.deepEqual([arrived.packetsIn, arrived.bytesIn], [sent.packetsOut, sent.bytesOut]);
  const [queue] = await here.host.json<{ drops: number }[]>('tc', ['-s', '-j', 'qdisc', 'show', 'dev', 'eth0']);
  assert.equal(queue?.drops, 0, 'the link itself drops nothing here');
}

for (const offload of [true, false]) {
  for (const sendBufferBytes of [2304, 30_000, 100_000]) {
    const how = offload ? 'with offload' : 'without offload';
    test(`a socket of ${sendBufferBytes} bytes ${how}: it is waited for, and nothing is dropped`, {
      timeout: 120_000,
    }, async (t) => {
      if (!requireRoot(t)) return;
      const pair = await startPlainPair(t, { here: { offload, sendBufferBytes } });
      const { here, there } = pair;
      await slowDown(here.host, '100mbit');
      for (const family of FAMILIES) {
        await receiveTransfers(there.host, INSIDE[family].there);
        await receiveTransfers(here.host, INSIDE[family].here);
        await transfer(here.host, INSIDE[family].there, 8 * MEGABYTE);
      }
      const { counters } = await here.status();
      // With more room TCP itself may find the pace before it is full.
      if (sendBufferBytes === 2304) assert.ok(counters.waits > 20, `it waited ${counters.waits} times`);
      t.diagnostic(`it waited ${counters.waits} times`);
      await assertNothingLost(pair);
      // By the kernel's count, not by what TCP sent twice: a busy machine may be slower than TCP is patient.
      const [tun] = await here.host.json<LinkCounters[]>('ip', ['-s', '-j', 'link', 'show', 'tun0']);
      assert.equal(tun?.stats64.tx.dropped, 0, 'what waits for the tunnel is kept');

      // What comes in goes on meanwhile.
      await Promise.all(
        FAMILIES.flatMap((family) => [
          transfer(here.host, INSIDE[family].there, 6 * MEGABYTE),
          transfer(there.host, INSIDE[family].here, 6 * MEGABYTE),
        ]),
      );
      await assertNothingLost(pair);
    });
  }
}

test('a socket that stays full for long: what waits is sent in order, then everything goes on', {
  timeout: 120_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const pair = await startPlainPair(t, { here: { sendBufferBytes: 2304 } });
  const { here, there } = pair;
  await slowDown(here.host, '2mbit');
  const sizes = Array.from({ length: 200 }, (_, index) => 1000 + (index % 7));
  assert.deepEqual(await sendDatagrams(here.host, there.host, INSIDE.IPv4.there, sizes), ALL_ARRIVED);
  const { counters } = await here.status();
  assert.ok(counters.waits > 0, `it waited ${counters.waits} times`);
  await assertNothingLost(pair);
  await here.host.run('tc', ['qdisc', 'del', 'dev', 'eth0', 'root']);
  assert.deepEqual(await sendDatagrams(here.host, there.host, INSIDE.IPv6.there, sizes), ALL_ARRIVED);
});

test('while the socket is full the tunnel sleeps, answers its owner, and can be closed', {
  timeout: 120_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const { here, there } = await startPlainPair(t, { here: { sendBufferBytes: 2304 } });
  await slowDown(here.host, '64kbit');
  const flood = here.host.spawn('python3', ['-c', FLOOD, INSIDE.IPv4.there]);
  await flood.waitFor(/^flooding$/m);
  await eventually('the socket is full', async () => ((await here.status()).counters.waits > 0 ? true : undefined));
  const before = processorMs(here.process.pid);
  const begin = performance.now();
  const { counters } = await here.status();
  await new Promise((resolve) => setTimeout(resolve, 2000));
  const spent = processorMs(here.process.pid) - before;
  // Who does not sleep takes all of it, or its share of a busy machine.
  assert.ok(spent < 400, `${spent} ms of processor in 2 s`);
  const { counters: later } = await here.status();
  const seconds = (performance.now() - begin) / 1000;
  // The link takes 7 in a second, the flood has a thousand.
  assert.ok(later.packetsOut - counters.packetsOut < 25 * seconds, 'the TUN is not read meanwhile');
  await here.ask({ command: 'close' });
  assert.equal(await here.ended(), 'without an error');
  await there.status();
});

test('another socket takes over while the one before is full: what waited goes out by it', {
  timeout: 120_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const pair = await startPlainPair(t, { here: { sendBufferBytes: 2304 } });
  const { here, there } = pair;
  await slowDown(here.host, '20mbit');
  await receiveTransfers(there.host, INSIDE.IPv4.there);
  const all = transfer(here.host, INSIDE.IPv4.there, 6 * MEGABYTE);
  for (let port = 53_001; port < 53_011; port++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(await here.ask({ command: 'move', port, sendBufferBytes: 2304 }), port);
  }
  await all;
  await assertNothingLost(pair);
});
