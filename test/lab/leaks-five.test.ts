/**
 * What leaks from a VPN whose rules are right: connections from before it, what the kernel says by itself, connections that
 * nobody has any more, sockets that outlive it, sockets from before the mark.
 *
 *   app uid 2001 ── vpn-tunN ═══════════════════════════ exit1 (answers, and tries out the vNIC's address)
 *                   eth0 ─── router ── server (answers, and goes on sending to where it was asked from)
 *        captured   eth1 ─── cafe
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { whyNoCgroup } from './lib/cgroup.js';
import type { DepartedPacket } from './lib/leak-check.js';
import { FAMILIES, fromVnic, isInside, isLinkUpkeep, momentAt, raise } from './lib/policy-facts.js';
import { isTunnelDatagram, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { LabProcess } from './lib/process.js';
import { type SocketProcess, startSocketProcess } from './lib/socket-process.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { plainFlows, startTraffic } from './lib/steady-traffic.js';
import { eventually, exitOf } from './lib/vpn-lab.js';

const { internet, server: SERVER } = ADDRESSES;
const { app: HOST } = POLICY_ADDRESSES;
const BYPASS = 0x80000000;
const ECHO = 7;
const ENDED = { code: /^(EPIPE|EDESTADDRREQ|ECONNABORTED)$/ };
const TIMEOUT = { timeout: 300_000 };
const FACTS = { isUncovered: isLinkUpkeep, isProtected: isTunnelDatagram };
const OWNERS = [
  { owner: 2001, name: "a user's VPN" },
  { owner: 0, name: "root's VPN" },
];

interface Old {
  name: string;
  fd: number;
  /** At the server, by which it goes on sending. */
  farEnd: number;
}

/** TCP, connected UDP and UDP that is only bound to an address, all in use. */
async function oldSockets(user: SocketProcess, far: SocketProcess): Promise<Old[]> {
  const made: Old[] = [];
  for (const family of FAMILIES) {
    const target = SERVER[family];
    const listener = await far.call('open', { transport: 'tcp', local: [target, 9000] });
    await far.call('listen', listener);
    const fd = await user.call('open', { transport: 'tcp', remote: [target, 9000] });
    made.push({ name: `tcp ${family}`, fd, farEnd: await far.call('accept', listener) });
    for (const kind of ['connected', 'bound'] as const) {
      const way = kind === 'connected' ? { remote: [target, 9001] as const } : { local: [HOST[family], 0] as const };
      const own = await user.call('open', { transport: 'udp', ...(way as object) });
      const peer: [string, number] = [HOST[family], await user.call('localPort', own)];
      const farEnd = await far.call('open', { transport: 'udp', local: [target, 9001], remote: peer });
      made.push({ name: `udp ${family} ${kind}`, fd: own, farEnd });
    }
  }
  for (const { name, fd, farEnd } of made) {
    await far.call('send', farEnd, 'before');
    assert.equal(await user.call('hears', fd, 'before'), true, name);
  }
  return made;
}

/**
 * Orphans whose retransmissions may leave, because their sockets were marked: when they have sent again, so would have any
 * other that was left no later.
 */
async function startClock(t: TestContext, lab: PolicyLab) {
  const user = await startSocketProcess(lab.app, 2001, { mayMark: true });
  const ports: number[] = [];
  const fds: number[] = [];
  for (const family of FAMILIES) {
    const fd = await user.call('open', { transport: 'tcp', remote: [internet[family], ECHO], mark: BYPASS });
    await user.call('hears', fd, '\n');
    ports.push(await user.call('localPort', fd));
    fds.push(fd);
  }
  const isOf = ({ sourcePort }: DepartedPacket) => ports.includes(sourcePort ?? 0);
  return {
    isOf,
    start: async () => {
      for (const fd of fds) await user.call('send', fd, 'clock', 20_000);
      await user.kill();
    },
    goesOn: async () => {
      const since = Date.now();
      const beats = await eventually(
        'retransmissions of marked orphans',
        async () => {
          const later = (await lab.departed()).filter((packet) => isOf(packet) && packet.timeMs > since);
          return ports.every((port) => later.filter(({ sourcePort }) => sourcePort === port).length >= 2)
            ? later
            : undefined;
          // Each waits twice as long as the one before, from whenever they began.
        },
        100_000,
      );
      t.diagnostic(`${beats.length} retransmissions in ${Date.now() - since} ms`);
    },
  };
}

async function openToInternet(user: SocketProcess, isBound: boolean): Promise<number[]> {
  const fds: number[] = [];
  for (const family of FAMILIES) {
    const local = isBound ? { local: [HOST[family], 0] as [string, number] } : {};
    fds.push(await user.call('open', { transport: 'tcp', remote: [internet[family], ECHO], ...local }));
  }
  // Closed with something unread, a connection would be reset.
  for (const fd of fds) await user.call('hears', fd, '\n');
  return fds;
}

async function leaveAll(user: SocketProcess, fds: readonly number[], way: 'close' | 'kill'): Promise<void> {
  for (const fd of fds) await user.call('send', fd, 'secret', 20_000);
  if (way === 'kill') return void (await user.kill());
  for (const fd of fds) await user.call('close', fd);
}

/** Local and remote addresses. */
async function orphans({ app }: PolicyLab): Promise<string[]> {
  const { stdout } = await app.run('ss', ['-Htn', 'state', 'fin-wait-1']);
  return stdout.split('\n').filter((line) => line !== '');
}

for (const { owner, name } of OWNERS) {
  test(
    `${name}: connections from before it end, and what still comes for them brings nothing out`,
    TIMEOUT,
    async (t) => {
      const lab = await policyLab(t);
      if (!lab) return;
      const [user, far] = await Promise.all([startSocketProcess(lab.app, 2001), startSocketProcess(lab.server, 0)]);
      const old = await oldSockets(user, far);
      await raise(lab, owner);
      const since = Date.now();
      // Mid-stream: conntrack sees the server's packet first and could take the connection for one that came in.
      for (const { name: socket, fd, farEnd } of old) {
        for (let round = 0; round < 3; round++) await far.call('send', farEnd, 'are you there?').catch(() => {});
        await assert.rejects(user.call('send', fd, 'secret'), ENDED, socket);
      }
      await isInside(lab, 2001);
      const secrets = (await lab.departed()).filter(({ payload }) => Buffer.from(payload).includes('secret'));
      assert.deepEqual(secrets, []);
      // A datagram for a port that nobody has any more is answered by the kernel.
      const isInbound = ({ protocol, icmpType }: DepartedPacket) => icmpType === (protocol === 'icmp' ? 3 : 1);
      assert.deepEqual(await lab.leaks({ ...FACTS, isInbound }, undefined, await momentAt(lab, since)), []);
    },
  );

  test(`${name}: what the kernel answers for the vNIC's address goes back into the tunnel`, TIMEOUT, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    const { host, client } = exitOf(lab, 1);
    const vpn = await raise(lab, owner);
    await isInside(lab, 2001);
    const since = await lab.moment();
    const other = await lab.prober({ uid: 2002 });
    await other.call('serve', 'of-2002', 8080);
    const stranger = await lab.stranger(host);
    for (const family of FAMILIES) {
      const ask = (protocol: 'tcp' | 'udp' | 'icmp', port: number, timeoutMs = 20_000) =>
        stranger.call('probe', { protocol, target: client[family], port, timeoutMs });
      assert.deepEqual(await ask('icmp', 0), { side: 'kernel', source: '-' }, family);
      assert.deepEqual(await ask('tcp', 9999), { error: 'ECONNREFUSED' }, family);
      assert.deepEqual(await ask('udp', 9999), { error: 'ECONNREFUSED' }, family);
      // Another user's server, whose answers have that user's routes.
      if (owner !== 0) assert.ok('error' in (await ask('tcp', 8080, 1000)), family);
    }
    await isInside(lab, 2001);
    assert.deepEqual(await fromVnic(lab), []);
    assert.deepEqual(await lab.leaks(FACTS, undefined, since), []);
    await vpn.call('destroy');
    assert.deepEqual(await fromVnic(lab), []);
  });

  test(
    `${name}: connections that their process has left say nothing after setUp, nor after destroy`,
    TIMEOUT,
    async (t) => {
      const lab = await policyLab(t);
      if (!lab) return;
      const { app, router } = lab;
      const { host, client } = exitOf(lab, 1);
      const deaf = FAMILIES.map((family) => `blackhole ${internet[family]}`);
      const heard = FAMILIES.map((family) => `${internet[family]} via ${SERVER[family]}`);
      const start = () =>
        Promise.all([startSocketProcess(app, 2001), startSocketProcess(app, 2001), startClock(t, lab)]);

      const [closing, dying, clock] = await start();
      const left = [await openToInternet(closing, true), await openToInternet(dying, false)];
      await router.ip(...deaf.map((route) => `route replace ${route}`));
      await leaveAll(closing, left[0] ?? [], 'close');
      await leaveAll(dying, left[1] ?? [], 'kill');
      await clock.start();
      assert.equal((await orphans(lab)).length, 6);
      const vpn = await raise(lab, owner);
      const since = Date.now();
      assert.equal((await orphans(lab)).length, 2);
      await clock.goesOn();
      const isProtected = (packet: DepartedPacket) => isTunnelDatagram(packet) || clock.isOf(packet);
      assert.deepEqual(await lab.leaks({ ...FACTS, isProtected }, undefined, await momentAt(lab, since)), []);

      await router.ip(...heard.map((route) => `route replace ${route}`));
      const [closed, dead, second] = await start();
      const inside = [await openToInternet(closed, false), await openToInternet(dead, false)];
      await router.ip(...deaf.map((route) => `route replace ${route}`));
      await host.ip(...FAMILIES.map((family) => `route add blackhole ${client[family]}`));
      await leaveAll(closed, inside[0] ?? [], 'close');
      await leaveAll(dead, inside[1] ?? [], 'kill');
      await second.start();
      const own = (line: string) => FAMILIES.some((family) => line.includes(`${client[family]}`));
      assert.equal((await orphans(lab)).filter(own).length, 4);
      await vpn.call('destroy');
      assert.deepEqual((await orphans(lab)).filter(own), []);
      await second.goesOn();
      assert.deepEqual(await fromVnic(lab), []);
    },
  );

  for (const end of ['destroy', 'kill9'] as const) {
    test(`${name}: sockets that are in use when it ends (${end}) end with it`, TIMEOUT, async (t) => {
      const lab = await policyLab(t);
      if (!lab) return;
      const { client } = exitOf(lab, 1);
      const user = await startSocketProcess(lab.app, 2001);
      const vpn = await raise(lab, owner);
      const sockets: number[] = [];
      for (const family of FAMILIES) {
        const remote: [string, number] = [internet[family], ECHO];
        const local: [string, number] = [client[family], 0];
        for (const transport of ['tcp', 'udp'] as const) {
          sockets.push(
            await user.call('open', { transport, remote }),
            await user.call('open', { transport, local, remote }),
          );
        }
      }
      for (const fd of sockets) await user.call('send', fd, 'inside');
      // Always on its way: what is made in the middle of the end, too.
      const traffic = await startTraffic(lab.app, 2001, [
        ...plainFlows(FAMILIES.map((family) => internet[family])),
        ...FAMILIES.map((family) => ({ protocol: 'udp' as const, target: internet[family], source: client[family] })),
        ...FAMILIES.map((family) => ({ protocol: 'tcp' as const, target: internet[family], source: client[family] })),
      ]);
      await traffic.answeredOn();
      if (end === 'destroy') await vpn.call('destroy');
      else {
        await vpn.kill9();
        // The vNIC goes with the process; the service has to hear of it first.
        await eventually('the end of the VPN', async () => {
          const { stdout } = await lab.app.run('nft', ['list', 'tables']);
          return !stdout.includes(' vpnd\n') || undefined;
        });
      }
      for (const fd of sockets) await user.call('send', fd, 'secret').catch(() => {});
      await traffic.askedOn();
      for (const fd of sockets) await assert.rejects(user.call('send', fd, 'secret'), ENDED);
      assert.deepEqual(await fromVnic(lab), []);
    });
  }
}

test('sockets that an application made before its VPN: inside or nowhere, pings too', TIMEOUT, async (t) => {
  const reason = whyNoCgroup();
  if (reason !== undefined) return t.skip(reason);
  const lab = await policyLab(t);
  if (!lab) return;
  const { app } = lab;
  const cgroup = lab.cgroup('listed');
  const options = { cgroup: cgroup.directory };
  const [user, far] = await Promise.all([startSocketProcess(app, 2001, options), startSocketProcess(lab.server, 0)]);
  const old = await oldSockets(user, far);
  const kept = FAMILIES.map((family) => ({ protocol: 'udp' as const, target: internet[family], isKept: true }));
  const steady = await startTraffic(app, 2001, kept, options);
  const setpriv = ['setpriv', '--reuid=2001', '--regid=2001', '--clear-groups', '--', 'ping', '-nO', '-i', '0.2'];
  const pings = FAMILIES.map((family) =>
    app.spawn('sh', ['-c', 'echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup.directory, ...setpriv, internet[family]]),
  );
  for (const ping of pings) await ping.waitFor(/icmp_seq=2/);
  await steady.answeredOn();

  await raise(lab, 2001, { trustedApplications: [`cgroup:${cgroup.path}`] });
  const since = Date.now();
  for (const { name, fd, farEnd } of old) {
    await far.call('send', farEnd, 'are you there?').catch(() => {});
    await assert.rejects(user.call('send', fd, 'secret'), ENDED, name);
  }
  await steady.askedOn();
  // It says so when there is an answer, when there is none, and when the kernel refuses: it has sent each time.
  const said = (ping: LabProcess) => `${ping.stdout}${ping.stderr}`.split('\n').length;
  const before = pings.map(said);
  const went = () => pings.every((ping, index) => said(ping) >= (before[index] ?? 0) + 2);
  await eventually('further pings', async () => went() || undefined);
  const question = { uid: 2001, target: internet.ipv4, timeoutMs: 20_000 };
  const { ipv4: source } = exitOf(lab, 1).client;
  assert.deepEqual(await lab.probe({ ...question, protocol: 'tcp', cgroup }), { side: 'exit1', source });
  // Not on the list.
  assert.deepEqual(await lab.probe({ ...question, protocol: 'dns-udp' }), { side: 'server' });
  const isUncovered = (packet: DepartedPacket) => packet.destinationPort === 53 || isLinkUpkeep(packet);
  assert.deepEqual(await lab.leaks({ ...FACTS, isUncovered }, undefined, await momentAt(lab, since)), []);
});
