/**
 * The service as one object: started, told to reload its policy, ended. vpnd runs it in a process of its own, startService()
 * in a Worker.
 */
import { mkdirSync } from 'node:fs';
import { VpnHost } from '../host/vpn-host.js';
import type { DownReason, Methods } from '../ipc/methods.js';
import { libc } from '../kernel/ffi.js';
import type { QueueClaim } from '../kernel/queue-claim.js';
import { FileStamp } from './account-files.js';
import { Events } from './events.js';
import { withFirewallNamed } from './facilities.js';
import { sweepLaunches } from './launch.js';
import { listenOn, removeSocketFile, type SocketFile, socketFile } from './listen.js';
import type { Log } from './log.js';
import { names } from './names.js';
import { lockNamespace } from './namespace-lock.js';
import { type Policy, withNamesOfNow } from './policy.js';
import { loadPolicy } from './policy-file.js';
import { type LiveVpn, Registry } from './registry.js';
import { Server } from './server.js';

export interface ServiceSettings {
  socket: string;
  stateDir: string;
  /** Absent: the default path, and when nothing is there the built-in policy. */
  policyFile: string | undefined;
  log: Log;
}

export class Service {
  readonly #settings: ServiceSettings;
  readonly #host: VpnHost;
  readonly #registry: Registry;
  readonly #events: Events;
  readonly #server: Server;
  readonly #listenFd: number;
  readonly #file: SocketFile;
  readonly #lock: QueueClaim;
  readonly #groups = new FileStamp('/etc/group');
  #policy: Policy;
  #closing: Promise<void> | undefined;

  /** Listens, sweeps, then serves. Throws PolicyError, InUseError, FacilityError or KernelError; nothing is left behind then. */
  static async start(settings: ServiceSettings): Promise<Service> {
    const policy = loadPolicy(settings.policyFile, names);
    // Before anything of a living service's is touched.
    const lock = await lockNamespace();
    let listenFd = -1;
    let file: SocketFile | undefined;
    let host: VpnHost | undefined;
    try {
      mkdirSync(settings.stateDir, { recursive: true, mode: 0o755 });
      // The socket first: a path in use must not cost a living service its VPNs.
      listenFd = listenOn(settings.socket);
      file = socketFile(settings.socket);
      const events = new Events();
      host = new VpnHost({
        stateDir: settings.stateDir,
        log: settings.log,
        onContested: (what) => {
          settings.log('warning', 'contested', { what: what.join(', ') });
          events.emit({ type: 'contested', what: [...what] });
        },
      });
      withFirewallNamed(() => host?.tryFirewall());
      const swept = await host.sweep(policy);
      if (Object.values(swept).some((count) => count > 0)) settings.log('warning', 'swept', { ...swept });
      await sweepLaunches(settings.log);
      for (const what of await host.collisions()) settings.log('warning', 'collision', { what });
      return new Service(settings, policy, { host, events }, { listenFd, file, lock });
    } catch (error) {
      await host?.close();
      if (listenFd >= 0) libc.close(listenFd);
      if (file) removeSocketFile(file);
      lock.release();
      throw error;
    }
  }

  private constructor(
    settings: ServiceSettings,
    policy: Policy,
    { host, events }: { host: VpnHost; events: Events },
    { listenFd, file, lock }: { listenFd: number; file: SocketFile; lock: QueueClaim },
  ) {
    this.#settings = settings;
    this.#policy = policy;
    this.#host = host;
    this.#events = events;
    this.#listenFd = listenFd;
    this.#file = file;
    this.#lock = lock;
    this.#registry = new Registry(host, (vpn, reason) => this.#onDown(vpn, reason));
    this.#server = new Server(listenFd, {
      host,
      registry: this.#registry,
      events: this.#events,
      policy: () => this.#current(),
      reload: () => this.reload(),
      log: settings.log,
    });
    host.watch(this.#server.epoll);
    settings.log('info', 'ready', { socket: settings.socket, policy: policy.file });
  }

  get wakeFd(): number {
    return this.#server.wakeFd;
  }

  /** The policy with the names of now: a group may have been made since. */
  #current(): Policy {
    try {
      if (this.#groups.hasChanged()) this.#policy = withNamesOfNow(this.#policy, names);
    } catch (error) {
      // No descriptor left, perhaps: what held so far holds until the next call.
      this.#groups.forget();
      this.#settings.log('debug', 'groups-not-read', { error: String(error) });
    }
    return this.#policy;
  }

  /** Reads the policy again. A bad file keeps the old policy, with one error line. Returns what came of it. */
  async reload(): Promise<Methods['reload']['result']> {
    try {
      this.#policy = loadPolicy(this.#settings.policyFile, names);
    } catch (error) {
      const reason = (error as Error).message;
      this.#settings.log('error', 'policy-kept', { reason });
      return { file: this.#policy.file, problem: `${reason}; the policy of before stays` };
    }
    const { file } = this.#policy;
    this.#settings.log('info', 'policy-loaded', { policy: file });
    this.#events.emit({ type: 'policy' });
    if (this.#policy.isDisabled) void this.#endAll('disabled by policy');
    try {
      await this.#host.configure(this.#policy);
    } catch (error) {
      this.#settings.log('error', 'policy-not-in-force', { reason: String(error) });
      return { file, problem: `${file} is read, and not in force for networks and lockdown: ${String(error)}` };
    }
    return { file };
  }

  /** Ends every VPN, answers what is under way, and lets go of everything. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#server.refuse();
    removeSocketFile(this.#file);
    await this.#endAll('service ends');
    this.#host.unwatch();
    await this.#server.close();
    libc.close(this.#listenFd);
    await this.#host.close();
    this.#lock.release();
    this.#settings.log('info', 'ended');
  }

  async #endAll(reason: DownReason): Promise<void> {
    const end = (uid: number) => this.#registry.inOrder(uid, () => this.#registry.lower(uid, reason));
    const results = await Promise.allSettled(this.#registry.users().map(end));
    for (const result of results) {
      if (result.status === 'rejected') {
        this.#settings.log('error', 'vpn-down-failed', { error: String(result.reason) });
      }
    }
  }

  #onDown(vpn: LiveVpn, reason: DownReason): void {
    const { name: link } = vpn.raised.tun;
    this.#settings.log('info', 'vpn-down', { uid: vpn.owner, link, reason });
    this.#events.emit({ type: 'down', uid: vpn.owner, link, reason });
  }
}
