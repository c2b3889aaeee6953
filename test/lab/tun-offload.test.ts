/**
 * A TUN with a virtio_net_hdr in the hands of its holder, who needs no right for anything here: super-packets go through whole in
 * both directions, and nothing that he writes before a packet makes the host treat it otherwise than the plain packet.
 *
 *   uid 2001 ── vpn-tun1 10.9.0.2, fd09::2 ── the holder: packets written by hand, or a mirror
 *   uid 2003 ── vpn-tun0 10.10.0.2, fd0a::2 ═══ UDP ═══ exit2          another VPN, which works all the time
 *   uid 2002, root, without a VPN: listen
 *   app eth0 192.0.2.2 (forwards) ── router ── server
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6 } from '../../src/kernel/tun-offload.js';
import { canonicalState, diffState } from './lib/canonical-state.js';
import { nothingIsClosing } from './lib/closing.js';
import { captureDepartures } from './lib/departures.js';
import { connect, EVERYWHERE, pathOf } from './lib/exits.js';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';
import { type Prober, startProber } from './lib/prober.js';
import { pythonFor } from './lib/python.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, type VpnLab, vpnLab } from './lib/vpn-lab.js';
import {
  tcpPacket,
  udpPacket,
  udpSuperHeader,
  unfinishedUdpPacket,
  type VnetHeader,
  vnetHeader,
} from './offload/packets.js';
import { TRAFFIC } from './offload/traffic.js';

const FAMILIES = ['ipv4', 'ipv6'] as const;
type Family = (typeof FAMILIES)[number];
const WILDCARD = { ipv4: '0.0.0.0', ipv6: '::' };
const [OWNER, STRANGER, OTHER_OWNER, ROOT] = [2001, 2002, 2003, 0];
const SEGMENT_BYTES = 1200;
const { app, internet, server } = ADDRESSES;
const LAN = { ipv4: '192.0.2.1', ipv6: '2001:db8:1::1' };
const LOOPBACK = { ipv4: '127.0.0.1', ipv6: '::1' };
const TAINTED = '/proc/sys/kernel/tainted';

interface Listener {
  uid: number;
  family: Family;
  port: number;
  prober: Prober;
  inbox: number;
}

interface Stage extends VpnLab {
  /** Who has the VPN with the header, or without. */
  holder: Prober;
  own: { ipv4: string; ipv6: string };
  other: { ipv4: string; ipv6: string };
  raise(offload: boolean): Promise<number>;
  listen(uid: number): Promise<Listener[]>;
  /** The other VPN carries its user's traffic, and the service serves. */
  othersAreFine(): Promise<void>;
}

async function stageOf(t: TestContext): Promise<Stage | undefined> {
  const lab = await vpnLab(t, { networks: [1, 2] });
  if (!lab) return undefined;
  await lab.app.sysctl('net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  const [exit1, exit2] = [exitOf(lab, 1), exitOf(lab, 2)];
  const holder = await startProber(lab.app, { uid: OWNER, vpnd: lab.vpnd });
  let port = 40_000;
  const otherOwner = await lab.process(OTHER_OWNER);
  await connect(otherOwner, exit2, vpnConfig(exit2.vnic));
  return {
    ...lab,
    holder,
    own: exit1.client,
    other: exit2.client,
    raise: (offload) => holder.call('setUp', vpnConfig(exit1.vnic), offload),
    async listen(uid) {
      const prober = uid === OWNER ? holder : await startProber(lab.app, { uid, vpnd: lab.vpnd });
      const open = async (family: Family): Promise<Listener> => {
        const number = ++port;
        return {
          uid,
          family,
          port: number,
          prober,
          inbox: await prober.call('listen', 'udp', WILDCARD[family], number),
        };
      };
      return Promise.all(FAMILIES.map(open));
    },
    async othersAreFine() {
      assert.deepEqual(await otherOwner.call('ask', ...EVERYWHERE), pathOf('exit2', exit2.client));
      const { status } = await lab.app.node('dist/src/cli/vpnctl.js', ['status'], {
        env: { VPND_SOCKET: lab.vpnd.socket },
      });
      assert.equal(status, 0);
      await nothingIsClosing(lab.app);
    },
  };
}

async function heardBy({ prober, inbox }: Listener): Promise<string[]> {
  return (await prober.call('heardWords', inbox)).sort();
}

const FORMS = ['plain', 'header', 'super-packet'] as const;

test('whom a packet from the TUN reaches does not depend on the header before it', { timeout: 240_000 }, async (t) => {
  const stage = await stageOf(t);
  if (!stage) return;
  const { holder, own, other } = stage;
  const listeners = (await Promise.all([OWNER, STRANGER, OTHER_OWNER, ROOT].map(stage.listen))).flat();
  const outcomes: string[][] = [];
  for (const form of FORMS) {
    const fd = await stage.raise(form !== 'plain');
    const departures = await captureDepartures(stage.app);
    const entered = await stage.app.capture('vpn-tun0');
    for (const { family, port } of listeners) {
      const places = [internet, server, LAN, app, LOOPBACK, own, other].map((each) => each[family]);
      for (const source of places) {
        for (const destination of places) {
          const flow = { source, destination, sourcePort: 7, destinationPort: port };
          const bytes = bytesOf(form, flow, `${form}:${source}>${destination}`);
          assert.equal(await holder.call('write', fd, bytes.toString('hex')), 'ok');
        }
      }
    }
    const heard = new Map<Listener, string[]>();
    for (const listener of listeners.filter(({ uid }) => uid === OWNER)) {
      const flow = { source: internet[listener.family], destination: own[listener.family], sourcePort: 7 };
      const last = bytesOf(form, { ...flow, destinationPort: listener.port }, `last-${form}`);
      assert.equal(await holder.call('write', fd, last.toString('hex')), 'ok');
      await eventually('the last', async () => (await heardBy(listener)).includes(`last-${form}`) || undefined);
    }
    for (const listener of listeners) heard.set(listener, await heardBy(listener));
    const ofForm = (listener: Listener) => (heard.get(listener) ?? []).filter((tag) => tag.startsWith(`${form}:`));
    for (const listener of listeners.filter(({ uid }) => uid !== OWNER)) {
      assert.deepEqual(ofForm(listener), [], `${form}: uid ${listener.uid}, ${listener.family}`);
    }
    for (const listener of listeners.filter(({ uid }) => uid === OWNER)) {
      const [from, to] = [internet[listener.family], own[listener.family]];
      assert.ok(ofForm(listener).includes(`${form}:${from}>${to}`), `${form}: its user receives`);
    }
    outcomes.push(listeners.flatMap(ofForm).map((tag) => tag.slice(form.length + 1)));
    assert.deepEqual(await departures.stop(), [], `${form}: nothing leaves`);
    assert.deepEqual(await entered.stop(), [], `${form}: nothing enters the other VPN`);
    await stage.othersAreFine();
    await holder.call('destroy');
    await holder.call('close', fd);
  }
  const [plain, ...others] = outcomes;
  for (const outcome of others) assert.deepEqual(outcome, plain);
  t.diagnostic(`delivered in every form: ${[...new Set(plain)].join(', ')}`);
});

function bytesOf(form: (typeof FORMS)[number], flow: Parameters<typeof udpPacket>[0], tag: string): Buffer {
  const segment = `${tag} `.padEnd(SEGMENT_BYTES, '.');
  if (form === 'plain') return udpPacket(flow, segment);
  if (form === 'header') return Buffer.concat([vnetHeader(), udpPacket(flow, segment)]);
  return Buffer.concat([vnetHeader(udpSuperHeader(flow, SEGMENT_BYTES)), unfinishedUdpPacket(flow, segment.repeat(3))]);
}

test('super-packets of TCP and UDP go through whole in both directions', { timeout: 120_000 }, async (t) => {
  const stage = await stageOf(t);
  if (!stage) return;
  const { holder, own } = stage;
  const python = await pythonFor(stage.app, OWNER);
  if (python === undefined) return t.skip(`uid ${OWNER} can run no python3 (package python3)`);
  const fd = await stage.raise(true);
  const offload = await holder.call('mirror', fd);
  const tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
  assert.equal(offload & tcp, tcp, 'every kernel that vpnd runs on has it');
  for (const family of FAMILIES) {
    const { stdout } = await stage.app.run(python, ['-c', TRAFFIC, own[family], internet[family]], {
      uid: OWNER,
      timeoutMs: 60_000,
    });
    assert.deepEqual(JSON.parse(stdout), { tcp: true, udp: true }, family);
  }
  const seen = await holder.call('mirrored', fd);
  assert.deepEqual(seen?.refused, []);
  assert.ok((seen?.largest ?? 0) > 60_000, `the largest had ${seen?.largest} bytes`);
  const udp = (offload & (TUN_F_USO4 | TUN_F_USO6)) === 0 ? [] : [5];
  assert.deepEqual(seen?.types, [0, 1, 4, ...udp]);
  await stage.othersAreFine();
});

/** What no header that is right says, before a UDP packet of three segments to an IPv4 address. `refused`: by every kernel. */
function wrongHeaders(right: VnetHeader, bytes: number): [what: string, header: VnetHeader, isRefused?: 'refused'][] {
  const types = [1, 2, 3, 4, 6, 7, 0x7f, 0x80, 0x81, 0x84, 0x85, 0xff];
  return [
    ['segments of no bytes', { ...right, segmentBytes: 0 }, 'refused'],
    ['more than 128 segments', { ...right, segmentBytes: 1 }],
    ['GSO_BY_FRAGS', { ...right, segmentBytes: 0xffff }],
    ['segments longer than the packet', { ...right, segmentBytes: bytes + 1 }],
    ['a header longer than the packet', { ...right, headerLength: bytes + 1 }, 'refused'],
    ['a header of 64 KiB', { headerLength: 0xffff }, 'refused'],
    ['a header shorter than the real one', { ...right, headerLength: 1 }],
    ['a checksum from behind the packet on', { ...right, checksumStart: bytes }, 'refused'],
    ['a checksum from 64 KiB on', { ...right, checksumStart: 0xffff }, 'refused'],
    ['a checksum behind the packet', { ...right, checksumOffset: bytes }, 'refused'],
    ['a checksum 64 KiB on', { ...right, checksumOffset: 0xffff }, 'refused'],
    ['a checksum in place of the source address', { ...right, checksumStart: 0, checksumOffset: 12 }],
    ['the same, one packet', { flags: 1, checksumStart: 0, checksumOffset: 12 }],
    ['a checksum in place of the port', { ...right, checksumOffset: 2 }],
    ['segments without a checksum to be made', { ...right, flags: 0 }],
    ['unknown flags', { flags: 0xfc }],
    ['a checksum said to be right', { flags: 2 }],
    ["the other family's lengths", { ...right, headerLength: 48, checksumStart: 40 }],
    ...types.map((type): [string, VnetHeader] => [`type ${type}`, { ...right, type }]),
  ];
}

test('headers that are wrong harm nobody: refused, or the packet is delivered as it is', {
  timeout: 240_000,
}, async (t) => {
  const stage = await stageOf(t);
  if (!stage) return;
  const { holder, own, other } = stage;
  const taint = readFileSync(TAINTED, 'utf8');
  const listeners = (await Promise.all([OWNER, STRANGER, OTHER_OWNER, ROOT].map(stage.listen))).flat();
  const [mine] = listeners;
  assert.ok(mine?.uid === OWNER && mine.family === 'ipv4');
  const fd = await stage.raise(true);
  const write = (...parts: Buffer[]) => holder.call('write', fd, Buffer.concat(parts).toString('hex'));
  const departures = await captureDepartures(stage.app);
  const entered = await stage.app.capture('vpn-tun0');

  const segment = 'segment '.padEnd(SEGMENT_BYTES, '.');
  const flow = { source: internet.ipv4, destination: own.ipv4, sourcePort: 7, destinationPort: mine.port };
  const packet = unfinishedUdpPacket(flow, segment.repeat(3));
  const right = udpSuperHeader(flow, SEGMENT_BYTES);
  const said: string[] = [];
  for (const [what, header, isRefused] of wrongHeaders(right, packet.length)) {
    const answer = await write(vnetHeader(header), packet);
    assert.ok(answer === 'EINVAL' || (answer === 'ok' && !isRefused), `${what}: ${answer}`);
    said.push(`${what}: ${answer}`);
  }
  t.diagnostic(said.join(', '));
  const cut = [vnetHeader().subarray(0, 5), vnetHeader(), Buffer.concat([vnetHeader(right), packet.subarray(0, 27)])];
  for (const bytes of cut) assert.equal(await write(bytes), 'EINVAL');
  await write(vnetHeader(), Buffer.from([0x45]));
  // The largest packet there is, and what claims to be one and goes on behind its end.
  const largest = unfinishedUdpPacket(flow, segment.repeat(55).slice(0, 65_507));
  for (const more of [0, 70_000, 1 << 20]) {
    assert.match(await write(vnetHeader(right), largest, Buffer.alloc(more)), /^(ok|EINVAL)$/);
  }

  // Asked before the random headers, which may cut a packet of his own anywhere.
  assert.deepEqual(
    (await heardBy(mine)).filter((word) => word !== 'segment'),
    [],
  );
  const places = [own, app, LOOPBACK, LAN, server, other];
  const packets = listeners.flatMap(({ family, port }) =>
    places.flatMap((place) => {
      const to = { source: internet[family], destination: place[family], sourcePort: 7, destinationPort: port };
      return [udpPacket(to, segment.repeat(3)), tcpPacket(to, 0x10, segment.repeat(3)), tcpPacket(to, 0x92, segment)];
    }),
  );
  const seed = Number(process.env.VPN_FUZZ_SEED ?? Date.now() & 0x7fffffff);
  const limits = { seed, count: 20_000, timeMs: 15_000 };
  const answers = await holder.call(
    'writeAnyHeaders',
    fd,
    packets.map((each) => each.toString('hex')),
    limits,
  );
  t.diagnostic(`VPN_FUZZ_SEED=${seed} ${JSON.stringify(answers)}`);
  assert.deepEqual(Object.keys(answers).sort(), ['EINVAL', 'ok']);

  // Its own traffic goes on, after whatever its own socket has taken.
  await eventually('the holder receives', async () => {
    assert.equal(
      await write(vnetHeader(right), unfinishedUdpPacket(flow, 'last '.padEnd(SEGMENT_BYTES, '.').repeat(3))),
      'ok',
    );
    return (await heardBy(mine)).includes('last') || undefined;
  });
  for (const listener of listeners.filter(({ uid }) => uid !== OWNER)) assert.deepEqual(await heardBy(listener), []);
  assert.deepEqual(await departures.stop(), []);
  assert.deepEqual(await entered.stop(), []);
  await stage.othersAreFine();
  assert.equal(readFileSync(TAINTED, 'utf8'), taint, 'the kernel has warned of nothing');
});

const TUN = {
  SETIFF: 0x400454ca,
  SETPERSIST: 0x400454cb,
  SETOWNER: 0x400454cc,
  SETLINK: 0x400454cd,
  SETGROUP: 0x400454ce,
  SETOFFLOAD: 0x400454d0,
  SETSNDBUF: 0x400454d4,
  SETVNETHDRSZ: 0x400454d8,
  SETVNETLE: 0x400454dc,
  SETVNETBE: 0x400454de,
  SETCARRIER: 0x400454e2,
  GETDEVNETNS: 0x54e3,
};

test('what a holder can set of the TUN is his own affair', { timeout: 240_000 }, async (t) => {
  const stage = await stageOf(t);
  if (!stage) return;
  const { holder, own } = stage;
  const [mine] = await stage.listen(OWNER);
  assert.ok(mine);
  const before = await canonicalState(stage.app);
  for (const offload of [true, false]) {
    const fd: number = await stage.raise(offload);
    const ioctl = (request: number, argument: number | { int: number } | { hex: string }): Promise<string> =>
      holder.call('ioctl', fd, request, argument);
    const tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    for (const flags of [tcp, 0, tcp]) assert.equal(await ioctl(TUN.SETOFFLOAD, flags), 'ok', 'no right is needed');
    assert.equal(await ioctl(TUN.SETOFFLOAD, 0x4000_0000), 'EINVAL');
    for (const int of [-1, 0, 9]) assert.equal(await ioctl(TUN.SETVNETHDRSZ, { int }), 'EINVAL');
    for (const int of [12, 65_536, 2 ** 31 - 1]) {
      assert.equal(await ioctl(TUN.SETVNETHDRSZ, { int }), 'ok');
      await stage.app.run('ping', ['-c1', '-W0.1', internet.ipv4], { uid: OWNER, check: false });
      await holder.call('write', fd, Buffer.concat([vnetHeader(), Buffer.alloc(2000)]).toString('hex'));
    }
    assert.equal(await ioctl(TUN.SETVNETHDRSZ, { int: 10 }), 'ok');
    const numbers: [number, number][] = [
      [TUN.SETVNETLE, 1],
      [TUN.SETVNETBE, 1],
      [TUN.SETSNDBUF, 1],
      [TUN.SETSNDBUF, 2 ** 31 - 1],
      [TUN.SETCARRIER, 0],
      [TUN.SETCARRIER, 1],
    ];
    for (const [request, int] of numbers) assert.match(await ioctl(request, { int }), /^(ok|EINVAL)$/);
    for (const request of [TUN.SETOWNER, TUN.SETGROUP]) assert.equal(await ioctl(request, OWNER), 'ok');
    assert.equal(await ioctl(TUN.SETPERSIST, 1), 'ok');
    assert.equal(await ioctl(TUN.SETLINK, 1), 'EBUSY', 'it is up');
    assert.equal(await ioctl(TUN.GETDEVNETNS, 0), 'EPERM');
    // Nobody gives a descriptor another form, or gets one of another form of the same device.
    const plain = Buffer.alloc(40);
    plain.write('vpn-tun1', 0, 'latin1');
    plain.writeUInt16LE(0x1001, 16);
    assert.equal(await ioctl(TUN.SETIFF, { hex: plain.toString('hex') }), 'EEXIST');
    assert.notEqual(await holder.call('attach', 'vpn-tun1'), 'ok');

    await stage.othersAreFine();
    const flow = { source: internet.ipv4, destination: own.ipv4, sourcePort: 7, destinationPort: mine.port };
    const tag = `after-${offload}`;
    const bytes = Buffer.concat([...(offload ? [vnetHeader()] : []), udpPacket(flow, `${tag} `)]);
    assert.equal(await holder.call('write', fd, bytes.toString('hex')), 'ok');
    await eventually('its own traffic', async () => (await heardBy(mine)).includes(tag) || undefined);
    await holder.call('destroy');
    assert.deepEqual(diffState(before, await canonicalState(stage.app)), []);
    await holder.call('close', fd);
  }
});

test('packets() refuses a TUN with the header, and what it says tells why', { timeout: 180_000 }, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const owner = await lab.process(OWNER);
  const fd = await owner.call('setUp', vpnConfig(['10.9.0.2/24']), true);
  await assert.rejects(owner.call('forward', fd, server.ipv4, 9), /is a TUN with offload \(IFF_VNET_HDR\)/);
  await owner.call('destroy');
});

/** What tun-offload.ts says of a TUN of each form, of one that is gone, and of what is none. */
const PROGRAM = `
  import { closeSync, openSync } from 'node:fs';
  import { openTun } from '/run/repo/dist/src/kernel/tun.js';
  import * as offload from '/run/repo/dist/src/kernel/tun-offload.js';
  import { libc } from '/run/repo/dist/src/kernel/ffi.js';
  const size = Buffer.alloc(4);
  size.writeInt32LE(12);
  for (const vnetHeader of [true, false]) {
    const { fd } = openTun('tun77', { vnetHeader });
    libc.ioctl(fd, 0x400454d8, size);
    const before = offload.vnetHeaderBytes(fd);
    const on = offload.probeOffload(fd);
    const unknown = offload.setOffload(fd, 0x40000000);
    console.log(JSON.stringify([offload.vnetHeaderOf(fd), before, on & 7, offload.vnetHeaderBytes(fd), unknown]));
    closeSync(fd);
  }
  const unattached = openSync('/dev/net/tun', 'r+');
  console.log(JSON.stringify([0, unattached, -1].map(offload.vnetHeaderOf)));
  try { offload.setOffload(unattached, 0) } catch (error) { console.log(error.message) }
`;

test('probeOffload() turns on what there is and makes the header ten bytes long; a TUN without one is left alone', {
  timeout: 180_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const lab = await Lab.create();
  t.after(() => lab.close());
  const { stdout } = await (await lab.host('one')).node('--input-type=module', ['-e', PROGRAM]);
  const lines = stdout.trimEnd().split('\n');
  assert.deepEqual(lines.slice(0, 3), ['[true,12,7,10,false]', '[false,12,0,12,false]', '[false,false,false]']);
  assert.match(lines[3] ?? '', /^TUNSETOFFLOAD fd \d+: EBADFD$/);
});
