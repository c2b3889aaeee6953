/**
 * Covered sockets that look like servers: bound to the physical link or address they reach nobody, also when somebody outside, or a
 * late answer, sends something to exactly their addresses and ports. Real servers are answered for all that.
 *
 *   attacker ── LAN ── eth0 app vpn-tunN ══ exitN          the attacker speaks in the name of the far end
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type Flow, type Stations, TCP_SYN, tcpFrame, udpFrame } from './lib/attackers/frames.js';
import { raise, VICTIMS } from './lib/attackers/victim.js';
import { type DepartedPacket, describePacket } from './lib/leak-check.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { Prober } from './lib/prober.js';
import type { LabProcess } from './lib/process.js';
import { startSocketProcess } from './lib/socket-process.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const { app: HOST, attacker: ATTACKER } = POLICY_ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const TRANSPORTS = ['udp', 'tcp'] as const;
const TIMEOUT = { timeout: 240_000 };
const ECHO = 7;
const MARKER_PORT = 5999;

interface Attack {
  lab: PolicyLab;
  stations: Stations;
  attacker: Prober;
  /** Of a user that no VPN covers: hears what the attacker sends last. */
  listener: Prober;
  inbox: number;
}

async function attack(t: TestContext, uncovered: number): Promise<Attack | undefined> {
  const lab = await policyLab(t, { networks: [1, 2] });
  if (!lab) return undefined;
  const [link] = await lab.app.json('ip', ['-j', 'link', 'show', 'eth0']);
  const listener = await lab.prober({ uid: uncovered });
  return {
    lab,
    stations: { from: await lab.mac(lab.attacker), to: String(link?.address) },
    attacker: await lab.stranger(lab.attacker),
    listener,
    inbox: await listener.call('listen', 'udp', HOST.ipv4, MARKER_PORT),
  };
}

/** What the far end would send to the socket at this port. */
function answerTo(stations: Stations, transport: 'udp' | 'tcp', family: 'ipv4' | 'ipv6', port: number): string {
  const flow: Flow = {
    source: internet[family],
    destination: HOST[family],
    sourcePort: ECHO,
    destinationPort: port,
  };
  return transport === 'tcp' ? tcpFrame(stations, flow, TCP_SYN) : udpFrame(stations, flow);
}

async function speak({ attacker, stations, listener, inbox }: Attack, frames: string[], text: string): Promise<void> {
  const flow = { source: ATTACKER.ipv4, destination: HOST.ipv4, sourcePort: 9, destinationPort: MARKER_PORT };
  for (const frame of [...frames, udpFrame(stations, flow, text)]) {
    assert.equal(await attacker.call('sendFrame', 'eth0', frame), 'ok');
  }
  await eventually(text, async () => (await listener.call('heard', inbox)).includes(text) || undefined);
}

const TCP_RST = 0x04;
const FAR_ENDS: readonly string[] = Object.values(internet);

/** What a socket sends; that nobody listens says the kernel. */
const isToFarEnd = ({ protocol, tcpFlags = 0, destination }: DepartedPacket): boolean =>
  FAR_ENDS.includes(destination) && (protocol === 'udp' || (protocol === 'tcp' && (tcpFlags & TCP_RST) === 0));

async function escaped({ lab }: Attack): Promise<string[]> {
  return [...new Set((await lab.departed()).filter(isToFarEnd).map(describePacket))];
}

/** The port, chosen by the kernel, from which the far end was asked and has answered. */
async function unconnected(lab: PolicyLab, uid: number, family: 'ipv4' | 'ipv6'): Promise<number> {
  const client = await lab.prober({ uid });
  const fd = await client.call('open', family === 'ipv4' ? 1 : 2, 'udp');
  await client.call('bind', fd, HOST[family]);
  const question = { transport: 'udp', address: internet[family], unconnected: true, timeoutMs: 20_000 } as const;
  assert.equal(await client.call('askOn', fd, question), `server ${HOST[family]}`);
  const bound = (await lab.app.run('ss', ['-Hunap'])).stdout.split('\n').find((line) => {
    return line.includes(`pid=${client.pid},fd=${fd})`);
  });
  const port = Number(/:(\d+)\s/.exec(bound?.replace(/%\w+/, '') ?? '')?.[1]);
  assert.ok(port > 0, bound);
  await client.call('close', fd).catch(() => undefined);
  return port;
}

/** escape.py says a line about each attempt. */
async function tries(process: LabProcess, attempts: readonly object[]): Promise<void> {
  const before = process.stdout.split('\n').length;
  process.write(attempts.map((attempt) => `${JSON.stringify(attempt)}\n`).join(''));
  const done = () => process.stdout.split('\n').length >= before + attempts.length || undefined;
  await eventually('all attempts', async () => done());
}

for (const victim of VICTIMS) {
  const { whose, covered, uncovered } = victim;
  const [uid = 0] = covered;

  test(`${whose}: what the locks have stopped gets out no better when somebody answers it`, TIMEOUT, async (t) => {
    const scene = await attack(t, uncovered);
    if (!scene) return;
    const { lab, stations } = scene;
    await raise(lab, victim);
    const escaping = lab.app.spawn('python3', ['-SE', lab.app.path('test/lab/lib/attackers/escape.py'), String(uid)]);
    await escaping.waitFor(/^ready$/m);
    let port = 5060;
    const cases = FAMILIES.flatMap((family) =>
      TRANSPORTS.flatMap((transport) =>
        [{ device: 'eth0' }, {}].map((more) => {
          const way = { way: transport, target: internet[family], port: ECHO, source: HOST[family], from: port++ };
          return { family, transport, attempt: { ...way, ...more } };
        }),
      ),
    );
    const attempts = cases.map(({ attempt }) => attempt);
    await tries(escaping, attempts);
    assert.deepEqual(await escaped(scene), []);
    const answers = cases.map(({ family, transport, attempt }) => answerTo(stations, transport, family, attempt.from));
    await speak(scene, answers, 'first');
    // Of TCP the socket itself answers at once, and sends its own first segment again.
    for (const round of ['second', 'third']) {
      await tries(
        escaping,
        attempts.filter(({ way }) => way === 'udp'),
      );
      await speak(scene, answers, round);
    }
    assert.deepEqual(await escaped(scene), []);
    // A server on a port that was tried: remembered are pairs of addresses and ports, not ports (ntpd asks from 123 and answers there).
    const served = attempts.filter(({ way }) => way === 'udp')[0]?.from ?? 0;
    const server = await lab.prober({ uid });
    await server.call('serve', 'mine', served);
    const asker = await lab.stranger(lab.lanHost);
    for (const family of FAMILIES) {
      const question = { protocol: 'udp', target: HOST[family], port: served, timeoutMs: 20_000 } as const;
      assert.deepEqual(await asker.call('probe', question), { side: 'mine', source: POLICY_ADDRESSES.lanHost[family] });
    }
  });

  for (const isTracked of [false, true]) {
    const before = isTracked ? 'with another VPN up before' : 'of the first VPN';
    test(`${whose}: late answers to sockets that setUp ended open nothing, ${before}`, TIMEOUT, async (t) => {
      const scene = await attack(t, uncovered);
      if (!scene) return;
      const { lab, stations } = scene;
      if (isTracked) await raise(lab, { owner: 2003, config: {} }, {}, 2);
      const old = await startSocketProcess(lab.app, uid);
      const ports: { family: 'ipv4' | 'ipv6'; port: number }[] = [];
      for (const family of FAMILIES) {
        const remote: [string, number] = [internet[family], ECHO];
        const fd = await old.call('open', { transport: 'udp', local: [HOST[family], 0], remote });
        await old.call('send', fd, 'before');
        assert.equal(await old.call('hears', fd, 'server'), true, 'it is an answered client');
        ports.push({ family, port: await old.call('localPort', fd) });
      }
      // Whom a socket without connect(2) has asked only the kernel's table of connections knows, if it was kept.
      if (isTracked) for (const family of FAMILIES) ports.push({ family, port: await unconnected(lab, uid, family) });
      await raise(lab, victim);
      await old.kill();
      const since = await lab.moment();
      await speak(
        scene,
        ports.map(({ family, port }) => answerTo(stations, 'udp', family, port)),
        'late',
      );
      const escaping = lab.app.spawn('python3', ['-SE', lab.app.path('test/lab/lib/attackers/escape.py'), String(uid)]);
      await escaping.waitFor(/^ready$/m);
      const attempts = ports.map(({ family, port }) => {
        return { way: 'udp', target: internet[family], port: ECHO, source: HOST[family], from: port };
      });
      for (let round = 0; round < 3; round++) await tries(escaping, attempts);
      await speak(scene, [], 'end');
      assert.deepEqual(await lab.leaks({ isUncovered: (packet) => !isToFarEnd(packet) }, [], since), []);
    });
  }
}
