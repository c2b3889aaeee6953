/**
 * The BPF programs behind a plan: those that mark the sockets of its `cgroup:` names and of its applications, the one that lets
 * only covered sockets receive from its vNIC, and the second lock. Where BPF cannot be used, what needs marks is refused before
 * anything is changed; the guard is then replaced by the firewall, which lets nothing in that nobody asked for, and the firewall
 * is the only lock that holds sockets bound to a device.
 */
import { isAbsent } from '../kernel/absence.js';
import { attachSocketMark, detachSocketMarks, listSocketMarks } from '../kernel/bpf.js';
import { resolveCgroup } from '../kernel/cgroup.js';
import { BusinessError } from '../model/errors.js';
import { AppMarks, appMatchingProblem } from './app-marks.js';
import { CgroupReturns } from './cgroup-returns.js';
import { EgressLock, type EgressLockAbility, egressLockAbility } from './egress-lock.js';
import { programName, SELECTION_FIELD, sharedProgramName } from './numbers.js';
import type { CgroupMark, Plan, PlanInput } from './plan.js';
import { ReceiveGuard, receiveGuardProblem, receiveRule } from './receive-guard.js';
import type { UndoStack } from './undo.js';

export class SocketMarks {
  readonly #netnsInode: bigint;
  readonly #netnsCookie: bigint;
  readonly #apps: AppMarks;
  readonly #returns = new CgroupReturns();
  readonly #onFailed: (error: unknown) => void;
  readonly #guard: ReceiveGuard | undefined;
  readonly #lock: EgressLock | undefined;
  /** Why there is no guard, in a sentence. */
  readonly guardProblem: string | undefined;
  readonly lockAbility: EgressLockAbility;

  /** `onFailed`: a cgroup came back, and its sockets cannot be marked. */
  constructor(netnsInode: bigint, netnsCookie: bigint, onFailed: (error: unknown) => void) {
    this.#onFailed = onFailed;
    this.#netnsInode = netnsInode;
    this.#netnsCookie = netnsCookie;
    this.#apps = new AppMarks(netnsCookie, sharedProgramName(netnsInode, 'app'));
    this.guardProblem = receiveGuardProblem();
    if (this.guardProblem === undefined)
      this.#guard = new ReceiveGuard(netnsCookie, sharedProgramName(netnsInode, 'rcv'));
    this.lockAbility = egressLockAbility();
    if (this.lockAbility.problem === undefined)
      this.#lock = new EgressLock(netnsCookie, sharedProgramName(netnsInode, 'out'));
  }

  /** Before anything is changed. Throws BusinessError 2200003 when the lists need what this machine has not. */
  require({ trusted, blocked }: Pick<PlanInput, 'trusted' | 'blocked'>): void {
    if (![...trusted, ...blocked].some(({ kind }) => kind === 'app')) return;
    const problem = appMatchingProblem();
    if (problem !== undefined) throw new BusinessError(2200003, undefined, problem);
  }

  /** From now on sockets have the plan's marks, which mean nothing as long as no rule asks for them. */
  mark(plan: Pick<Plan, 'slot' | 'cgroupMarks' | 'applicationMarks'>, undo: UndoStack): void {
    undo.push(() => this.#unmark(plan));
    for (const mark of plan.cgroupMarks) {
      this.#attachToCgroup(mark, plan.slot);
      this.#returns.watch(`${plan.slot} ${mark.cgroup}`, mark.cgroup, () => this.#onReturn(mark, plan.slot));
    }
    for (const mark of plan.applicationMarks) this.#apps.add(mark);
  }

  /** From now on only sockets that the plan covers receive from its vNIC, and they send by it also while nft is away. */
  guard(plan: Plan, request: Pick<PlanInput, 'owner' | 'trusted' | 'blocked'>, ifindex: number): void {
    this.#guard?.set(ifindex, receiveRule({ ...request, selections: plan.selections }));
    this.#lock?.set(ifindex, { ...request, selections: plan.selections });
  }

  /** Takes both back; skips what is gone already. */
  detach(plan: Plan, ifindex: number): void {
    this.#guard?.delete(ifindex);
    this.#unmark(plan);
  }

  /** The firewall alone locks in whom the VPN covers. Before it goes too: what it lets out is told by its marks. */
  unlock(ifindex: number): void {
    this.#lock?.delete(ifindex);
  }

  /** As EgressLock.lock(). */
  lockDown(users: ReadonlySet<number>): void {
    this.#lock?.lock(users);
  }

  /** The id of the second lock's program, while it is attached. */
  get lockProgram(): number | undefined {
    return this.#lock?.programId;
  }

  #unmark(plan: Pick<Plan, 'slot' | 'cgroupMarks' | 'applicationMarks'>): void {
    for (const mark of plan.applicationMarks) this.#apps.remove(mark);
    for (const { cgroup } of plan.cgroupMarks) {
      this.#returns.unwatch(`${plan.slot} ${cgroup}`);
      this.#detachFromCgroup(cgroup, plan.slot);
    }
  }

  close(): void {
    this.#returns.close();
  }

  #onReturn(mark: CgroupMark, slot: number): void {
    const ours = programName(this.#netnsInode, slot);
    try {
      if (!listSocketMarks(resolveCgroup(mark.cgroup)).some(({ name }) => name === ours))
        this.#attachToCgroup(mark, slot);
    } catch (error) {
      // Gone, or gone once more.
      if (!isAbsent(error)) this.#onFailed(error);
    }
  }

  #attachToCgroup({ cgroup, mark, uid }: CgroupMark, slot: number): void {
    const condition = uid === undefined ? { overwrite: false } : { overwrite: true, uid };
    const spec = { mark, mask: SELECTION_FIELD, netnsCookie: this.#netnsCookie, ...condition };
    attachSocketMark(resolveCgroup(cgroup), spec, programName(this.#netnsInode, slot));
  }

  #detachFromCgroup(cgroup: string, slot: number): void {
    const ours = programName(this.#netnsInode, slot);
    try {
      detachSocketMarks(resolveCgroup(cgroup), { name: (name) => name === ours });
    } catch (error) {
      // A cgroup that was removed took its programs along.
      if (!isAbsent(error)) throw error;
    }
  }
}
