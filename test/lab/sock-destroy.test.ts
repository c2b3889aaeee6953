/**
 * Sockets that a VPN must not leave as they are end, and no others. Without a VPN: who is covered is said to SocketEnder, and
 * what became of each socket is asked of the process that has it, of the far end, of `ss` and of a capture.
 *
 *   app                               router            server
 *   uid 2001, 2002, 0 ── eth0 ─────── 192.0.2.1 ─────── answers on port 7 at its own and at the "internet's" addresses,
 *                        captured                       and connects to listeners in app
 */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { release } from 'node:os';
import test, { type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { removeCgroup } from '../../src/kernel/cgroup.js';
import { orphansHaveUid } from '../../src/kernel/inet-diag.js';
import { makeCgroup, whyNoCgroup } from './lib/cgroup.js';
import { PLACES, startServers } from './lib/exits.js';
import type { CapturedPacket } from './lib/pcap.js';
import { requireRoot } from './lib/prerequisites.js';
import { type Opening, type SocketProcess, startSocketProcess } from './lib/socket-process.js';
import { ADDRESSES, type StandardLab, standardLab } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';

const { app: HOST, server: NEAR, internet: FAR } = ADDRESSES;
const ECHO = 7;
const BYPASS = 0x80000000;
const TCP_RST = 4;
const FAR_ENDS: [string, number][] = [
  [FAR.ipv4, ECHO],
  [FAR.ipv6, ECHO],
];

interface SocketLab extends StandardLab {
  /** A process of root in app. */
  root: SocketProcess;
}

/** Undefined when no lab can be built here. */
async function socketLab(t: TestContext): Promise<SocketLab | undefined> {
  if (!requireRoot(t)) return undefined;
  const lab = await standardLab();
  t.after(() => lab.lab.close());
  await startServers(lab.server, 'server', PLACES);
  return { ...lab, root: await startSocketProcess(lab.app, 0) };
}

/** A socket of a process. */
interface Held {
  name: string;
  owner: SocketProcess;
  fd: number;
}

async function open(owner: SocketProcess, name: string, opening: Opening): Promise<Held> {
  return { name, owner, fd: await owner.call('open', opening) };
}

/** One connection of each kind to the far end, with both families. */
async function connections(owner: SocketProcess, name: string, more: Partial<Opening> = {}): Promise<Held[]> {
  const held: Held[] = [];
  for (const remote of FAR_ENDS) {
    for (const transport of ['tcp', 'udp'] as const) {
      held.push(await open(owner, `${transport} to ${remote[0]}, ${name}`, { transport, remote, ...more }));
    }
  }
  return held;
}

/**
 * Pairs of UDP sockets with the same addresses, connected in either order: the kernel finds them by these, one before the
 * other.
 */
async function twins(owner: SocketProcess): Promise<Held[]> {
  const held: Held[] = [];
  for (const [order, port] of [6000, 6001].entries()) {
    const local: [string, number] = [HOST.ipv4, port];
    const pair = [
      await open(owner, 'udp twin', { transport: 'udp', local }),
      await open(owner, 'udp twin', { transport: 'udp', local }),
    ];
    for (const { fd } of order === 0 ? pair : [...pair].reverse()) await owner.call('connect', fd, FAR.ipv4, ECHO);
    held.push(...pair);
  }
  return held;
}

async function areAborted(sockets: readonly Held[]): Promise<void> {
  for (const { name, owner, fd } of sockets) {
    assert.equal(await owner.call('error', fd), 'ECONNABORTED', name);
    await assert.rejects(owner.call('send', fd, 'lost'), { code: /^(EPIPE|EDESTADDRREQ)$/ }, name);
  }
}

async function haveNoError(sockets: readonly Held[]): Promise<void> {
  for (const { name, owner, fd } of sockets) assert.equal(await owner.call('error', fd), 'none', name);
}

/** The far end echoes. */
async function doWork(sockets: readonly Held[]): Promise<void> {
  await haveNoError(sockets);
  for (const { name, owner, fd } of sockets) {
    await owner.call('send', fd, 'again');
    assert.equal(await owner.call('hears', fd, 'again'), true, name);
  }
}

/** A listener of `owner`, and for each address a connection from `caller`. */
async function serve(owner: SocketProcess, caller: SocketProcess, port: number) {
  const listener = await open(owner, `listener on ${port}`, { transport: 'tcp', local: ['::', port] });
  await owner.call('listen', listener.fd);
  const sessions: { client: Held; server: Held }[] = [];
  for (const address of [HOST.ipv4, HOST.ipv6]) {
    const client = await open(caller, `client of ${address}`, { transport: 'tcp', remote: [address, port] });
    const fd = await owner.call('accept', listener.fd);
    sessions.push({ client, server: { name: `from outside to ${address}`, owner, fd } });
  }
  return { listener, sessions };
}

async function goOn(sessions: readonly { client: Held; server: Held }[]): Promise<void> {
  for (const { client, server } of sessions) {
    await haveNoError([server]);
    await server.owner.call('send', server.fd, 'still here');
    assert.equal(await client.owner.call('hears', client.fd, 'still here'), true, server.name);
  }
}

/** What a capture knows a socket by: TCP and UDP have ports of their own. */
interface Port {
  transport: 'tcp' | 'udp';
  number: number;
}

async function portOf({ name, owner, fd }: Held): Promise<Port> {
  return { transport: name.startsWith('tcp') ? 'tcp' : 'udp', number: await owner.call('localPort', fd) };
}

/** What app sent to the internet, but for what tells the far end that a connection is over. */
function sentTo(packets: readonly CapturedPacket[], ports: readonly Port[]): string[] {
  return packets
    .filter(({ protocol, sourcePort, tcpFlags = 0 }) => {
      const ours = ports.some(({ transport, number }) => transport === protocol && number === sourcePort);
      return ours && (tcpFlags & TCP_RST) === 0;
    })
    .map(({ protocol, source, destination, payload }) => `${protocol} ${source} > ${destination}: ${payload.length}`);
}

test("what a user's VPN takes over ends, and nothing else does", { timeout: 120_000 }, async (t) => {
  const lab = await socketLab(t);
  if (!lab) return;
  const { app, server, root } = lab;
  const [user, marker, other, caller] = await Promise.all([
    startSocketProcess(app, 2001),
    startSocketProcess(app, 2001, { mayMark: true }),
    startSocketProcess(app, 2002),
    startSocketProcess(server, 0),
  ]);
  const covering = { owner: 2001, stays: [NEAR.ipv4, NEAR.ipv6] };
  const mapped: [string, number] = [`::ffff:${FAR.ipv4}`, ECHO];
  const connected = [
    ...(await connections(user, 'covered')),
    await open(user, 'tcp, mapped', { transport: 'tcp', remote: mapped }),
    await open(user, 'udp, mapped', { transport: 'udp', remote: mapped }),
    ...(await twins(user)),
    // The same port as the listener that comes next, but nothing that came in.
    await open(user, "tcp from the listener's port", {
      transport: 'tcp',
      family: 2,
      local: ['::', 8080],
      remote: [FAR.ipv6, ECHO],
    }),
  ];
  const { listener, sessions } = await serve(user, caller, 8080);
  const works = [
    ...(await connections(other, 'of uid 2002')),
    ...(await connections(marker, 'protected', { mark: BYPASS })),
  ];
  for (const address of [NEAR.ipv4, NEAR.ipv6]) {
    for (const transport of ['tcp', 'udp'] as const) {
      works.push(await open(user, `${transport} to ${address}`, { transport, remote: [address, ECHO] }));
    }
  }
  const inside = await open(user, 'inside the host', { transport: 'tcp', remote: ['::1', 8080] });
  const stays = [
    listener,
    inside,
    { name: 'accepted inside the host', owner: user, fd: await user.call('accept', listener.fd) },
    await open(user, 'udp server of no address', { transport: 'udp', local: ['::', 5354] }),
  ];
  const clients: Held[] = [await open(user, 'udp of no address', { transport: 'udp', local: ['::', 0] })];
  for (const address of [HOST.ipv4, HOST.ipv6]) {
    clients.push(await open(user, `udp client of ${address}`, { transport: 'udp', local: [address, 0] }));
    stays.push(await open(user, `udp server of ${address}`, { transport: 'udp', local: [address, 5353] }));
  }
  const ports = await Promise.all([...connected, ...clients].map(portOf));
  // A greeting that came later would be acknowledged.
  for (const { name, fd } of connected) {
    if (name.startsWith('tcp')) assert.equal(await user.call('hears', fd, 'server'), true, name);
  }

  const capture = await app.capture('eth0');
  assert.equal(await root.call('endCovered', covering), connected.length + clients.length);
  await areAborted(connected);
  for (const { name, owner, fd } of clients) assert.equal(await owner.call('error', fd), 'ECONNABORTED', name);
  for (const { name, owner, fd } of clients) assert.equal(await owner.call('localPort', fd), 0, name);
  await doWork(works);
  await goOn(sessions);
  await haveNoError(stays);
  // A socket that was not connected lives on without an address, and is met again.
  assert.ok((await root.call('endCovered', covering)) <= clients.length);
  const packets = await capture.stop();
  assert.deepEqual(
    sentTo(packets, ports).filter((line) => line.includes(FAR.ipv4) || line.includes(FAR.ipv6)),
    [],
  );
  assert.ok(packets.some(({ payload }) => Buffer.from(payload).toString() === 'again'));
});

test("root's VPN ends everyone's but of users with their own, and an SSH session outlives its server", {
  timeout: 120_000,
}, async (t) => {
  const lab = await socketLab(t);
  if (!lab) return;
  const { app, server, root } = lab;
  const [user, other, caller] = await Promise.all([
    startSocketProcess(app, 2001),
    startSocketProcess(app, 2002),
    startSocketProcess(server, 0),
  ]);
  const ends = [...(await connections(user, 'of uid 2001')), ...(await connections(root, 'of root'))];
  const works = await connections(other, 'of uid 2002');
  const { listener, sessions } = await serve(root, caller, 22);
  const clients: string[] = [];
  for (const { client } of sessions) {
    const { family, address } = client.name.includes(':')
      ? { family: 6, address: HOST.ipv6 }
      : { family: 4, address: HOST.ipv4 };
    const remote = family === 6 ? NEAR.ipv6 : NEAR.ipv4;
    clients.push(`${address} 22 < ${remote} ${await caller.call('localPort', client.fd)}`);
  }
  assert.deepEqual((await root.call('inbound')).sort(), clients.sort());
  await root.call('close', listener.fd);
  assert.deepEqual((await root.call('inbound')).sort(), clients.sort());
  assert.equal(await root.call('endCovered', { owner: 0, usersWithOwnVpn: [2002] }), ends.length);
  await areAborted(ends);
  await doWork(works);
  await goOn(sessions);
});

test('a connection that its process has left ends, and sends nothing more', { timeout: 120_000 }, async (t) => {
  const lab = await socketLab(t);
  if (!lab) return;
  const { app, router, root } = lab;
  const user = await startSocketProcess(app, 2001);
  const sockets = await Promise.all(
    FAR_ENDS.map((remote) => open(user, `tcp to ${remote[0]}`, { transport: 'tcp', remote })),
  );
  const ports = await Promise.all(sockets.map(portOf));
  // Closed with something unread, a connection would be reset.
  for (const { fd } of sockets) await user.call('hears', fd, 'server');
  await router.ip(...FAR_ENDS.map(([address]) => `route replace blackhole ${address}`));
  const capture = await app.capture('eth0', ['tcp']);
  for (const { fd } of sockets) await user.call('send', fd, 'secret', 20_000);
  await user.kill();
  const sent = async (address: string): Promise<number> => {
    return sentTo(await capture.peek(), ports).filter((line) => line.includes(address)).length;
  };
  for (const [address] of FAR_ENDS) {
    const before = await sent(address);
    const isRepeated = async () => (await sent(address)) >= before + 2 || undefined;
    await eventually(`two retransmissions to ${address}`, isRepeated, 60_000);
  }
  const orphans = async (): Promise<number> => {
    const { stdout } = await app.run('ss', ['-Htn', 'state', 'fin-wait-1']);
    return stdout.split('\n').filter((line) => line !== '').length;
  };
  assert.equal(await orphans(), 2);
  // Where the kernel does not say whose it was, it is everybody's.
  if (orphansHaveUid(release())) assert.equal(await root.call('endCovered', { owner: 2002 }), 0);
  assert.equal(await root.call('endCovered', { owner: 2001 }), 2);
  assert.equal(await orphans(), 0);
  const before = await Promise.all(FAR_ENDS.map(([address]) => sent(address)));
  // The next retransmission would have come by now.
  await delay(5000);
  assert.deepEqual(await Promise.all(FAR_ENDS.map(([address]) => sent(address))), before);
  await capture.stop();
});

test('of one user, an application list decides by cgroup, nested ones too', { timeout: 120_000 }, async (t) => {
  const reason = whyNoCgroup();
  if (reason !== undefined) return t.skip(reason);
  const lab = await socketLab(t);
  if (!lab) return;
  const { app, root } = lab;
  let nested = '';
  // Before the outer one is removed, and when the lab has ended the processes.
  t.after(() => eventually('an empty cgroup', async () => removeCgroup(nested) || undefined));
  const outer = makeCgroup(t);
  nested = `${outer.directory}/nested`;
  mkdirSync(nested);
  const [listed, deeper, outside] = await Promise.all([
    startSocketProcess(app, 2001, { cgroup: outer.directory }),
    startSocketProcess(app, 2001, { cgroup: nested }),
    startSocketProcess(app, 2001),
  ]);
  const openAll = async () => ({
    inside: [...(await connections(listed, 'in the cgroup')), ...(await connections(deeper, 'below it'))],
    outside: await connections(outside, 'elsewhere'),
  });

  const first = await openAll();
  assert.equal(await root.call('endCovered', { owner: 2001, trusted: [outer.directory] }), first.inside.length);
  await areAborted(first.inside);
  await doWork(first.outside);

  const second = await openAll();
  const outsiders = [...first.outside, ...second.outside];
  assert.equal(await root.call('endCovered', { owner: 2001, blocked: [outer.directory] }), outsiders.length);
  await areAborted(outsiders);
  await doWork(second.inside);
  assert.equal(await root.call('endCovered', { owner: 2002, trusted: [outer.directory] }), 0);
});

test("whatever has a vNIC's address ends with it", { timeout: 120_000 }, async (t) => {
  const lab = await socketLab(t);
  if (!lab) return;
  const { app, router, root } = lab;
  const vnic = ['10.9.0.2', 'fd09::2'];
  await app.ip('address add 10.9.0.2/32 dev eth0', 'address add fd09::2/128 dev eth0 nodad');
  await router.ip('route add 10.9.0.2 via 192.0.2.2', 'route add fd09::2 via 2001:db8:1::2');
  const [user, other] = await Promise.all([startSocketProcess(app, 2001), startSocketProcess(app, 2002)]);
  const ends: Held[] = [];
  const unconnected: Held[] = [];
  for (const [index, address] of vnic.entries()) {
    const remote = FAR_ENDS[index] as [string, number];
    for (const transport of ['tcp', 'udp'] as const) {
      for (const owner of [user, other]) {
        ends.push(await open(owner, `${transport} from ${address}`, { transport, local: [address, 0], remote }));
      }
    }
    unconnected.push(await open(user, `udp of ${address}`, { transport: 'udp', local: [address, 0] }));
    unconnected.push(await open(user, `udp server of ${address}`, { transport: 'udp', local: [address, 5353] }));
  }
  const works = await connections(user, 'of the physical link');
  const listener = await open(user, 'listener', { transport: 'tcp', local: ['fd09::2', 8080] });
  await user.call('listen', listener.fd);
  await doWork(ends);

  // With more addresses than the kernel is asked to compare, it is done here.
  const many = Array.from({ length: 20 }, (_, index) => `10.9.1.${index}`);
  assert.equal(await root.call('endFrom', many), 0);
  assert.equal(await root.call('endFrom', vnic), ends.length + unconnected.length);
  // A port that a program asked for is its own for good.
  assert.equal(await root.call('endFrom', [...many, ...vnic]), unconnected.length / 2);
  const capture = await app.capture('eth0', ['src', 'host', '10.9.0.2', 'or', 'src', 'host', 'fd09::2']);
  await areAborted(ends);
  for (const { name, owner, fd } of unconnected) assert.equal(await owner.call('error', fd), 'ECONNABORTED', name);
  await haveNoError([listener]);
  await doWork(works);
  assert.deepEqual(await capture.stop(), []);
});

test('whether sockets can be ended is known beforehand, and takes the right to', { timeout: 180_000 }, async (t) => {
  const lab = await socketLab(t);
  if (!lab) return;
  await lab.root.call('require');
  await lab.app.ip('link set lo down');
  await lab.root.call('require');
  const user = await startSocketProcess(lab.app, 2001);
  await assert.rejects(user.call('require'), { code: 'EPERM' });
  const { stdout } = await lab.app.run('ss', ['-Hantu']);
  assert.equal(stdout, '');
});

test('what has ended already is not counted', { timeout: 180_000 }, async (t) => {
  const lab = await socketLab(t);
  if (!lab) return;
  const user = await startSocketProcess(lab.app, 2001);
  const sockets = await connections(user, 'of uid 2001');
  const udp = sockets.filter(({ name }) => name.startsWith('udp'));
  assert.deepEqual(await lab.root.call('destroyTwice'), [udp.length, 0]);
  await areAborted(udp);
});

test('what 2,000 sockets cost', { timeout: 120_000 }, async (t) => {
  const lab = await socketLab(t);
  if (!lab) return;
  const user = await startSocketProcess(lab.app, 2001);
  for (const remote of FAR_ENDS) {
    await user.call('openMany', 500, { transport: 'udp', remote });
    await user.call('openMany', 500, { transport: 'tcp', remote });
  }
  const took = await lab.root.call('time', { owner: 2001 });
  for (const [name, times] of Object.entries(took)) t.diagnostic(`${name}: ${times.join(', ')} ms`);
  assert.equal(await lab.root.call('endCovered', { owner: 2001 }), 0);
});
