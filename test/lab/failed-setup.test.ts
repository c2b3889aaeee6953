/**
 * A setUp that fails late, when programs already use the VPN: it is taken down like one that stood, and nothing with its addresses
 * leaves by another link.
 *
 *   app   resolvconf waits, then fails         vpn-tunN ══ exit2
 *    └─ eth0                                   captured from the beginning
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dnsLab, dnsOf } from './lib/dns-lab.js';
import { describePacket } from './lib/leak-check.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
/** Bound to the vNIC's address, which an IPv4 socket cannot use when the VPN is gone. Says when it is; ends by itself. */
const SENDER = `
import os, socket, sys, time
os.setresuid(2002, 2002, 2002)
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.bind((sys.argv[1], 0))
print("sending", flush=True)
end = time.monotonic() + 60
refused = 0
while time.monotonic() < end and refused < 500:
    try:
        made.sendto(b"covered", (sys.argv[2], 7))
        refused = 0
    except OSError:
        refused += 1
    time.sleep(0.0002)
print("refused", flush=True)
`;
/** Holds setUp until the test says so, at most 12 of the 15 s that a resolvconf has. */
const BROKEN = 'for i in $(seq 120); do [ -e /run/go-on ] && break; sleep 0.1; done; echo broken >&2; exit 3';

test('a setUp that fails when its vNIC is in use lets nothing out with its addresses', {
  timeout: 180_000,
}, async (t) => {
  const lab = await dnsLab(t, 'openresolv');
  if (!lab) return;
  const exit = exitOf(lab, 2);
  await lab.app.run('sh', ['-c', 'cat > /usr/lib/resolvconf/zzbroken'], { input: `${BROKEN}\n` });
  const root = await lab.process(0);
  const failing = root.call('setUp', vpnConfig(exit.vnic, dnsOf(exit)));
  failing.catch(() => undefined);
  await eventually('the vNIC is in use', async () => {
    const { stdout } = await lab.app.run('ip', ['route', 'get', internet.ipv4, 'uid', '2002']);
    return stdout.includes(exit.client.ipv4) || undefined;
  });
  const sender = lab.app.spawn('python3', ['-SE', '-c', SENDER, exit.client.ipv4, internet.ipv4]);
  await sender.waitFor(/^sending$/m);
  await lab.app.run('touch', ['/run/go-on']);
  await assert.rejects(failing, { code: 2200003 });
  await sender.waitFor(/^refused$/m);
  const own = new Set<string>(Object.values(exit.client));
  const left = (await lab.departed()).filter(({ source }) => own.has(source));
  assert.deepEqual([...new Set(left.map(describePacket))], []);
});
