/**
 * Names say where somebody goes: who is under lockdown and has no VPN asks no resolver, neither on a local network nor on the host
 * itself, which would ask on under its own user. Whatever becomes of vpnd.
 *
 *   app uid 2001 under lockdown, or everyone       stub 127.0.0.53, ::1, … says what it is asked
 *     eth0 ─── router, lanhost (resolvers)         everything that leaves is captured
 *     eth1 ─── cafe (a resolver)
 *     vpn-tunN ═══ exit1                           when there is a VPN
 */
import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Asker, type Question, type Stub, startAsker, startStub } from './lib/asker.js';
import { whyNoCgroup } from './lib/cgroup.js';
import type { DepartedPacket } from './lib/leak-check.js';
import { describePacket } from './lib/leak-check.js';
import { FAMILIES, isInside, raise } from './lib/policy-facts.js';
import { type Moment, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { startSocketProcess } from './lib/socket-process.js';
import { eventually, exitOf } from './lib/vpn-lab.js';
import { startVpnd, type Vpnd } from './lib/vpnd.js';

const { app: HOST, lanHost, router, cafe } = POLICY_ADDRESSES;
const TIMEOUT = { timeout: 300_000 };
const BYPASS = 0x80000000;
const UDP_LITE = '136';
const REFUSED = /^(EACCES|EPERM|ECONNREFUSED)$/;
/** Of a socket that has been connected to the resolver. */
const ENDED = /^(EACCES|EPERM|ECONNREFUSED|ECONNRESET|EPIPE|silence)$/;
const ENDING = ['fin-wait-1', 'closing', 'last-ack'].flatMap((state) => ['state', state]);
const PROTOCOLS = ['udp', 'udplite', 'tcp', 'mptcp'] as const;
const STUB = ['127.0.0.53', '127.0.0.1', '::1', HOST.ipv4, HOST.ipv6];
const LAN = [lanHost, router, cafe].flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6]);
const callers = [0, 2001, 2002, 2003].map((uid) => ({
  match: { uid },
  system: true,
  permissions: ['ohos.permission.MANAGE_VPN'],
}));
const policyOf = (lockdown: number[]) => ({ callers, lockdown });

interface StubLab extends PolicyLab {
  stub: Stub;
  /** The LAN host's on eth0. */
  linkLocal: string;
}

async function stubLab(t: TestContext, lockdown: number[]): Promise<StubLab | undefined> {
  const lab = await policyLab(t, { vpnd: { policy: policyOf(lockdown) } });
  if (!lab) return undefined;
  // A query from port 53, as servers of old ask, is one as well.
  await lab.app.sysctl('net.ipv4.ip_unprivileged_port_start=0');
  const where = STUB.map((address): [string, number] => [address, 53]);
  await Promise.all([lab.app.configure('eth0', ['fe80::2/64']), lab.lanHost.configure('eth0', ['fe80::9/64'])]);
  const linkLocal = 'fe80::9%eth0';
  await startStub(lab.lanHost, [[linkLocal, 53]]);
  return { ...lab, stub: await startStub(lab.app, [...where, ['127.0.0.1', 5300]]), linkLocal };
}

/** Everywhere that a resolver may be which is not in the internet, by every kind of socket. */
function questions({ linkLocal }: Pick<StubLab, 'linkLocal'>, uid: number): Question[] {
  return [...STUB, ...LAN, linkLocal].flatMap((target) =>
    PROTOCOLS.flatMap((protocol): Question[] => {
      const family = target.includes(':') ? 'ipv6' : 'ipv4';
      const isStream = protocol.endsWith('tcp');
      const isLocal = STUB.includes(target);
      const isAway = target === cafe[family];
      const device = isAway ? 'eth1' : isLocal ? 'lo' : 'eth0';
      const plain = { name: `u${uid}.${protocol}.test`, protocol, target };
      const source = isAway ? POLICY_ADDRESSES.appOnCafe[family] : HOST[family];
      return [
        plain,
        ...(target === HOST[family] ? [] : [{ ...plain, device }]),
        ...(target === linkLocal ? [] : [{ ...plain, source }]),
        ...(target !== linkLocal && !isStream ? [{ ...plain, source, from: 53 }] : []),
        ...(isStream ? [] : [{ ...plain, unconnected: true }]),
      ];
    }),
  );
}

/** Servers on the LAN do not answer by UDP-Lite; and two sockets of the host cannot both be from one port to the other. */
const isAnswerable = ({ protocol, target, from }: Question) =>
  (protocol !== 'udplite' || STUB.includes(target)) && !(from === 53 && STUB.includes(target));

async function toPort53(lab: PolicyLab, since: Moment): Promise<DepartedPacket[]> {
  const counts = new Map<string, number>();
  return (await lab.departed()).filter(({ link, protocol, destinationPort }) => {
    const count = (counts.get(link) ?? 0) + 1;
    counts.set(link, count);
    return count > (since.get(link) ?? 0) && ([53, 5300].includes(destinationPort ?? 0) || protocol === UDP_LITE);
  });
}

/** While `work` is done nothing goes to port 53 on any link, and the stub hears nothing. */
async function inSilence(lab: StubLab, what: string, work: () => Promise<void>): Promise<void> {
  const since = await lab.moment();
  const before = lab.stub.asked().length;
  await work();
  // Behind this question nothing older can come.
  const marked = await startSocketProcess(lab.app, 2003, { mayMark: true });
  await isAnswered(marked, 'last', { bound: true });
  await marked.kill();
  assert.deepEqual(
    lab.stub
      .asked()
      .slice(before)
      .filter((each) => each !== 'udp last' && each !== 'tcp -'),
    [],
    what,
  );
  const asked = (await toPort53(lab, since)).filter(({ payload }) => !Buffer.from(payload).includes('last'));
  assert.deepEqual(asked.map(describePacket), [], what);
}

/** By a protected socket: the stub, and on the LAN. */
async function isAnswered(
  marked: Awaited<ReturnType<typeof startSocketProcess>>,
  name: string,
  { bound = false } = {},
): Promise<void> {
  const query = `\x12\x34\x01\0\0\x01\0\0\0\0\0\0${String.fromCharCode(name.length)}${name}\0\0\x10\0\x01`;
  const stubs = ['127.0.0.53', '::1'].map((target) => ({ target, heard: name }));
  const near = FAMILIES.map((family) => ({ target: lanHost[family], heard: 'lanhost' }));
  for (const { target, heard } of [...stubs, ...near]) {
    const fd = await marked.call('open', { transport: 'udp', remote: [target, 53], mark: BYPASS });
    await marked.call('send', fd, query);
    assert.equal(await marked.call('hears', fd, heard), true, `${target} ${bound}`);
  }
}

async function refuses(lab: StubLab, asker: Asker, what: string, asked = questions(lab, asker.uid)): Promise<void> {
  await inSilence(lab, what, async () => {
    const said = await asker.ask(asked);
    const wrong = asked.flatMap((each, index) =>
      REFUSED.test(said[index] ?? '') ? [] : [`${said[index]} ${JSON.stringify(each)}`],
    );
    assert.deepEqual(wrong, [], what);
  });
}

async function answers(
  lab: StubLab,
  asker: Asker,
  what: string,
  protocols: readonly string[] = PROTOCOLS,
): Promise<void> {
  const asked = questions(lab, asker.uid).filter((each) => isAnswerable(each) && protocols.includes(each.protocol));
  const said = await asker.ask(asked);
  const wrong = asked.flatMap((each, index) =>
    said[index] === 'answered' ? [] : [`${said[index]} ${JSON.stringify(each)}`],
  );
  assert.deepEqual(wrong, [], what);
  await connectionsHaveEnded(lab);
}

/** What a connection says when it is closed is not to be taken for a question, nor to be stopped by the end of a VPN. */
async function connectionsHaveEnded({ app }: PolicyLab): Promise<void> {
  await eventually('the end of the connections', async () => {
    const { stdout } = await app.run('ss', ['-Htan', ...ENDING, 'dport = :53']);
    return stdout === '' || undefined;
  });
}

async function reload(vpnd: Vpnd, policy: object): Promise<void> {
  const loads = () => vpnd.log().split('policy-loaded').length;
  const before = loads();
  vpnd.reload(policy);
  await eventually('the policy', async () => loads() > before || undefined);
}

/** A policy that is loaded holds a moment later. */
async function says(asker: Asker, target: string, wanted: string): Promise<void> {
  await eventually(`${wanted} by ${target}`, async () => {
    const said = await asker.ask([{ name: 'when.test', protocol: 'udp', target }]);
    return said[0] === wanted || undefined;
  });
}

/** Connections to resolvers, all in use. */
async function oldConnections(asker: Asker): Promise<string[]> {
  const places = [...STUB, lanHost.ipv4, lanHost.ipv6, cafe.ipv4];
  const made = places.flatMap((target) =>
    PROTOCOLS.filter((protocol) => isAnswerable({ name: '', protocol, target })).map(
      (protocol): Question => ({ name: 'before.test', protocol, target, keep: `${protocol} ${target} ${asker.uid}` }),
    ),
  );
  assert.deepEqual(new Set(await asker.ask(made)), new Set(['answered']));
  return made.map(({ keep = '' }) => keep);
}

async function areStopped(lab: StubLab, asker: Asker, old: readonly string[], what: string): Promise<void> {
  await inSilence(lab, what, async () => {
    const said = await asker.ask(old.map((again) => ({ again, name: 'secret.test' })));
    assert.deepEqual(
      said.filter((each) => !ENDED.test(each)),
      [],
      what,
    );
  });
}

for (const locked of [[2001], [0]]) {
  const whose = locked[0] === 0 ? "everyone's" : "a user's";
  // A resolver's own user, too.
  const uids = locked[0] === 0 ? [2001, 0, 100] : [2001];
  test(
    `${whose} lockdown: no question to port 53, old connections neither, also when vpnd is dead`,
    TIMEOUT,
    async (t) => {
      const lab = await stubLab(t, []);
      if (!lab) return;
      const askers = await Promise.all(uids.map((uid) => startAsker(lab.app, uid)));
      for (const asker of askers) await answers(lab, asker, `uid ${asker.uid}, no lockdown`);
      const [first] = askers;
      assert.ok(first);
      const old = await oldConnections(first);

      await reload(lab.vpnd, policyOf(locked));
      // The rules come last, and go first.
      await says(first, lanHost.ipv4, 'EACCES');
      await areStopped(lab, first, old, 'old connections');
      for (const asker of askers) await refuses(lab, asker, `uid ${asker.uid}`);
      const marked = await startSocketProcess(lab.app, 2001, { mayMark: true });
      await isAnswered(marked, 'protected');
      if (locked[0] !== 0) await answers(lab, await startAsker(lab.app, 2002), 'somebody else');

      await lab.vpnd.kill9();
      for (const asker of askers) await refuses(lab, asker, `uid ${asker.uid}, vpnd dead`);
      await isAnswered(marked, 'protected');

      // Somebody else's translation changes the port before or after.
      const chain = 'add table ip others; add chain ip others out { type nat hook output priority -100; }';
      const there = 'add rule ip others out udp dport 5353 dnat to 127.0.0.53:53';
      const back = 'add rule ip others out ip daddr 127.0.0.53 udp dport 53 dnat to 127.0.0.1:5300';
      const near = `add rule ip others out meta skuid 2001 ip daddr ${lanHost.ipv4} udp dport 53 dnat to ${lanHost.ipv4}:5300`;
      await lab.app.run('nft', ['-f', '-'], { input: [chain, there, back, near].join('\n') });
      const translated = [
        { name: 'there.test', protocol: 'udp' as const, target: '127.0.0.1', port: 5353 },
        { name: 'there.test', protocol: 'udp' as const, target: lanHost.ipv4, port: 5353 },
        { name: 'back.test', protocol: 'udp' as const, target: '127.0.0.53' },
        { name: 'near.test', protocol: 'udp' as const, target: lanHost.ipv4 },
        { name: 'near.test', protocol: 'udp' as const, target: lanHost.ipv4, device: 'eth0' },
      ];
      await refuses(lab, first, 'translated', translated);
      await lab.app.run('nft', ['delete table ip others']);

      const directory = dirname(lab.vpnd.socket);
      const second = await startVpnd(lab.app, { directory, policy: policyOf(locked) });
      for (const asker of askers) await refuses(lab, asker, `uid ${asker.uid}, a new vpnd`);
      await reload(second, policyOf([]));
      await says(first, '127.0.0.53', 'answered');
      for (const asker of askers) await answers(lab, asker, `uid ${asker.uid}, lifted`);
    },
  );

  test(`${whose} lockdown: on local networks either lock keeps port 53 shut alone`, TIMEOUT, async (t) => {
    const lab = await stubLab(t, locked);
    if (!lab) return;
    const asker = await startAsker(lab.app, 2001);
    await lab.vpnd.kill9();
    // nft before 1.1.1 has no word for what keeps a table whose owner is gone, and does not read its own line without it.
    const table = (await lab.app.run('nft', ['list', 'ruleset'])).stdout.replaceAll(/^\tflags $/gm, '');
    await lab.app.run('nft', ['flush ruleset']);
    const near = questions(lab, 2001).filter(({ target }) => !STUB.includes(target));
    // For IPv4, a socket bound to a link takes the whole world for its neighbour when the rules have refused it.
    const unbound = near.filter(({ device, target }) => device === undefined || target.includes(':'));
    await refuses(lab, asker, 'without the firewall', unbound);
    await lab.app.run('nft', ['-f', '-'], { input: table });
    for (const option of ['-4', '-6']) {
      const rules = await lab.app.json<{ priority: number }[]>('ip', ['-j', option, 'rule', 'show']);
      const ours = rules.filter(({ priority }) => priority > 9000 && priority < 30001);
      for (const { priority } of ours) await lab.app.run('ip', [option, 'rule', 'del', 'pref', `${priority}`]);
    }
    await refuses(lab, asker, 'without the rules');
  });

  test(
    `${whose} lockdown: whom a VPN covers asks as the VPN says, whom root's leaves out nobody`,
    TIMEOUT,
    async (t) => {
      const lab = await stubLab(t, locked);
      if (!lab) return;
      const asker = await startAsker(lab.app, 2001);
      const exit = exitOf(lab, 1);
      const ofVpn = async (dns: boolean, what: string) => {
        await isInside(lab, 2001);
        if (!dns) return answers(lab, asker, what);
        const before = lab.stub.asked().length;
        for (const target of ['127.0.0.53', '::1', lanHost.ipv4, lanHost.ipv6]) {
          for (const protocol of ['dns-udp', 'dns-tcp'] as const) {
            const answer = await lab.probe({ uid: 2001, protocol, target, timeoutMs: 20_000 });
            assert.deepEqual(answer, { side: 'exit1' }, `${what}: ${protocol} ${target}`);
          }
        }
        assert.equal(lab.stub.asked().length, before, what);
        await connectionsHaveEnded(lab);
      };
      for (const owner of [2001, 0]) {
        for (const dns of [false, true]) {
          const what = `VPN of ${owner}, ${dns ? 'with' : 'without'} name servers`;
          const vpn = await raise(lab, owner, dns ? { dnsAddresses: [exit.ipv4, exit.ipv6] } : {});
          await ofVpn(dns, what);
          await vpn.call('destroy');
          await refuses(lab, asker, `after a ${what}`);
        }
      }
      const trusted = await raise(lab, 0, { trustedApplications: ['uid:2003'] });
      await refuses(lab, asker, "not on the list of root's VPN");
      await answers(lab, await startAsker(lab.app, 2003), "on the list of root's VPN");
      await trusted.call('destroy');
      if (locked[0] === 0) return;
      const blocked = await raise(lab, 0, { blockedApplications: ['uid:2001'] });
      await refuses(lab, asker, "kept out of root's VPN");
      await blocked.call('destroy');
    },
  );

  test(`${whose} lockdown: of an application only those who are on the list of root's VPN ask`, {
    ...TIMEOUT,
    skip: whyNoCgroup() ?? false,
  }, async (t) => {
    const lab = await stubLab(t, locked);
    if (!lab) return;
    const listed = lab.cgroup('listed');
    const other = lab.cgroup('other');
    const within = await startAsker(lab.app, 2001, listed.directory);
    const without = await startAsker(lab.app, 2001, other.directory);
    const trusted = await raise(lab, 0, { trustedApplications: [`cgroup:${listed.path}`] });
    // The sockets that the kernel makes for MPTCP have no mark.
    const marked = PROTOCOLS.filter((protocol) => protocol !== 'mptcp');
    await answers(lab, within, 'trusted', marked);
    await refuses(lab, without, 'not trusted');
    await trusted.call('destroy');
    await refuses(lab, within, 'no longer trusted');
    if (locked[0] === 0) return;
    const blocked = await raise(lab, 0, { blockedApplications: [`cgroup:${listed.path}`] });
    await answers(lab, without, 'not blocked', marked);
    await refuses(lab, within, 'blocked');
    await blocked.call('destroy');
    await refuses(lab, without, 'no longer covered');
  });
}
