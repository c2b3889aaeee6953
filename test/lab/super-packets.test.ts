/**
 * The locks judge super-packets as they judge packets: one UDP_SEGMENT send of forty datagrams is one packet to every hook, on a
 * vNIC whose holder takes such packets whole and on a physical link.
 *
 *   uid 2001 ── vpn-tun0 10.9.0.2, fd09::2 ── the holder: a mirror that counts
 *   uid 2002, without a VPN ── eth0 192.0.2.2 ── router ── server
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TUN_F_USO4 } from '../../src/kernel/tun-offload.js';
import { captureDepartures, kinds } from './lib/departures.js';
import { requireRoot } from './lib/prerequisites.js';
import { pythonFor } from './lib/python.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, vpnLab } from './lib/vpn-lab.js';

const [OWNER, STRANGER] = [2001, 2002];
const FAMILIES = ['ipv4', 'ipv6'] as const;
const VNIC = { ipv4: '10.9.0.2', ipv6: 'fd09::2' };
const { app, server } = ADDRESSES;

/** $1: where to; $2: a device to bind to, or nothing; $3: an address to bind to, or nothing. Says `sent` or the errno. */
const SEND = `
import errno, socket, sys
to, device, source = sys.argv[1:]
SOL_UDP, UDP_SEGMENT, SO_BINDTODEVICE = 17, 103, 25
udp = socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(SOL_UDP, UDP_SEGMENT, 1200)
try:
    if device: udp.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, device.encode())
    if source: udp.bind((source, 0))
    udp.sendto(bytes(48000), (to, 9))
    print('sent')
except OSError as error: print(errno.errorcode[error.errno])
`;

test('super-packets of sockets that pass the rules by go nowhere', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const python = await pythonFor(lab.app, STRANGER);
  if (python === undefined) return t.skip(`uid ${STRANGER} can run no python3 (package python3)`);
  const send = async (uid: number, to: string, { device = '', source = '' } = {}) =>
    (await lab.app.run(python, ['-c', SEND, to, device, source], { uid })).stdout.trim();
  const holder = await lab.process(OWNER);
  const fd = await holder.call('setUp', vpnConfig([`${VNIC.ipv4}/24`, `${VNIC.ipv6}/64`]), true);
  const offload = await holder.call('mirror', fd);
  const carried = async () => (await holder.call('mirrored', fd))?.packets ?? 0;

  const departures = await captureDepartures(lab.app);
  for (const family of FAMILIES) {
    const [to, physical, vnic] = [server[family], app[family], VNIC[family]];
    for (const way of [{ device: 'eth0' }, { source: physical }, { device: 'eth0', source: physical }]) {
      await send(OWNER, to, way);
    }
    for (const way of [{ device: 'vpn-tun0' }, { source: vnic }, { device: 'vpn-tun0', source: vnic }]) {
      await send(STRANGER, to, way);
    }
    await send(STRANGER, vnic);
  }
  assert.deepEqual(await departures.peek(), []);
  assert.equal(await carried(), 0);

  // The same sends by those who may: whole into the tunnel, and out.
  for (const family of FAMILIES) {
    for (const uid of [OWNER, STRANGER]) assert.equal(await send(uid, server[family]), 'sent', `${uid} ${family}`);
  }
  const left = await departures.stop();
  assert.deepEqual(
    kinds(left),
    FAMILIES.map((family) => `udp ${app[family]} > ${server[family]}:9`),
  );
  // What is still in the TUN would go with it: each family's send is one packet, or the segments of it.
  await eventually('the holder has read', async () => (await carried()) >= FAMILIES.length || undefined);
  await holder.call('destroy');
  const seen = await holder.call('mirrored', fd);
  if ((offload & TUN_F_USO4) === 0) return;
  assert.ok(seen?.types.includes(5), 'as one packet');
  assert.ok((seen?.largest ?? 0) > 48_000, `the largest had ${seen?.largest} bytes`);
});
