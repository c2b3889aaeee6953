/**
 * The stage of the conformance tests: the standard topology (standard-lab.ts) with a vpnd on `app`, and one user a kind of
 * caller. Everything ends with the test.
 */
import assert from 'node:assert/strict';
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { cgroup2Root } from '../../../src/kernel/cgroup.js';
import { canonicalState, diffState } from '../../lab/lib/canonical-state.js';
import type { LabHost } from '../../lab/lib/host.js';
import { whyNoLab } from '../../lab/lib/prerequisites.js';
import { eventually } from '../../lab/lib/settled-state.js';
import { type StandardLab, type StandardLabOptions, standardLab } from '../../lab/lib/standard-lab.js';
import { startVpnd, type Vpnd } from '../../lab/lib/vpnd.js';
import { App } from './app.js';

/** uids of the lab, none of which the machine knows. */
export const USERS = {
  root: 0,
  system: 2001,
  other: 2002,
  third: 2003,
  /** A system application without ohos.permission.MANAGE_VPN. */
  noPermission: 2004,
  /** No system application. */
  ordinary: 2005,
  guest: 2006,
  /** A guest that is a system application without the permission. */
  guestWithoutPermission: 2007,
} as const;

const MANAGE_VPN = 'ohos.permission.MANAGE_VPN';

function caller(uid: number, permissions = [MANAGE_VPN]): object {
  return { match: { uid }, system: true, permissions };
}

export const POLICY = {
  callers: [
    ...[USERS.root, USERS.system, USERS.other, USERS.third, USERS.guest].map((uid) => caller(uid)),
    caller(USERS.noPermission, []),
    caller(USERS.guestWithoutPermission, []),
  ],
  guests: { users: [USERS.guest, USERS.guestWithoutPermission] },
};

export class Scene {
  readonly lab: StandardLab;
  readonly vpnd: Vpnd;
  readonly #cgroups: string[] = [];
  readonly #apps = new Map<number, App>();

  constructor(lab: StandardLab, vpnd: Vpnd) {
    this.lab = lab;
    this.vpnd = vpnd;
  }

  get host(): LabHost {
    return this.lab.app;
  }

  /** The user's app, the same one every time. */
  async app(uid: number): Promise<App> {
    const app = this.#apps.get(uid) ?? (await this.newApp(uid));
    this.#apps.set(uid, app);
    return app;
  }

  newApp(uid: number, host = this.host, socket = this.vpnd.socket): Promise<App> {
    return App.start(host, socket, { uid });
  }

  /** Fails when `work` has left anything behind, or taken anything away, in the host's network state. */
  async unchanged(work: () => Promise<unknown>): Promise<void> {
    const before = await canonicalState(this.host);
    await work();
    assert.deepEqual(diffState(before, await canonicalState(this.host)), []);
  }

  /** A new policy in force when the promise resolves. */
  async policy(policy: unknown): Promise<void> {
    const loaded = () => this.vpnd.log().split('policy-loaded').length;
    const before = loaded();
    this.vpnd.reload(policy);
    await until('the policy is loaded', () => loaded() > before);
  }

  /** What `vpnctl status` shows root. */
  async status(): Promise<Record<string, unknown>[]> {
    const env = { VPND_SOCKET: this.vpnd.socket };
    const { stdout } = await this.host.node('dist/src/cli/vpnctl.js', ['status', '--json'], { env });
    return (JSON.parse(stdout) as { vpns: Record<string, unknown>[] }).vpns;
  }

  /** A fresh cgroup of the machine, removed with the scene. `join` moves a process into it. */
  async cgroup(): Promise<{ path: string; join(pid: number): void }> {
    const root = cgroup2Root();
    assert.ok(root, 'no cgroup v2');
    const path = `/vpn-conformance-${process.pid}-${this.#cgroups.length}`;
    const directory = `${root}${path}`;
    mkdirSync(directory);
    this.#cgroups.push(directory);
    return { path, join: (pid) => writeFileSync(`${directory}/cgroup.procs`, String(pid)) };
  }

  async end(): Promise<void> {
    await this.lab.lab.close();
    for (const directory of this.#cgroups) {
      // A killed process leaves its cgroup a moment after its parent has heard of its end.
      await until(`${directory} is removed`, () => {
        try {
          rmdirSync(directory);
          return true;
        } catch (error) {
          return (error as NodeJS.ErrnoException).code === 'ENOENT';
        }
      });
    }
  }

  /** The kernel's choice for a packet of this user: the link it leaves by, or the error's name. */
  async way(uid: number, to: string): Promise<string> {
    const { stdout, stderr } = await this.host.run('ip', ['route', 'get', to, 'uid', String(uid)], { check: false });
    return / dev (\S+)/.exec(stdout)?.[1] ?? stderr.replace('RTNETLINK answers: ', '').trim();
  }

  /** The marks of a process's UDP sockets, as `ss` prints them; one each. */
  async marks(pid: number): Promise<string> {
    const { stdout } = await this.host.run('ss', ['-Huanpe']);
    const mine = stdout.split('\n').filter((line) => line.includes(`pid=${pid},`));
    return mine.map((line) => /fwmark:(\S+)/.exec(line)?.[1] ?? '0').join(' ');
  }

  async link(name: string): Promise<Link | undefined> {
    const [links, details] = await Promise.all([
      this.host.json<Link[]>('ip', ['-j', 'address', 'show']),
      this.host.json<Partial<Link>[]>('ip', ['-j', '-d', 'link', 'show']),
    ]);
    const link = links.find(({ ifname }) => ifname === name);
    return link && { ...details.find(({ ifname }) => ifname === name), ...link };
  }
}

/** Of `ip -j address` and `ip -j -d link`. */
export interface Link {
  ifname: string;
  mtu: number;
  flags: string[];
  operstate: string;
  inet6_addr_gen_mode?: string;
  linkinfo?: { info_kind: string; info_data: Record<string, unknown> };
  addr_info: { family: string; local: string; prefixlen: number; scope: string }[];
}

export interface SceneOptions extends StandardLabOptions {
  policy?: unknown;
}

/** Undefined, with the test skipped, where no lab can be built. */
export async function scene(t: TestContext, options: SceneOptions = {}): Promise<Scene | undefined> {
  const reason = whyNoLab();
  if (reason !== undefined) return void t.skip(reason);
  const { policy = POLICY, ...rest } = options;
  const lab = await standardLab(rest);
  try {
    const stage = new Scene(lab, await startVpnd(lab.app, { policy }));
    t.after(() => stage.end());
    return stage;
  } catch (error) {
    await lab.lab.close();
    throw error;
  }
}

export function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  return eventually(isSo, () => what, 60_000);
}
