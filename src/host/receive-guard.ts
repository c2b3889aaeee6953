/**
 * Who receives from the vNICs: one BPF program on the root cgroup for all VPNs, attached from the first to the last, with a
 * rule for each vNIC. Program and maps live on with the attachment when this process dies, until a sweep.
 */
import { closeSync } from 'node:fs';
import { ATTACH_TYPE, attachProgram, detachProgram } from '../kernel/bpf-attach.js';
import { programProblem } from '../kernel/bpf-problem.js';
import {
  LIST_KEY_BYTES,
  listKey,
  type NamespaceOffsets,
  OWN_VPN,
  type ReceiveRule,
  RULE_BYTES,
  receiveGuardProgram,
  ruleValue,
} from '../kernel/bpf-receive-guard.js';
import { HashMap, loadProgram, PROGRAM_TYPE } from '../kernel/bpf-syscall.js';
import { resolveCgroup } from '../kernel/cgroup.js';
import { kernelOffsets } from '../kernel/kernel-offsets.js';
import { KernelError } from '../model/errors.js';
import type { AppSelector } from './applications.js';
import { BYPASS_MARK, SELECTION_FIELD, SLOTS, selectionMark } from './numbers.js';

const MAX_LISTED = 65536;
const NAME = 'vpnd_receive';

/** What of a VPN's plan decides who is covered. */
export interface Coverage {
  owner: number;
  trusted: readonly AppSelector[];
  blocked: readonly AppSelector[];
  selections: { covered?: number; blocked?: number };
}

/** The rule of a VPN's vNIC: the same sockets that plan-rules.ts sends into it. */
export function receiveRule({ owner, trusted, blocked, selections }: Coverage): ReceiveRule {
  const uids = (selectors: readonly AppSelector[]): number[] =>
    selectors.flatMap((selector) => (selector.kind === 'uid' ? [selector.uid] : []));
  // A user may name no uid but its own, which is everyone its VPN covers.
  const onlySome = trusted.length > 0 && (owner === 0 || uids(trusted).length === 0);
  return {
    owner,
    others: !onlySome,
    list: owner === 0 ? uids(onlySome ? trusted : blocked) : [],
    ...(selections.covered !== undefined && { covered: selectionMark(selections.covered) }),
    ...(selections.blocked !== undefined && { blocked: selectionMark(selections.blocked) }),
  };
}

interface Attached {
  root: string;
  program: number;
  rules: HashMap;
  lists: HashMap;
}

export class ReceiveGuard {
  readonly #netnsCookie: bigint;
  readonly #programName: string;
  readonly #rules = new Map<number, ReceiveRule>();
  #attached: Attached | undefined;

  /** The program's name tells it from those of other network namespaces; its cookie keeps it from their sockets. */
  constructor(netnsCookie: bigint, programName: string) {
    this.#netnsCookie = netnsCookie;
    this.#programName = programName;
  }

  /** From now on the link's packets reach only sockets that the rule allows. Replaces the link's rule. Throws KernelError. */
  set(ifindex: number, rule: ReceiveRule): void {
    const before = this.#rules.get(ifindex);
    this.#attached ??= this.#attach();
    const { rules, lists } = this.#attached;
    this.#rules.set(ifindex, rule);
    try {
      // The rule last: it is what makes the lists count.
      for (const key of listKeys(ifindex, rule)) lists.set(key, Buffer.alloc(4));
      rules.set(indexKey(ifindex), ruleValue(rule));
      if (before !== undefined) this.#unlist(ifindex, before);
    } catch (error) {
      if (before === undefined) this.delete(ifindex);
      throw error;
    }
  }

  /** Takes back set(); does nothing when there is no rule. */
  delete(ifindex: number): void {
    const rule = this.#rules.get(ifindex);
    if (rule === undefined || this.#attached === undefined) return;
    this.#attached.rules.delete(indexKey(ifindex));
    this.#rules.delete(ifindex);
    this.#unlist(ifindex, rule);
    if (this.#rules.size > 0) return;
    const { root, program, rules, lists } = this.#attached;
    detachProgram(root, program, ATTACH_TYPE.ingress);
    this.#attached = undefined;
    for (const close of [() => closeSync(program), () => rules.close(), () => lists.close()]) close();
  }

  /** Removes what a rule that is no longer in force had in the lists, but for what others still need. */
  #unlist(ifindex: number, rule: ReceiveRule): void {
    const needed = new Set(
      [...this.#rules].flatMap(([index, each]) => listKeys(index, each).map((key) => key.toString('hex'))),
    );
    for (const key of listKeys(ifindex, rule)) {
      if (!needed.has(key.toString('hex'))) this.#attached?.lists.delete(key);
    }
  }

  #attach(): Attached {
    const root = resolveCgroup('/');
    const undo: (() => void)[] = [];
    try {
      const rules = new HashMap(NAME, 4, RULE_BYTES, SLOTS);
      undo.push(() => rules.close());
      const lists = new HashMap(NAME, LIST_KEY_BYTES, 4, MAX_LISTED);
      undo.push(() => lists.close());
      const program = load(this.#programName, this.#netnsCookie, rules, lists);
      undo.push(() => closeSync(program));
      attachProgram(root, program, ATTACH_TYPE.ingress);
      return { root, program, rules, lists };
    } catch (error) {
      for (const step of undo) step();
      throw error;
    }
  }
}

function listKeys(ifindex: number, { owner, list }: ReceiveRule): Buffer[] {
  return owner === 0 ? list.map((uid) => listKey(ifindex, uid)) : [listKey(OWN_VPN, owner)];
}

function indexKey(ifindex: number): Buffer {
  const key = Buffer.alloc(4);
  key.writeUInt32LE(ifindex);
  return key;
}

function load(name: string, netnsCookie: bigint, rules: HashMap, lists: HashMap): number {
  const attachType = ATTACH_TYPE.ingress;
  const program = (offsets?: NamespaceOffsets): number => {
    const spec = { netnsCookie, rules: rules.fd, lists: lists.fd, bypass: BYPASS_MARK, field: SELECTION_FIELD };
    const instructions = receiveGuardProgram({ ...spec, ...(offsets && { offsets }) });
    return loadProgram({ name, type: PROGRAM_TYPE.cgroupSkb, attachType, instructions });
  };
  try {
    return program();
  } catch (error) {
    if (error instanceof KernelError && error.errnoName === 'EPERM') throw error;
    // Before Linux 6.15 such a program may not ask for the cookie and has to look for it.
    return program(kernelOffsets());
  }
}

/** Why the boundary cannot be kept on this machine, in a sentence that names what is missing; undefined when it can. */
export function receiveGuardProblem(): string | undefined {
  return programProblem('keeping other users from receiving through a VPN', ATTACH_TYPE.ingress, () => {
    const maps = [new HashMap(NAME, 4, RULE_BYTES, 1), new HashMap(NAME, LIST_KEY_BYTES, 4, 1)] as const;
    try {
      closeSync(load(NAME, 0n, ...maps));
    } finally {
      for (const map of maps) map.close();
    }
  });
}
