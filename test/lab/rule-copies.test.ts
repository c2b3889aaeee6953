/**
 * Copies of the machine's own rules for protected sockets and answers, as `ip rule` prints them: each selects what the one it is of
 * selects, of packets with the bypass bit; what cannot be copied exactly is left out and named in the log.
 *
 *   app  eth0 ── router        table 200: by eth0; 201: by wild0, a tunnel; 202: by both; 203: empty
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canonicalState } from './lib/canonical-state.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, settledState, type VpnLab, vpnLab } from './lib/vpn-lab.js';

const TIMEOUT = { timeout: 180_000 };
const PLACES = { before: [10002, 10004], behind: [10012, 10014] };
const BYPASS = 0x80000000;

type Listed = Record<string, unknown> & { priority: number; fwmark?: string; fwmask?: string; protocol?: string };

async function listed(lab: VpnLab, family: string): Promise<Listed[]> {
  return lab.app.json<Listed[]>('ip', [family, '-j', '-d', 'rule', 'list']);
}

/** What a rule says besides its place and whose it is, with the bypass bit as copies have it. */
function meant({ priority: _, protocol: __, fwmark = '0', fwmask, ...rest }: Listed, isCopy: boolean): string {
  const value = Number(fwmark);
  const mask = fwmask === undefined ? (value === 0 ? 0 : 0xffffffff) : Number(fwmask);
  const theirs = isCopy ? [value, mask] : [(value & 0xffffff) + BYPASS, ((mask & 0xffffff) >>> 0) + BYPASS];
  return JSON.stringify([rest, theirs]);
}

async function isCopied(lab: VpnLab, family: string, place: keyof typeof PLACES, priorities: number[], what: string) {
  const wanted = priorities.join();
  let last: [string[], string[]] = [[], []];
  const isSo = async () => {
    const rules = await listed(lab, family);
    const of = priorities.map((priority) => rules.find((rule) => rule.priority === priority));
    const copies = rules.filter(({ priority }) => PLACES[place].includes(priority));
    last = [copies.map((rule) => meant(rule, true)), of.map((rule) => (rule ? meant(rule, false) : 'gone'))];
    return last[0].join() === last[1].join() || undefined;
  };
  await eventually(`${what}: ${wanted}`, isSo, 15_000).catch(() => assert.deepEqual(last[0], last[1], what));
}

async function ip(lab: VpnLab, families: string[], ...commands: string[]): Promise<void> {
  for (const family of families) {
    for (const command of commands) await lab.app.run('ip', [family, ...command.split(' ')]);
  }
}

const BOTH = ['-4', '-6'];

test('a copy selects what its rule does; what cannot be copied is named', TIMEOUT, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const { app } = lab;
  await app.ip('tuntap add wild0 mode tun', 'address add 10.77.0.2/24 dev wild0', 'link set wild0 up');
  const gateway = { '-4': '192.0.2.1', '-6': '2001:db8:1::1' };
  for (const [family, via] of Object.entries(gateway)) {
    await ip(
      lab,
      [family],
      `route add default via ${via} dev eth0 table 200`,
      'route add default dev wild0 table 201',
      `route add default via ${via} dev eth0 table 202`,
      `route add ${family === '-4' ? '10.99.0.0/16' : 'fd99::/16'} dev wild0 table 202`,
    );
  }
  const process = await lab.process(2001);
  const before = await canonicalState(app);
  await process.call('setUp', vpnConfig(['10.9.0.2/24', 'fd09::2/64']));
  for (const family of BOTH) {
    const [net, host] = family === '-4' ? ['10.1.0.0/16', '10.2.3.4'] : ['fd01::/16', 'fd02::4'];
    await ip(
      lab,
      [family],
      `rule add pref 31000 from ${net} to ${host} iif lo oif eth0 lookup 200`,
      'rule add pref 31001 tos 0x10 ipproto tcp sport 1000-2000 dport 22 lookup 200',
      'rule add pref 31002 uidrange 1000-1999 lookup 200 suppress_prefixlength 0',
      'rule add pref 31003 fwmark 0x5 lookup 200',
      'rule add pref 31004 fwmark 0x50/0xf0 lookup main suppress_prefixlength 8',
      'rule add pref 31005 lookup 200 suppress_ifgroup 7',
      'rule add pref 31005 lookup 200 suppress_ifgroup 8',
      'rule add pref 33000 lookup 200',
    );
  }
  const all = [31000, 31001, 31002, 31003, 31004];
  for (const family of BOTH) {
    await isCopied(lab, family, 'behind', [33000], family);
    await eventually('seven copies', async () => {
      const rules = await listed(lab, family);
      return rules.filter(({ priority }) => PLACES.before.includes(priority)).length === 7 || undefined;
    });
  }
  await ip(lab, BOTH, 'rule del pref 31005', 'rule del pref 31005', 'rule add pref 31006 lookup 200');
  for (const family of BOTH) await isCopied(lab, family, 'before', [...all, 31006], family);

  // In another order, and one fewer: as the kernel has them now.
  await ip(lab, BOTH, 'rule del pref 31002', 'rule add pref 30999 lookup 200');
  for (const family of BOTH)
    await isCopied(lab, family, 'before', [30999, 31000, 31001, 31003, 31004], `${family} again`);

  await ip(
    lab,
    BOTH,
    ...['30999', '31000', '31001', '31003', '31004', '31006', '33000'].map((each) => `rule del pref ${each}`),
  );
  const leftOut: [rule: string, reason: RegExp][] = [
    ['pref 31010 not iif eth0 lookup 200', /31010 lookup 200: it is for what its selectors do not select/],
    ['pref 31011 fwmark 0x1000000/0x1000000 lookup 200', /31011 lookup 200: it asks for bits of the mark/],
    ['pref 31012 l3mdev', /31012: it is for VRFs/],
    ['pref 31013 iif lo goto 31015', /31014 lookup 200: a goto passes over it/],
    ['pref 31014 ipproto udp lookup 200', /31014 lookup 200: a goto passes over it/],
    ['pref 31015 ipproto udp lookup 201', /31015 lookup 201: its table leads into what may be a tunnel/],
    ['pref 31016 ipproto udp lookup 202', /31016 lookup 202: a part of its table leads into what may be a tunnel/],
  ];
  // Nothing is said of an empty table, nor of what is not about a way.
  await ip(lab, BOTH, 'rule add pref 31020 lookup 203', 'rule add pref 31021 ipproto sctp prohibit');
  await ip(lab, BOTH, ...leftOut.map(([rule]) => `rule add ${rule}`), 'rule add pref 31017 ipproto udp lookup 200');
  for (const family of BOTH) await isCopied(lab, family, 'before', [31017], `${family} the rest is left out`);
  const log = await eventually('named in the log', async () => {
    const last = lab.vpnd
      .log()
      .split('\n')
      .findLast((line) => line.includes('rules-not-copied'));
    return last && leftOut.every(([, reason]) => reason.test(last)) ? last : undefined;
  });
  assert.match(log, /ip -4 rule/);
  assert.match(log, /ip -6 rule/);
  assert.doesNotMatch(log, /3102[01]/);

  for (const [rule] of leftOut) await ip(lab, BOTH, `rule del ${rule.split(' ').slice(0, 2).join(' ')}`);
  await ip(lab, BOTH, 'rule del pref 31017', 'rule del pref 31020', 'rule del pref 31021');
  await process.call('destroy');
  await settledState(app, before);
});

test(
  'a flood of routes by a known link costs a watched table nothing, and one into a tunnel is noticed',
  TIMEOUT,
  async (t) => {
    const lab = await vpnLab(t, { networks: [] });
    if (!lab) return;
    const { app } = lab;
    await app.ip('tuntap add wild0 mode tun', 'address add 10.77.0.2/24 dev wild0', 'link set wild0 up');
    await app.ip('route add default via 192.0.2.1 dev eth0 table 200', 'rule add pref 32000 lookup 200');
    const process = await lab.process(2001);
    await process.call('setUp', vpnConfig(['10.9.0.2/24']));
    await isCopied(lab, '-4', 'before', [32000], 'before the flood');
    const each = (word: string) =>
      Array.from(
        { length: 10_000 },
        (_, index) => `route ${word} 100.${index >> 8}.${index & 255}.0/24 via 192.0.2.1 table 200`,
      ).join('\n');
    await app.run('ip', ['-batch', '-'], { input: each('add'), timeoutMs: 60_000 });
    await app.ip('route add 10.99.0.0/16 dev wild0 table 200');
    await isCopied(lab, '-4', 'before', [], 'one of many leads into a tunnel');
    await app.ip('route del 10.99.0.0/16 dev wild0 table 200');
    await isCopied(lab, '-4', 'before', [32000], 'and no longer');
  },
);
