/**
 * `npm run demo [-- --keep]`: an unprivileged app gets a VPN from the service, in a lab of namespaces; nothing of the
 * machine's own network is touched. Topology: screen.ts. Exit 0 when every claim held, 1 when one did not, 69 when no lab
 * can be built here. `--keep` leaves it standing until Ctrl-C.
 */
import { once } from 'node:events';
import { canonicalState, diffState } from '../lab/lib/canonical-state.js';
import type { Capture } from '../lab/lib/capture.js';
import type { LabHost } from '../lab/lib/host.js';
import { startPeer, startTunnelPeer } from '../lab/lib/peers.js';
import { EX_UNAVAILABLE, enterCommand, reexecInUserNamespace, whyNoLab } from '../lab/lib/prerequisites.js';
import type { LabProcess } from '../lab/lib/process.js';
import { ADDRESSES, type StandardLab, standardLab } from '../lab/lib/standard-lab.js';
import { startVpnd, type Vpnd } from '../lab/lib/vpnd.js';
import { claim, describe, heading, indent, sortDepartures, TOPOLOGY, TUNNEL } from './screen.js';

const UID = 2001;
const MEGABYTES = 10;
const POLICY = { callers: [{ match: { uid: UID }, system: true, permissions: ['ohos.permission.MANAGE_VPN'] }] };

let failures = 0;
const keep = process.argv.includes('--keep');

reexecInUserNamespace();
const obstacle = whyNoLab();
if (obstacle !== undefined) {
  console.error(obstacle);
  process.exit(EX_UNAVAILABLE);
}
const leave = () => process.exit(130);
process.on('SIGINT', leave);
const started = performance.now();
const standard = await standardLab({ lifetimeSeconds: keep ? 8 * 3600 : 300 });
try {
  await demonstrate(standard);
} catch (error) {
  failures++;
  console.error(error);
} finally {
  await standard.lab.close();
}
process.exitCode = failures === 0 ? 0 : 1;

async function demonstrate({ app, router, server }: StandardLab): Promise<void> {
  const hosts = [app, router, server];
  const builtMs = performance.now() - started;
  const before = await Promise.all(hosts.map(canonicalState));
  console.log(`${heading('topology: three hosts, each a network namespace')}\n${TOPOLOGY}`);

  const peers = await Promise.all([
    startTunnelPeer(server, { port: TUNNEL.port, device: 'tun0', addresses: TUNNEL.server }),
    startPeer(server, { kind: 'http', port: 80 }),
  ]);
  const vpndStart = performance.now();
  const vpnd = await startVpnd(app, { policy: POLICY });
  const vpndMs = performance.now() - vpndStart;
  const hardware = (await app.json('ip', ['-j', 'link', 'show', 'eth0']))[0]?.address;
  const capture = await app.capture('eth0', ['ether', 'src', String(hardware)]);

  const program = app.spawnNode(
    'dist/examples/tunnel-app.js',
    [ADDRESSES.server.ipv4, String(TUNNEL.port), ...TUNNEL.app],
    { uid: UID, env: { VPND_SOCKET: vpnd.socket } },
  );
  try {
    await program.waitFor(/^forwarding/m, 60_000);
    const { stdout: rules } = await app.run('ip', ['rule', 'show']);
    const { stdout: rules6 } = await app.run('ip', ['-6', 'rule', 'show']);
    const count6 = rules6.trimEnd().split('\n').length;
    console.log(
      `${heading(`app: ip rule (and ${count6} like them for IPv6), user ${UID} has a VPN`)}\n${indent(rules)}`,
    );
    console.log(heading(`user ${UID} uses it`));
    await useTunnel(app);
    if (keep) {
      await showDepartures(capture);
      await stand(app, vpnd);
    }
    const { status, stderr } = await program.kill('SIGTERM');
    check(status === 0, 'the app destroyed its VPN and ended', `exit ${status} ${status === 0 ? '' : stderr.trim()}`);
    if (!keep) await showDepartures(capture);
  } catch (error) {
    console.error(`the app said:\n${program.stdout}${program.stderr}\nvpnd said:\n${vpnd.log()}`);
    throw error;
  }
  await stopAll(vpnd, peers);
  await compare(hosts, before);
  const steps = program.stdout.match(/^(protect|setUp|destroy) .*/gm) ?? [];
  console.log(heading('timings'));
  console.log(`  lab ${builtMs.toFixed(0)} ms · vpnd ready ${vpndMs.toFixed(0)} ms · ${steps.join(' · ')}`);
  console.log(
    `  ${failures === 0 ? 'everything held' : `${failures} failed`}, ${((performance.now() - started) / 1000).toFixed(1)} s`,
  );
}

async function useTunnel(app: LabHost): Promise<void> {
  for (const target of [ADDRESSES.internet.ipv4, ADDRESSES.internet.ipv6]) {
    const options = { uid: UID, check: false };
    const { stdout } = await app.run('ping', ['-c3', '-i0.2', '-W10', '-q', target], options);
    const [, received, rtt] = /(\d+) received[\s\S]*? = [\d.]+\/([\d.]+)/.exec(stdout) ?? [];
    check(received === '3', `ping ${target}`, received === '3' ? `3 of 3 answered, ${rtt} ms` : stdout.trim());
  }
  const url = `http://${ADDRESSES.internet.ipv4}/${MEGABYTES * 1e6}`;
  const { stdout, stderr } = await app.node('dist/test/demo/download.js', [url], {
    uid: UID,
    check: false,
    timeoutMs: 60_000,
  });
  const { bytes, ms, client } = JSON.parse(stdout || '{}') as { bytes?: number; ms?: number; client?: string };
  const speed = `${((bytes ?? 0) / 1e3 / (ms ?? 1)).toFixed(0)} MB/s`;
  const whole = bytes === MEGABYTES * 1e6 && client === '10.9.0.2';
  check(whole, `${MEGABYTES} MB of HTTP from ${ADDRESSES.internet.ipv4}`, `${speed}, seen as ${client} ${stderr}`);
}

async function showDepartures(capture: Capture): Promise<void> {
  const left = sortDepartures(await capture.stop());
  const bytes = left.tunnel.reduce((sum, packet) => sum + packet.length, 0);
  const evidence = `${left.tunnel.length} (${(bytes / 1e6).toFixed(1)} MB), ${left.link.length} ARP/ND, ${left.others.length} others`;
  check(left.others.length === 0 && left.tunnel.length > 0, 'only protected tunnel datagrams left by eth0', evidence);
  for (const packet of left.others.slice(0, 5)) console.log(`       ${describe(packet)}`);
}

async function stopAll(vpnd: Vpnd, peers: readonly LabProcess[]): Promise<void> {
  const { status } = await vpnd.stop();
  check(status === 0, 'vpnd ended on SIGTERM', `exit ${status}`);
  await Promise.all(peers.map((peer) => peer.kill()));
}

async function compare(hosts: readonly LabHost[], before: readonly string[]): Promise<void> {
  const differences = await Promise.all(
    hosts.map(async (host, index) => diffState(before[index] ?? '', await settledState(host, before[index] ?? ''))),
  );
  const lines = before.reduce((sum, text) => sum + text.split('\n').length, 0);
  check(
    differences.every((each) => each.length === 0),
    'every host is as it was before',
    `${lines} lines of links, routes, rules, nft, sysctls, DNS`,
  );
  hosts.forEach((host, index) => {
    for (const line of differences[index]?.slice(0, 5) ?? []) console.log(`       ${host.name}: ${line.slice(0, 85)}`);
  });
}

/** The kernel removes the link of a closed TUN a moment after its process has ended. */
async function settledState(host: LabHost, expected: string): Promise<string> {
  for (let round = 1; ; round++) {
    const state = await canonicalState(host);
    if (state === expected || round === 100) return state;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function stand(app: LabHost, vpnd: Vpnd): Promise<void> {
  console.log(heading('it stands until Ctrl-C; to look around, as root'));
  console.log(`  ${enterCommand(app.pid)} ip rule`);
  console.log(`  ${enterCommand(app.pid)} setpriv --reuid=${UID} --clear-groups ping ${ADDRESSES.internet.ipv4}`);
  console.log(`  export VPND_SOCKET=${vpnd.socket}`);
  process.off('SIGINT', leave);
  // A timer keeps the process, because waiting for a signal does not.
  const timer = setInterval(() => {}, 60_000);
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
  clearInterval(timer);
}

function check(holds: boolean, text: string, evidence: string): void {
  if (!holds) failures++;
  console.log(claim(holds, text, evidence.trim()));
}
