/**
 * `npm run bench:tunnel`: this tunnel beside wireguard-go, OpenVPN and a plain cable, between two hosts made of namespaces, all
 * alive at once and measured in turns. As root. It judges nothing by its exit status.
 *
 *   tunnel.js [PART...] [KIND...] [rounds=7] [seconds=3]
 *
 * Parts: tcp udp latency idle flood. Kinds: veth wireguard-go openvpn this this-1420. Default: all of them. `profile=FOLDER` has V8
 * write a log of ticks there for each thread of this tunnel's ends; of the two of a process the larger is the tunnel's thread:
 * `node --prof-process FILE`.
 */
import { availableParallelism, release } from 'node:os';
import { resolve } from 'node:path';
import { Lab } from '../test/lab/lib/lab.js';
import { EX_UNAVAILABLE, whyNoLab } from '../test/lab/lib/prerequisites.js';
import { whyNoPeers } from '../test/lab/lib/unpacked-peers.js';
import { printTable, printWantedAtLeast } from './lib/table.js';
import { FLOOD_DATAGRAMS, floods } from './lib/tunnel-flood.js';
import { idleUse } from './lib/tunnel-idle.js';
import { buildTunnels, KINDS, type Kind } from './lib/tunnel-kinds.js';
import { idleLatency, loadedLatency } from './lib/tunnel-latency.js';
import { printLatency, printThroughput, printUse } from './lib/tunnel-report.js';
import { type Load, throughput } from './lib/tunnel-throughput.js';

const PARTS = ['tcp', 'udp', 'latency', 'idle', 'flood'] as const;
const EX_USAGE = 64;
const IDLE_SECONDS = 10;

const words = process.argv.slice(2);
const settings = { rounds: 7, seconds: 3, profile: '' };
const asked = words.filter((word) => !word.includes('='));
for (const word of words.filter((each) => each.includes('='))) set(word);
const unknown = asked.filter((word) => ![...PARTS, ...KINDS].includes(word as never));
if (unknown.length > 0) leave(EX_USAGE, `not a part (${PARTS.join(' ')}) or kind (${KINDS.join(' ')}): ${unknown}`);
const chosen = <Word extends string>(all: readonly Word[]) => {
  const some = all.filter((word) => asked.includes(word));
  return some.length === 0 ? all : some;
};
const [parts, kinds] = [chosen(PARTS), chosen<Kind>(KINDS)];
const reason = whyNoLab() ?? whyNoPeers();
if (reason !== undefined) leave(EX_UNAVAILABLE, reason);

const { rounds, seconds, profile } = settings;
const lab = await Lab.create({ lifetimeSeconds: 3600 });
try {
  const tunnels = await buildTunnels(
    lab,
    kinds,
    profile === '' ? [] : ['--prof', `--logfile=${resolve(profile)}/%p.log`],
  );
  console.log(
    `Linux ${release()}, Node ${process.version}, ${availableParallelism()} cores; medians of ${rounds} interleaved rounds, ratios are medians of theirs`,
  );
  const loads: Load[] = [];
  if (parts.includes('tcp')) loads.push('TCP, 1 stream', 'TCP, 4 streams');
  if (parts.includes('udp')) loads.push('UDP, 1372 bytes');
  // The first seconds of a program that is compiled while it runs are no measure.
  if (loads.length > 0) await throughput(tunnels, 'TCP, 1 stream', 1, 2);
  for (const load of loads) printThroughput(load, await throughput(tunnels, load, rounds, seconds));
  if (parts.includes('latency')) {
    printLatency('idle', await idleLatency(tunnels, rounds, 2));
    printLatency('beside a TCP stream', await loadedLatency(tunnels, rounds, seconds));
  }
  const use = parts.includes('idle') ? await idleUse(tunnels, IDLE_SECONDS) : [];
  printUse(tunnels, use, IDLE_SECONDS);
  await Promise.all(tunnels.map(({ stop }) => stop()));
} finally {
  await lab.close();
}
if (parts.includes('flood')) {
  const results = await floods(rounds, seconds);
  printTable(
    `TCP from wireguard-go to this tunnel, Gbit/s, beside ${FLOOD_DATAGRAMS} datagrams in ${seconds} s`,
    ['', 'without', 'with', 'with/without'],
    results.map(({ what, quiet, flooded, ratio }) => [what, quiet.toFixed(2), flooded.toFixed(2), ratio.toFixed(2)]),
  );
  for (const { what, ratio } of results) printWantedAtLeast(`beside ${what}`, ratio, 0.5);
}

function set(word: string): void {
  const [name = '', value = ''] = word.split('=', 2);
  if (name === 'profile' && value !== '') settings.profile = value;
  else if ((name === 'rounds' || name === 'seconds') && /^[1-9]\d{0,3}$/.test(value)) settings[name] = Number(value);
  else leave(EX_USAGE, `not understood: ${word}`);
}

function leave(status: number, sentence: string): never {
  console.error(sentence);
  process.exit(status);
}
