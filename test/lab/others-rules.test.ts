/**
 * The machine's own routing rules hold for what leaves outside a VPN by right: answers to what came in, and protected sockets.
 *
 *   app  eth0 192.168.50.2, fd50::2 ── router ── server, exits     main: default
 *        eth1 192.168.60.2, fd60::2 ── cafe                        table 200: default, for what has these addresses
 *
 * cafe has the internet's addresses too: who asks from one of these by eth1 hears the answer only if it leaves by eth1.
 */
import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { type TestContext, test } from 'node:test';
import { VICTIMS, type Victim } from './lib/attackers/victim.js';
import { canonicalState } from './lib/canonical-state.js';
import { by, covers, ip, ip4, ip6, protectedReach, protectedReaches, raise, TABLE } from './lib/machine-rules.js';
import { INBOUND_PORT, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { Prober } from './lib/prober.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually, settledState } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';

const { internet } = ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const TIMEOUT = { timeout: 300_000 };
const first = POLICY_ADDRESSES.app;
const second = POLICY_ADDRESSES.appOnCafe;
/** Behind ours, where new rules land in front of ours, and far in front. */
const PLACES = ['32765', '9000', '100'] as const;

/** eth1 has its default routes in a table of its own, and answers by it for whom asks there. */
async function secondNic(lab: PolicyLab): Promise<void> {
  const { cafe } = POLICY_ADDRESSES;
  await lab.app.ip('route del default via 192.168.60.1', 'route del ::/0 via fd60::1');
  await lab.app.ip(
    `route add default via ${cafe.ipv4} dev eth1 table ${TABLE}`,
    `route add ::/0 via ${cafe.ipv6} dev eth1 table ${TABLE}`,
  );
}

async function sourceRules(lab: PolicyLab, verb: 'add' | 'del', priority: string): Promise<void> {
  await ip4(lab, `rule ${verb} pref ${priority} from ${second.ipv4} lookup ${TABLE}`);
  await ip6(lab, `rule ${verb} pref ${priority} from ${second.ipv6} lookup ${TABLE}`);
}

/** What a stranger far behind eth1 hears from the host: by TCP, UDP and ping. */
async function answers(stranger: Prober, timeoutMs: number): Promise<string[]> {
  const heard: string[] = [];
  for (const family of FAMILIES) {
    for (const protocol of ['tcp', 'icmp'] as const) {
      const answer = await stranger.call('probe', {
        protocol,
        target: second[family],
        port: INBOUND_PORT,
        source: internet[family],
        timeoutMs,
      });
      heard.push(`${family} ${protocol} ${'side' in answer ? answer.side : answer.error}`);
    }
  }
  return heard;
}

const ANSWERED = FAMILIES.flatMap((family) => [`${family} tcp app`, `${family} icmp kernel`]);

async function isAnswered(stranger: Prober, what: string): Promise<void> {
  await eventually(what, async () => (await answers(stranger, 1000)).join() === ANSWERED.join() || undefined).catch(
    async () => assert.deepEqual(await answers(stranger, 5000), ANSWERED, what),
  );
}

interface ListedRule {
  priority: number;
  table?: string;
  protocol?: string;
}

/** The rules of ours that lead to a table, by the kernel's own word. */
async function copiesIn(lab: PolicyLab, family: '-4' | '-6', table: string): Promise<ListedRule[]> {
  const rules = await lab.app.json<ListedRule[]>('ip', [family, '-j', '-d', 'rule', 'list']);
  return rules.filter((rule) => rule.table === table && rule.protocol === 'kernel');
}

async function copiesOf(lab: PolicyLab, table: string): Promise<number> {
  return (await copiesIn(lab, '-4', table)).length + (await copiesIn(lab, '-6', table)).length;
}

async function hasCopies(lab: PolicyLab, table: string, wanted: number, what: string): Promise<void> {
  await eventually(what, async () => (await copiesOf(lab, table)) === wanted || undefined);
}

async function nicLab(t: TestContext, rpFilter: 0 | 1, networks = [1]): Promise<PolicyLab | undefined> {
  const lab = await policyLab(t, { networks });
  if (!lab) return undefined;
  const links = ['all', 'default', 'eth0', 'eth1'];
  await lab.app.sysctl(...links.map((link) => `net.ipv4.conf.${link}.rp_filter=${rpFilter}`));
  // A router asks for neighbours with its own address, whoever it asks for.
  await lab.cafe.sysctl('net.ipv4.conf.all.arp_announce=2');
  await secondNic(lab);
  return lab;
}

for (const victim of VICTIMS) {
  for (const rpFilter of [0, 1] as const) {
    test(
      `${victim.whose}, rp_filter ${rpFilter}: who comes in by a second NIC with a rule of its own is answered by it, wherever the rule stands`,
      TIMEOUT,
      async (t) => {
        const lab = await nicLab(t, rpFilter);
        if (!lab) return;
        const stranger = await lab.stranger(lab.cafe);
        let [standing] = PLACES as unknown as [string];
        await sourceRules(lab, 'add', standing);
        assert.deepEqual(await answers(stranger, 5000), ANSWERED, 'without a VPN');
        const before = await canonicalState(lab.app);

        const app = await raise(lab, victim);
        await isAnswered(stranger, `rules at ${standing}, before the VPN`);
        const session = await stranger.call('openSession', {
          target: second.ipv4,
          port: INBOUND_PORT,
          source: internet.ipv4,
        });
        // Added and deleted while it is up.
        for (const place of [...PLACES, PLACES[0]]) {
          if (place !== standing) {
            await sourceRules(lab, 'add', place);
            await sourceRules(lab, 'del', standing);
          }
          standing = place;
          await isAnswered(stranger, `rules at ${place}`);
          await covers(lab, victim, `rules at ${place}`);
          await stranger.goesOn(session);
          assert.deepEqual(await protectedReaches(app), by('server', first), 'a protected socket asks main');
        }
        await app.call('destroy');
        await settledState(lab.app, before);
        await stranger.goesOn(session);
        assert.deepEqual(await answers(stranger, 5000), ANSWERED, 'afterwards');
      },
    );
  }
}

/** Whether the firewall looks at frames on eth1, and whether it takes it for an outer link. */
async function linksOfFirewall({ app }: PolicyLab): Promise<{ frames: boolean; outer: boolean }> {
  const { stdout } = await app.run('nft', ['list', 'chain', 'netdev', 'vpnd', 'egress_hook']);
  const set = await app.run('nft', ['list', 'set', 'inet', 'vpnd', 'outer']);
  return { frames: /devices = .*eth1/.test(stdout), outer: set.stdout.includes('"eth1"') };
}

test(
  'a link by which only a table of others’ leads out is an outer one, as long as a rule says so',
  TIMEOUT,
  async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    await lab.app.ip(
      'route del ::/0 dev eth1',
      'address flush dev eth1',
      `address add ${second.ipv4}/32 dev eth1 noprefixroute`,
    );
    await lab.app.ip(`route add default via ${POLICY_ADDRESSES.cafe.ipv4} dev eth1 onlink table ${TABLE}`);
    await ip4(lab, `rule add pref 32000 from ${second.ipv4} lookup ${TABLE}`);
    const [user, root] = VICTIMS as [Victim, Victim];
    const before = await canonicalState(lab.app);
    const app = await raise(lab, user);
    const is = (what: string, wanted: boolean) =>
      eventually(what, async () => {
        const { frames, outer } = await linksOfFirewall(lab);
        return (frames === wanted && outer === wanted) || undefined;
      });
    await is('with the VPN', true);
    await ip4(lab, `rule del pref 32000`);
    await is('without the rule', false);
    await ip4(lab, `rule add pref 32000 from ${second.ipv4} lookup ${TABLE}`);
    await is('with it again', true);
    await app.call('destroy');
    await settledState(lab.app, before);
    const again = await raise(lab, root);
    await is("with root's VPN", true);
    await again.call('destroy');
    await settledState(lab.app, before);
  },
);

test(
  'copies follow the rules and the tables: from an outer link to a tunnel and back, with priorities and selectors',
  TIMEOUT,
  async (t) => {
    const lab = await nicLab(t, 0);
    if (!lab) return;
    const [victim] = VICTIMS as [Victim];
    await lab.app.ip('tuntap add wild0 mode tun', 'address add 10.77.0.2/24 dev wild0', 'link set wild0 up');
    const before = await canonicalState(lab.app);
    const app = await raise(lab, victim);
    await ip(lab, `rule add pref 32000 lookup ${TABLE}`);
    await protectedReach(app, by('cafe', second), 'all of the machine goes by eth1');
    await hasCopies(lab, TABLE, 2, 'one copy a family');

    // From here on the table leads into a tunnel: of another, into which a tunnel must not be led.
    await lab.app.ip(`route replace default dev wild0 table ${TABLE}`);
    await ip6(lab, `route replace ::/0 dev wild0 table ${TABLE}`);
    await hasCopies(lab, TABLE, 0, 'no copy of a rule into a tunnel');
    await protectedReach(app, by('server', first), 'by main again');
    // A part of it is enough.
    const { cafe } = POLICY_ADDRESSES;
    await lab.app.ip(
      `route replace default via ${cafe.ipv4} dev eth1 table ${TABLE}`,
      `route add 10.99.0.0/16 dev wild0 table ${TABLE}`,
    );
    await ip6(
      lab,
      `route del ::/0 dev wild0 table ${TABLE}`,
      `route add ::/0 via ${cafe.ipv6} dev eth1 table ${TABLE}`,
    );
    await hasCopies(lab, TABLE, 1, 'IPv6 alone');
    await lab.app.ip(`route del 10.99.0.0/16 dev wild0 table ${TABLE}`);
    await protectedReach(app, by('cafe', second), 'outside again');

    // A rule before it decides before it, as for the machine itself.
    await ip4(lab, `rule add pref 31000 to ${internet.ipv4}/32 lookup main`);
    await protectedReach(app, [`server ${first.ipv4}`, `cafe ${second.ipv6}`], 'the order of the rules');
    await ip4(lab, `rule del pref 31000`);
    // Others' bits of the mark are theirs, ours nobody's.
    await ip(lab, `rule add pref 31000 fwmark 0x5/0xffffffff lookup main`);
    const way = async (...words: string[]): Promise<string> => {
      const { stdout } = await lab.app.run('ip', ['route', 'get', internet.ipv4, ...words]);
      return /dev (\S+)/.exec(stdout)?.[1] ?? stdout;
    };
    const ways = async () => [await way('mark', '0x80000005'), await way('mark', '0x80000000')].join();
    await eventually('by others’ bits of the mark', async () => (await ways()) === 'eth0,eth1' || undefined);
    assert.match(await way('uid', '2001'), /^vpn-tun/, 'covered traffic meets no copy');
    assert.match(await way('uid', '2001', 'mark', '0x5'), /^vpn-tun/, 'with others’ bits neither');
    await ip(lab, 'rule del pref 31000');

    // Somebody takes a copy away.
    await hasCopies(lab, TABLE, 2, 'both stand');
    await eventually('a copy is deleted', async () => {
      const [copy] = await copiesIn(lab, '-4', TABLE);
      return lab.app.run('ip', ['rule', 'del', 'pref', `${copy?.priority}`]).then(
        () => true,
        () => undefined,
      );
    });
    await hasCopies(lab, TABLE, 2, 'put back');
    await protectedReach(app, by('cafe', second), 'put back');

    await ip(lab, 'rule del pref 32000');
    await hasCopies(lab, TABLE, 0, 'gone with the rule');
    await app.call('destroy');
    await settledState(lab.app, before);
  },
);

test('nothing is left of a killed service’s copies, and while it is dead they hold', TIMEOUT, async (t) => {
  const lab = await nicLab(t, 1, [1, 2]);
  if (!lab) return;
  const [user, root] = VICTIMS as [Victim, Victim];
  await sourceRules(lab, 'add', PLACES[0]);
  const before = await canonicalState(lab.app);
  const stranger = await lab.stranger(lab.cafe);
  const apps = [await raise(lab, user), await raise(lab, root, 2)];
  await isAnswered(stranger, 'with two VPNs up');
  await hasCopies(lab, TABLE, 2, 'one copy a family, however many VPNs');
  await lab.vpnd.kill9();
  assert.deepEqual(await answers(stranger, 5000), ANSWERED, 'with the service dead');
  for (const app of apps) await app.kill9();
  const vpnd = await startVpnd(lab.app, { directory: dirname(lab.vpnd.socket) });
  await settledState(lab.app, before);
  assert.deepEqual(await answers(stranger, 5000), ANSWERED, 'afterwards');
  await vpnd.stop();
});
