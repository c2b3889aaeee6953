/** Where the members lie that BPF programs follow, read once from the running kernel's own types. */
import { readFileSync } from 'node:fs';
import { KernelError } from '../model/errors.js';
import { attempt, isAbsent } from './absence.js';
import type { CgroupOffsets } from './bpf-app-marks.js';
import type { NamespaceOffsets } from './bpf-receive-guard.js';
import { Btf } from './btf.js';

/** Of struct sock, with which struct tcp_sock and struct mptcp_sock begin. */
export interface SocketOffsets {
  socketUid: number;
  /** A pointer to what a process has of it. */
  socketOfProcess: number;
  /** Of a path of MPTCP. Absent in a kernel without. */
  subflow?: {
    /** In struct tcp_sock: the address of its struct mptcp_subflow_context. */
    context: number;
    /** In that: the place, in bits, of whether the path joined a connection. */
    isJoin: number;
  };
}

type KernelOffsets = CgroupOffsets & NamespaceOffsets & SocketOffsets;

const PATH = '/sys/kernel/btf/vmlinux';

let offsets: KernelOffsets | undefined;

/** Throws KernelError with a reason in words: no BTF, or none of these members. */
export function kernelOffsets(): KernelOffsets {
  offsets ??= readOffsets(readBtf());
  return offsets;
}

function readBtf(): Btf {
  try {
    return new Btf(attempt('read', PATH, () => readFileSync(PATH)));
  } catch (error) {
    if (isAbsent(error)) {
      const message = 'the kernel has to be built with CONFIG_DEBUG_INFO_BTF';
      throw new KernelError('read', PATH, 'ENOENT', { message });
    }
    if (error instanceof KernelError) throw error;
    throw new KernelError('read', PATH, 'EINVAL', { message: (error as Error).message });
  }
}

function readOffsets(btf: Btf): KernelOffsets {
  const offset = (struct: string, ...names: string[]): number => {
    for (const name of names) {
      const found = btf.offsetOf(struct, name);
      if (found !== undefined) return found;
    }
    throw new KernelError('read', PATH, 'ENOENT', { message: `struct ${struct} has no ${names.join(' or ')}` });
  };
  const isJoin = btf.bitOf('mptcp_subflow_context', 'mp_join');
  return {
    ...(isJoin !== undefined && { subflow: { context: offset('inet_connection_sock', 'icsk_ulp_data'), isJoin } }),
    taskCgroups: offset('task_struct', 'cgroups'),
    cssSetDefaultCgroup: offset('css_set', 'dfl_cgrp'),
    cgroupNode: offset('cgroup', 'kn'),
    nodeName: offset('kernfs_node', 'name'),
    // Renamed in 6.15.
    nodeParent: offset('kernfs_node', '__parent', 'parent'),
    socketNamespace: offset('sock', '__sk_common') + offset('sock_common', 'skc_net'),
    namespaceCookie: offset('net', 'net_cookie'),
    socketUid: offset('sock', 'sk_uid'),
    socketOfProcess: offset('sock', 'sk_socket'),
  };
}
