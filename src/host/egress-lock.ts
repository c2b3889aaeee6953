/**
 * The second lock beside nft's (bpf-egress-lock.ts): one BPF program on the root cgroup for all VPNs, attached from the first to
 * the last. It lives on with the attachment when this process dies, until a sweep.
 */
import { closeSync } from 'node:fs';
import { isShortage } from '../kernel/absence.js';
import { ATTACH_TYPE, attachProgram, detachProgram, programId } from '../kernel/bpf-attach.js';
import {
  type EgressLockSpec,
  egressLockProgram,
  NOWHERE,
  WAY_BYTES,
  type Way,
  wayKey,
  wayValue,
} from '../kernel/bpf-egress-lock.js';
import { programProblem } from '../kernel/bpf-problem.js';
import { HashMap, loadProgram, PROGRAM_TYPE } from '../kernel/bpf-syscall.js';
import { resolveCgroup } from '../kernel/cgroup.js';
import { kernelOffsets } from '../kernel/kernel-offsets.js';
import { KernelError } from '../model/errors.js';
import { BYPASS_MARK, SELECTION_FIELD, selectionMark } from './numbers.js';
import type { Coverage } from './receive-guard.js';

const MAX_WAYS = 65536;
const NAME = 'vpnd_egress';

/** What nft's lock (plan-firewall.ts) says of a VPN, as entries of the program's map. */
export function waysOf({ owner, trusted, blocked, selections }: Coverage, ifindex: number): Way[] {
  const uids = (selectors: Coverage['trusted']): number[] =>
    selectors.flatMap((selector) => (selector.kind === 'uid' ? [selector.uid] : []));
  const selected = (selection: number | undefined, to: number): Way[] =>
    selection === undefined ? [] : [{ kind: 'selection', value: selectionMark(selection), ifindex: to, owner }];
  const ways: Way[] = [
    { kind: 'link', value: ifindex, ifindex: 0, owner },
    ...selected(selections.covered, ifindex),
    ...selected(selections.blocked, 0),
  ];
  const user = (value: number, to: number, isOwn: number): Way => ({ kind: 'uid', value, ifindex: to, owner: isOwn });
  if (owner !== 0) {
    // A user may name no uid but its own, which is everyone its VPN covers.
    const onlySome = trusted.length > 0 && uids(trusted).length === 0;
    return [...ways, user(owner, onlySome ? 0 : ifindex, 1)];
  }
  if (trusted.length > 0) return [...ways, ...uids(trusted).map((uid) => user(uid, ifindex, 0))];
  const passed = uids(blocked).map((uid) => user(uid, 0, 0));
  return [...ways, ...passed, { kind: 'everyone', value: 0, ifindex, owner: 0 }];
}

/**
 * The entries of all VPNs and of lockdown: of a user's VPN that root's VPN names too, the user's own count; lockdown is for whom
 * no VPN covers (plan-lockdown.ts).
 */
export function allWays(vpns: Iterable<readonly Way[]>, locked: ReadonlySet<number>): Map<string, Way> {
  const all = new Map<string, Way>();
  const keyOf = ({ kind, value }: Pick<Way, 'kind' | 'value'>): string => `${kind} ${value}`;
  const every = [...vpns].flat();
  for (const way of every) {
    const key = keyOf(way);
    if (way.kind !== 'uid' || way.owner !== 0 || !all.has(key)) all.set(key, way);
  }
  const everyone = { kind: 'everyone', value: 0, owner: 0 } as const;
  const hasRootVpn = every.some(({ kind, owner }) => kind === 'link' && owner === 0);
  if (locked.has(0) && !hasRootVpn) all.set(keyOf(everyone), { ...everyone, ifindex: NOWHERE });
  const ofEveryone = all.get(keyOf(everyone))?.ifindex ?? NOWHERE;
  for (const value of locked) {
    const user = { kind: 'uid', value, owner: 0 } as const;
    const standing = all.get(keyOf(user));
    if (value === 0 || (standing !== undefined && standing.ifindex + standing.owner > 0)) continue;
    // Whom root's VPN passes has none.
    all.set(keyOf(user), { ...user, ifindex: standing === undefined ? ofEveryone : NOWHERE });
  }
  return all;
}

interface Attached {
  root: string;
  program: number;
  ways: HashMap;
  /** What is in the map. */
  entries: Map<string, Way>;
}

export class EgressLock {
  readonly #netnsCookie: bigint;
  readonly #programName: string;
  #vpns = new Map<number, Way[]>();
  #locked: ReadonlySet<number> = new Set();
  #attached: Attached | undefined;

  /** As of ReceiveGuard. */
  constructor(netnsCookie: bigint, programName: string) {
    this.#netnsCookie = netnsCookie;
    this.#programName = programName;
  }

  /** While it is attached. */
  get programId(): number | undefined {
    return this.#attached && programId(this.#attached.program);
  }

  /** From now on whom the VPN covers sends by this link or not at all. Throws KernelError. */
  set(ifindex: number, coverage: Coverage): void {
    this.#change(() => this.#vpns.set(ifindex, waysOf(coverage, ifindex)));
  }

  /** Takes back set(); does nothing when there was none. */
  delete(ifindex: number): void {
    this.#change(() => this.#vpns.delete(ifindex));
  }

  /** From now on exactly these users, of whom no VPN is, send nothing that nft has not let out; 0 stands for everyone. Throws KernelError. */
  lock(users: ReadonlySet<number>): void {
    this.#change(() => {
      this.#locked = users;
    });
  }

  #change(change: () => void): void {
    const [vpns, locked] = [new Map(this.#vpns), this.#locked];
    change();
    try {
      this.#sync();
    } catch (error) {
      this.#vpns = vpns;
      this.#locked = locked;
      // Nobody is kept in by an entry of a VPN that failed. The first error is the one to tell.
      try {
        this.#sync();
      } catch {}
      throw error;
    }
  }

  /** Only what changes is written: there may be a thousand VPNs. */
  #sync(): void {
    const wanted = allWays(this.#vpns.values(), this.#locked);
    if (wanted.size === 0) return this.#detach();
    this.#attached ??= this.#attach();
    const { ways, entries } = this.#attached;
    for (const [key, way] of wanted) {
      const standing = entries.get(key);
      if (standing?.ifindex === way.ifindex && standing.owner === way.owner) continue;
      ways.set(wayKey(way), wayValue(way));
      entries.set(key, way);
    }
    for (const [key, way] of entries) {
      if (wanted.has(key)) continue;
      ways.delete(wayKey(way));
      entries.delete(key);
    }
  }

  #detach(): void {
    if (this.#attached === undefined) return;
    const { root, program, ways } = this.#attached;
    detachProgram(root, program, ATTACH_TYPE.egress);
    this.#attached = undefined;
    closeSync(program);
    ways.close();
  }

  #attach(): Attached {
    const root = resolveCgroup('/');
    const undo: (() => void)[] = [];
    try {
      const ways = new HashMap(NAME, WAY_BYTES, WAY_BYTES, MAX_WAYS);
      undo.push(() => ways.close());
      const { program } = load(this.#programName, this.#netnsCookie, ways);
      undo.push(() => closeSync(program));
      attachProgram(root, program, ATTACH_TYPE.egress);
      return { root, program, ways, entries: new Map() };
    } catch (error) {
      for (const step of undo) step();
      throw error;
    }
  }
}

interface Loaded {
  program: number;
  /** Whether the program knows whose a subflow of MPTCP is. */
  tellsSubflows: boolean;
}

function load(name: string, netnsCookie: bigint, ways: HashMap): Loaded {
  const attachType = ATTACH_TYPE.egress;
  const offsets = kernelOffsets();
  const spec = { netnsCookie, sockets: offsets, ways: ways.fd, bypass: BYPASS_MARK, field: SELECTION_FIELD };
  // From the newest kernels to the oldest: the cookie is told from 6.15 on, a subflow's connection from 5.19 on.
  const asking = [{ tellsSubflows: true }, { tellsSubflows: true, offsets }];
  const variants: Pick<EgressLockSpec, 'tellsSubflows' | 'offsets'>[] = [
    ...(offsets.subflow === undefined ? [] : asking),
    { tellsSubflows: false, offsets },
  ];
  for (const variant of variants) {
    try {
      const instructions = egressLockProgram({ ...spec, ...variant });
      const program = loadProgram({ name, type: PROGRAM_TYPE.cgroupSkb, attachType, instructions });
      return { program, tellsSubflows: variant.tellsSubflows };
    } catch (error) {
      const isLast = variant === variants.at(-1);
      if (!(error instanceof KernelError) || error.errnoName === 'EPERM' || isShortage(error) || isLast) throw error;
    }
  }
  throw new RangeError('no program to load');
}

export interface EgressLockAbility {
  /** Why there can be no second lock on this machine, in a sentence that names what is missing. */
  problem?: string;
  tellsSubflows: boolean;
}

/** Of the newest program that this kernel takes; what was loaded once is not tried again. */
let tellsSubflows = false;

/** Throws KernelError like programProblem(). */
export function egressLockAbility(): EgressLockAbility {
  const problem = programProblem('a second lock, which holds while the firewall is away,', ATTACH_TYPE.egress, () => {
    const ways = new HashMap(NAME, WAY_BYTES, WAY_BYTES, 1);
    try {
      const loaded = load(NAME, 0n, ways);
      closeSync(loaded.program);
      ({ tellsSubflows } = loaded);
    } finally {
      ways.close();
    }
  });
  return problem === undefined ? { tellsSubflows } : { tellsSubflows: false, problem };
}
