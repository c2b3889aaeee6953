/**
 * The marks of applications that are known by id: one BPF program on the root cgroup, attached from the first id to the last.
 * Program and map live on with the attachment when this process dies, until a sweep. Sockets from before are not its business.
 */
import { closeSync } from 'node:fs';
import { APP_KEY_BYTES, appKey, appMarksProgram, EVERYONE } from '../kernel/bpf-app-marks.js';
import { ATTACH_TYPE, attachProgram, detachProgram } from '../kernel/bpf-attach.js';
import { programProblem } from '../kernel/bpf-problem.js';
import { HashMap, loadProgram, PROGRAM_TYPE } from '../kernel/bpf-syscall.js';
import { resolveCgroup } from '../kernel/cgroup.js';
import { kernelOffsets } from '../kernel/kernel-offsets.js';
import { SELECTION_FIELD } from './numbers.js';

export interface AppMark {
  /** As app-cgroup.ts has it, 1 to 124 bytes. */
  id: string;
  /** Only sockets of this uid, which then take this mark whatever they had; absent: everyone's, unless marked already. */
  uid?: number;
  /** Lies within SELECTION_FIELD. */
  mark: number;
}

const MAX_ENTRIES = 16384;
const NAME = 'vpnd_apps';

export class AppMarks {
  readonly #netnsCookie: bigint;
  readonly #programName: string;
  readonly #marks = new Map<string, number>();
  #attached: { root: string; program: number; map: HashMap } | undefined;

  /** The program's name tells it from those of other network namespaces; its cookie keeps it from their sockets. */
  constructor(netnsCookie: bigint, programName: string) {
    this.#netnsCookie = netnsCookie;
    this.#programName = programName;
  }

  /** Every socket made after this is marked. An entry for the same id and uid is replaced. Throws KernelError. */
  add({ id, uid, mark }: AppMark): void {
    if (mark === 0 || (mark & ~SELECTION_FIELD) !== 0) throw new RangeError(`mark 0x${mark.toString(16)}`);
    const key = appKey(id, uid ?? EVERYONE);
    const value = Buffer.alloc(4);
    value.writeUInt32LE(mark);
    this.#attached ??= this.#attach();
    try {
      this.#attached.map.set(key, value);
    } catch (error) {
      this.#detachUnused();
      throw error;
    }
    this.#marks.set(key.toString('latin1'), mark);
  }

  /** Takes back add(); does nothing when that entry is gone or has another mark by now. */
  remove({ id, uid, mark }: AppMark): void {
    const key = appKey(id, uid ?? EVERYONE);
    if (this.#marks.get(key.toString('latin1')) !== mark) return;
    this.#attached?.map.delete(key);
    this.#marks.delete(key.toString('latin1'));
    this.#detachUnused();
  }

  #attach(): { root: string; program: number; map: HashMap } {
    const root = resolveCgroup('/');
    const map = new HashMap(NAME, APP_KEY_BYTES, 4, MAX_ENTRIES);
    let program: number | undefined;
    try {
      program = load(this.#programName, this.#netnsCookie, map);
      attachProgram(root, program, ATTACH_TYPE.sockCreate);
      return { root, program, map };
    } catch (error) {
      if (program !== undefined) closeSync(program);
      map.close();
      throw error;
    }
  }

  #detachUnused(): void {
    if (this.#attached === undefined || this.#marks.size > 0) return;
    const { root, program, map } = this.#attached;
    detachProgram(root, program, ATTACH_TYPE.sockCreate);
    this.#attached = undefined;
    closeSync(program);
    map.close();
  }
}

function load(name: string, netnsCookie: bigint, map: HashMap): number {
  const spec = { netnsCookie, map: map.fd, mask: SELECTION_FIELD, offsets: kernelOffsets() };
  const attachType = ATTACH_TYPE.sockCreate;
  return loadProgram({ name, type: PROGRAM_TYPE.cgroupSock, attachType, ...appMarksProgram(spec) });
}

/** Why applications cannot be told by id on this machine, in a sentence that names what is missing; undefined when they can. */
export function appMatchingProblem(): string | undefined {
  return programProblem('matching applications by id', ATTACH_TYPE.sockCreate, () => {
    const map = new HashMap(NAME, APP_KEY_BYTES, 4, 1);
    try {
      closeSync(load(NAME, 0n, map));
    } finally {
      map.close();
    }
  });
}
