/**
 * Files of providers and of other programs, brought up as they are (vpnctl-lab.ts): without a key of their own, with blanks, with
 * marks, and with the kill switch of the providers' examples, which asks wg(8) for the mark of the tunnel's socket.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { captureDepartures, kinds } from './lib/departures.js';
import { EVERYWHERE, pathOf } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { PROGRAMS, peerEnvironment } from './lib/unpacked-peers.js';
import { eventually } from './lib/vpn-lab.js';
import { INSIDE, officeConf, userOf, vpnctlLab, WG_PORT } from './lib/vpnctl-lab.js';
import { showWireGuard, wg } from './lib/wireguard-go.js';

const TIMEOUT = { timeout: 180_000 };
const TUNNELLED = pathOf('server', INSIDE.client);
const LINK = 'vpn-tun0';
const BYPASS = 0x80000000;
/** As the file of a machine where it is installed would say it. */
const WG = `LD_LIBRARY_PATH=${peerEnvironment().LD_LIBRARY_PATH} ${PROGRAMS.wg}`;

test('no key in the file, but a command that sets one: silent, and then all of it', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const root = userOf(lab, 0);
  const key = root.write('office.key', `${lab.keys.privateKey}\n`);
  const keyless = officeConf(lab, { interface: [`PostUp = sleep 1; ${WG} set %i private-key ${key}`] });
  const path = root.write('office.conf', keyless.replace(/^PrivateKey.*\n/m, ''));
  const refused = await root.vpnctl('up', path);
  assert.deepEqual([refused.status, refused.stdout], [78, '']);
  assert.match(refused.stderr, /PostUp runs a command, .* use --allow-hooks/);

  const { status, stderr } = await root.vpnctl('up', '--allow-hooks', path);
  assert.equal(status, 0, stderr);
  const user = await lab.process(2001);
  await eventually('all goes through the tunnel', async () => {
    const answers = await user.call('ask', ...EVERYWHERE);
    return JSON.stringify(answers) === JSON.stringify(TUNNELLED) || undefined;
  });
  assert.equal((await showWireGuard(lab.app, LINK)).privateKey, lab.keys.privateKey);
  assert.equal((await root.vpnctl('down')).status, 0);

  // A command that sets none: nothing is sent to the peer.
  const silent = root.write(
    'silent.conf',
    keyless.replace(/^PrivateKey.*\n/m, '').replace(/PostUp.*/, 'PostUp = true'),
  );
  const departures = await captureDepartures(lab.app);
  assert.equal((await root.vpnctl('up', '--allow-hooks', silent)).status, 0);
  await user.call('ask', ...EVERYWHERE);
  const sent = kinds(await departures.stop()).filter((line) => line.includes(`:${WG_PORT}`));
  assert.deepEqual(sent, []);
  assert.equal((await root.vpnctl('down')).status, 0);
});

for (const uid of [0, 2001]) {
  test(
    `uid ${uid}: wg show tells the mark of the socket, and a kill switch made of it lets the tunnel pass`,
    TIMEOUT,
    async (t) => {
      const lab = await vpnctlLab(t);
      if (!lab) return;
      await lab.app.run('sh', [
        '-c',
        'mkdir -p /run/wireguard; chown 0:2001 /run/wireguard; chmod 1770 /run/wireguard',
      ]);
      const user = userOf(lab, uid);
      const own = ['FwMark = 0xca6c', 'MTU =', 'PreUp =', 'Table =', 'DNS ='];
      const path = user.write('office.conf', officeConf(lab, { interface: own }).replace('[Peer]', '[ Peer ]'));
      const { status, stdout, stderr } = await user.vpnctl('up', path);
      assert.equal(status, 0, stderr);
      assert.match(stdout, /: up, log in/);
      assert.match(stderr, /^vpnctl: \S+office\.conf:5: warning: FwMark is not used: [^\n]+\n$/);
      assert.equal((await showWireGuard(lab.app, LINK)).fwmark, BYPASS);
      const mark = (await wg(lab.app, ['show', LINK, 'fwmark'])).trim();
      const rules = `table inet killswitch {
      chain out { type filter hook output priority 0; oifname != "${LINK}" meta mark != ${mark} fib daddr type != local drop; }
    }`;
      await lab.app.run('nft', ['-f', '-'], { input: rules });
      const app = await lab.process(uid);
      assert.deepEqual(await app.call('ask', ...EVERYWHERE), TUNNELLED);
      await wg(lab.app, ['set', LINK, 'listen-port', '4444', 'fwmark', mark]);
      assert.deepEqual(await app.call('ask', ...EVERYWHERE), TUNNELLED);
      assert.equal((await lab.wireguard.show()).peers[0]?.endpoint, `${ADDRESSES.app.ipv4}:4444`);
      const words = ['set', LINK, 'fwmark', '51820'];
      const other = await lab.app.run(PROGRAMS.wg, words, { env: peerEnvironment(), check: false });
      assert.match(other.stderr, /Operation not supported/);
      assert.equal((await user.vpnctl('down')).status, 0);
    },
  );
}

test(
  'a list of 15,000 networks: as many routes as are left of it, and wg(8) shows what was configured',
  TIMEOUT,
  async (t) => {
    const lab = await vpnctlLab(t);
    if (!lab) return;
    const root = userOf(lab, 0);
    // Seven of eight neighbours each, so three routes for seven networks.
    const networks = Array.from({ length: 15_001 }, (_, index) => {
      const n = Math.floor((index * 8) / 7);
      return `${20 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}.0/24`;
    });
    const lines = [...networks, `${ADDRESSES.internet.ipv4}/32`].map((each) => `AllowedIPs = ${each}`);
    const path = root.write('office.conf', officeConf(lab).replace('AllowedIPs = 0.0.0.0/0, ::/0', lines.join('\n')));
    const { status, stderr } = await root.vpnctl('up', path);
    assert.equal(status, 0, stderr);
    const { stdout } = await lab.app.run('ip', ['-j', '-4', 'route', 'show', 'table', 'all', 'dev', LINK]);
    const routes = (JSON.parse(stdout) as { dst: string }[]).filter(({ dst }) => /^2\d\.\d+\.\d+\.0\//.test(dst));
    assert.equal(routes.length, (networks.length / 7) * 3);
    assert.deepEqual((await showWireGuard(lab.app, LINK)).peers[0]?.allowedIps.length, lines.length);
    const app = await lab.process(2001);
    const [answer] = await app.call('ask', { transport: 'udp', address: ADDRESSES.internet.ipv4 });
    assert.equal(answer, `server ${INSIDE.client.ipv4}`);
    assert.equal((await root.vpnctl('down')).status, 0);
  },
);
