/**
 * The ends of a tunnel, most of them while megabytes go through it: what it held is given back, nobody waits for it, and the other
 * side is none the wiser. Hosts and tunnel as in lib/plain-tunnel.ts.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import type { LabHost } from './lib/host.js';
import { Lab } from './lib/lab.js';
import { startOurTunnel } from './lib/our-tunnel.js';
import type { Resources } from './lib/plain-end.js';
import { type PlainEnd, type PlainPair, type Side, startPlainPair } from './lib/plain-tunnel.js';
import { requireRoot } from './lib/prerequisites.js';
import type { LabProcess } from './lib/process.js';
import { receiveTransfers, transfer } from './lib/transfer.js';
import { INSIDE, OUTSIDE } from './lib/two-hosts.js';
import { eventually } from './lib/vpn-lab.js';
import { wireGuardKeys } from './lib/wireguard-go.js';

const MEGABYTE = 1 << 20;

/** $1: address. Sends and receives for as long as it is let, and goes on after errors. */
const LOAD = `
import socket, sys, threading, time
end = time.time() + 60
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
def flood():
    s = socket.socket(family, socket.SOCK_DGRAM)
    while time.time() < end:
        try: s.sendto(bytes(1300), (sys.argv[1], 9))
        except OSError: pass
        time.sleep(0.0005)
def stream():
    while time.time() < end:
        try:
            s = socket.create_connection((sys.argv[1], 7000), 2)
            s.settimeout(2)
            while time.time() < end: s.sendall(bytes(1 << 18)); time.sleep(0.003)
        except OSError: time.sleep(0.05)
for each in (flood, stream): threading.Thread(target=each, daemon=True).start()
time.sleep(60)
`;

/** Both ways, TCP and UDP. */
async function load({ here, there }: PlainPair): Promise<LabProcess[]> {
  const loads: LabProcess[] = [];
  for (const [from, to, side] of [
    [here, there, 'there'],
    [there, here, 'here'],
  ] as const) {
    await receiveTransfers(to.host, INSIDE.IPv4[side]);
    loads.push(from.host.spawn('python3', ['-c', LOAD, INSIDE.IPv4[side]]));
  }
  await eventually('megabytes go both ways', async () => {
    const { counters } = await here.status();
    return counters.bytesIn > 4 * MEGABYTE && counters.bytesOut > 4 * MEGABYTE ? true : undefined;
  });
  return loads;
}

/** When they change no more: descriptors are closed, and threads end, a moment after the promise. */
async function settled(end: PlainEnd): Promise<Resources> {
  return eventually('nothing changes any more', async () => {
    const [one, other] = [await end.resources(), await later(60).then(() => end.resources())];
    return one.fds === other.fds && one.threads === other.threads ? other : undefined;
  });
}

const later = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Of a busy machine; what waits for the tunnel waits for ever. */
const AT_ONCE_MS = 15_000;

/** Within so many milliseconds, or undefined. */
function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  return Promise.race([promise, later(ms).then(() => undefined)]);
}

async function startAgain(end: PlainEnd, far: Side): Promise<void> {
  await end.ask({ command: 'start', mtu: 1420, options: { peer: { address: OUTSIDE.IPv4[far], port: 52_000 } } });
}

/** The thread; the TUN's and the socket's duplicates, and the eventfd. */
async function isGone(end: PlainEnd, before: Resources): Promise<void> {
  let after = before;
  const areGone = async () => {
    after = await end.resources();
    return (after.threads === before.threads - 1 && after.fds <= before.fds - 3) || undefined;
  };
  // A thread that has nothing left to do ends when there is a processor for it.
  await eventually('the thread is gone', areGone).catch(() => undefined);
  assert.equal(after.threads, before.threads - 1);
  assert.ok(after.fds <= before.fds - 3, `${before.fds} descriptors, then ${after.fds}`);
}

test('a tunnel is closed and started again on the same descriptors, many times, while a transfer goes on', {
  timeout: 240_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const { here, there } = await startPlainPair(t);
  await receiveTransfers(there.host, INSIDE.IPv6.there);
  const all = transfer(here.host, INSIDE.IPv6.there, 200 * MEGABYTE, 180_000);
  for (let times = 0; times < 8; times++) {
    await later(100);
    await here.ask({ command: 'close' });
    await startAgain(here, 'there');
  }
  await all;
});

test('closed in the middle of traffic: the thread and its descriptors are gone, the TUN and the socket are not', {
  timeout: 120_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const pair = await startPlainPair(t);
  const { here, there } = pair;
  const running = await settled(here);
  await load(pair);
  await here.ask({ command: 'close' });
  assert.equal(await here.ended(), 'without an error');
  await isGone(here, running);
  assert.equal((await here.host.json('ip', ['-j', 'link', 'show', 'dev', 'tun0'])).length, 1);
  await assert.rejects(here.status(), /the tunnel has ended/);
  await there.status();
});

test('the link of the TUN is deleted in the middle of traffic: the tunnel ends without an error, at once', {
  timeout: 120_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  for (const offload of [true, false]) {
    const pair = await startPlainPair(t, { here: { offload } });
    const { here } = pair;
    const running = await settled(here);
    await load(pair);
    await here.host.ip('link delete tun0');
    assert.equal(await here.ended(), 'without an error');
    const isGone = async () => (await here.resources()).threads === running.threads - 1 || undefined;
    await eventually('the thread is gone', isGone);
    await here.ask({ command: 'close' });
    await pair.lab.close();
  }
});

test('the link goes down and up in the middle of traffic: the tunnel goes on', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const pair = await startPlainPair(t);
  const { here, there } = pair;
  const loads = await load(pair);
  const undelivered = async () => (await here.status()).counters.undelivered;
  for (let times = 0; times < 5; times++) {
    const before = await undelivered();
    await here.host.ip('link set tun0 down');
    await eventually('a link that is down takes nothing', async () => (await undelivered()) > before || undefined);
    await here.host.ip('link set tun0 up');
    await later(50);
  }
  await Promise.all(loads.map((each) => each.kill()));
  await transfer(there.host, INSIDE.IPv4.here, 4 * MEGABYTE);
});

for (const how of ['exit', 'throw'] as const) {
  test(`the process ends by ${how === 'exit' ? 'process.exit()' : 'an error that nobody catches'} with the tunnel in full work: at once`, {
    timeout: 120_000,
  }, async (t) => {
    if (!requireRoot(t)) return;
    for (let times = 0; times < 3; times++) {
      const pair = await startPlainPair(t);
      const { here } = pair;
      await load(pair);
      void here.ask({ command: 'exit', how }).catch(() => {});
      const result = await within(AT_ONCE_MS, here.process.exited);
      assert.equal(result?.status, how === 'exit' ? 7 : 1, result?.stderr ?? 'it goes on');
      await pair.lab.close();
    }
  });
}

test('an idle process ends by process.exit() at once, too', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { here } = await startPlainPair(t);
  await later(500);
  void here.ask({ command: 'exit', how: 'exit' }).catch(() => {});
  assert.equal((await within(AT_ONCE_MS, here.process.exited))?.status, 7);
});

test('fifty tunnels one after the other, with traffic, leave no descriptor and no thread', {
  timeout: 300_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const pair = await startPlainPair(t);
  const { here } = pair;
  await load(pair);
  await here.ask({ command: 'close' });
  await here.ended();
  const options = { peer: { address: OUTSIDE.IPv4.there, port: 52_000 } };
  const left = await here.ask<Resources[]>({ command: 'cycle', times: 50, mtu: 1420, options }, 200_000);
  assert.equal(left.length, 50);
  // Of the last one, or of any, a thread may have been seen that was about to end.
  const fds = Math.min(...left.map((each) => each.fds));
  const threads = Math.min(...left.map((each) => each.threads));
  let last: Resources | undefined;
  const isAllGone = async () => {
    last = await here.resources();
    return (last.fds === fds && last.threads === threads) || undefined;
  };
  await eventually('nothing is left', isAllGone).catch(() => undefined);
  assert.deepEqual(last, { fds, threads });
});

for (const where of ['seal', 'open'] as const) {
  test(`a protocol that throws in ${where}() in the middle of traffic: that is the reason, and the other side goes on`, {
    timeout: 120_000,
  }, async (t) => {
    if (!requireRoot(t)) return;
    const pair = await startPlainPair(t);
    const { here, there } = pair;
    const running = await settled(here);
    await load(pair);
    await here.call({ ask: 'fault', fault: { in: where, what: 'throw', every: 100 } });
    assert.equal(await here.ended(), `${where} fails`);
    await isGone(here, running);
    await there.status();
    await startAgain(here, 'there');
    await receiveTransfers(there.host, INSIDE.IPv6.there);
    await transfer(here.host, INSIDE.IPv6.there, 4 * MEGABYTE);
  });
}

/** The thread of the tunnel: the one that waits in poll(2). */
function tunnelThread(pid: number): Promise<string> {
  const poll = process.arch === 'x64' ? '7' : '73';
  return eventually('one thread waits in poll(2)', async () => {
    const inPoll = readdirSync(`/proc/${pid}/task`).filter(
      (thread) => readFileSync(`/proc/${pid}/task/${thread}/syscall`, 'utf8').split(' ')[0] === poll,
    );
    return inPoll.length === 1 ? inPoll[0] : undefined;
  });
}

/** How often each thread has gone to sleep of its own accord, which is how often it was woken. */
function sleeps(pid: number): Map<string, number> {
  const threads = readdirSync(`/proc/${pid}/task`).map((thread): [string, number] => {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8');
    return [thread, Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)?.[1])];
  });
  return new Map(threads);
}

/** On a busy machine V8 tidies up for longer after the work, and so do TCP and the other side. */
const WINDOWS = 5;

/** In 3 s nothing wakes the tunnel; V8 may tidy up once more in the other threads, before or meanwhile. */
async function assertAsleep(pid: number): Promise<void> {
  const tunnel = await tunnelThread(pid);
  let woken = { tunnel: 0, others: 0 };
  for (let window = 0; window < WINDOWS; window++) {
    woken = await wakes(pid, tunnel);
    if (woken.tunnel === 0 && woken.others <= 6) return;
  }
  assert.fail(`the tunnel was woken ${woken.tunnel} times, other threads ${woken.others} times`);
}

async function wakes(pid: number, tunnel: string): Promise<{ tunnel: number; others: number }> {
  const before = sleeps(pid);
  await later(3000);
  const woken = [...sleeps(pid)].map(([thread, count]): [string, number] => [
    thread,
    count - (before.get(thread) ?? 0),
  ]);
  const sum = (threads: typeof woken) => threads.reduce((total, [, count]) => total + count, 0);
  const isTunnel = ([thread]: [string, number]) => thread === tunnel;
  return { tunnel: sum(woken.filter(isTunnel)), others: sum(woken.filter((each) => !isTunnel(each))) };
}

async function quiet(host: LabHost): Promise<void> {
  // The kernel's own: multicast reports, duplicate address detection.
  await host.sysctl(
    'net.ipv6.conf.all.router_solicitations=0',
    'net.ipv6.conf.all.mldv2_unsolicited_report_interval=100',
  );
}

test('an idle tunnel is not woken in 3 s', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { here, there } = await startPlainPair(t);
  await Promise.all([quiet(here.host), quiet(there.host)]);
  await receiveTransfers(there.host, INSIDE.IPv4.there);
  await transfer(here.host, INSIDE.IPv4.there, 8 * MEGABYTE);
  // TCP's own end, and the collector of what the work has left.
  await later(3000);
  await Promise.all([here, there].map((end) => assertAsleep(end.process.pid)));
});

async function wireGuardEnds(t: TestContext): Promise<[LabProcess, LabProcess]> {
  const lab = await Lab.create();
  t.after(() => lab.close());
  const [here, there] = await Promise.all([lab.host('here'), lab.host('there')]);
  await lab.link(here, 'eth0', ['192.0.2.1/24'], there, 'eth0', ['192.0.2.2/24']);
  const keys = { here: wireGuardKeys(), there: wireGuardKeys() };
  const start = (host: LabHost, side: Side, far: Side) =>
    startOurTunnel(host, 'wg0', {
      keys: keys[side],
      listenPort: 51_000,
      addresses: [`${INSIDE.IPv4[side]}/24`],
      peers: [
        {
          publicKey: keys[far].publicKey,
          allowedIps: [`${INSIDE.IPv4[far]}/32`],
          endpoint: `${OUTSIDE.IPv4[far]}:51000`,
        },
      ],
    });
  const [one, other] = await Promise.all([start(here, 'here', 'there'), start(there, 'there', 'here')]);
  await here.run('ping', ['-n', '-c2', '-i0.1', '-W15', INSIDE.IPv4.there]);
  return [one.process, other.process];
}

test('an idle WireGuard with a session is not woken between its timers', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const ends = await wireGuardEnds(t);
  // The last timer of an answered ping is the keepalive that nothing asks for, after 10 s and 15 s.
  await later(16_000);
  await Promise.all(ends.map(({ pid }) => assertAsleep(pid)));
});
