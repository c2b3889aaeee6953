/**
 * A netlink socket that hears of changes (multicast groups, netlink(7)): waited on by the epoll worker, read here until it is
 * empty. When it was not read fast enough the kernel drops notifications and says so once (ENOBUFS).
 */

import type { Epoll } from './epoll.js';
import { checked, lastError } from './errno.js';
import { errno, libc } from './ffi.js';
import { readMessages } from './netlink.js';
import { attachFilter } from './netlink-filter.js';
import { bindNetlink } from './netlink-port.js';

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

/** linux/rtnetlink.h and linux/netfilter/nfnetlink.h. */
export const RTNLGRP_LINK = 1;
export const RTNLGRP_IPV4_IFADDR = 5;
export const RTNLGRP_IPV4_ROUTE = 7;
export const RTNLGRP_IPV4_RULE = 8;
export const RTNLGRP_IPV6_IFADDR = 9;
export const RTNLGRP_IPV6_ROUTE = 11;
export const RTNLGRP_IPV6_RULE = 19;
export const RTNLGRP_IPV4_NETCONF = 24;
export const NFNLGRP_NFTABLES = 7;

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const ENOBUFS = 105;

/** Room for some 10,000 notifications. */
const RECEIVE_QUEUE_BYTES = 8 * 1024 * 1024;
/** Longer than any notification. */
const RECEIVE_BYTES = 64 * 1024;
/** Then others have their turn; what is left is told at once. */
const DATAGRAMS_AT_ONCE = 1000;
/** More than the queue has room for. */
const DISCARDED_AT_ONCE = 100_000;

const receive = Buffer.alloc(RECEIVE_BYTES);

export interface MonitorSettings {
  protocol: number;
  groups: readonly number[];
  /** netlink-filter.ts */
  filter?: Buffer;
}

export interface MonitorListener {
  /** `portId`: whose request caused it, 0 for the kernel's own doing. The payload is overwritten by the next message. */
  onMessage(type: number, payload: Buffer, portId: number): void;
  /** Notifications are missing from here on. */
  onLost(): void;
  /** All that was there has been told. */
  onRead(): void;
}

export class NetlinkMonitor {
  readonly #epoll: Epoll;
  readonly #fd: number;
  readonly #listener: MonitorListener;

  /** From now on every change is told. Throws KernelError; EPROTONOSUPPORT when the kernel lacks the protocol. */
  constructor(epoll: Epoll, { protocol, groups, filter }: MonitorSettings, listener: MonitorListener) {
    this.#epoll = epoll;
    this.#listener = listener;
    this.#fd = checked(libc.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, protocol), 'socket', `netlink protocol ${protocol}`);
    try {
      const size = Buffer.alloc(4);
      size.writeUInt32LE(RECEIVE_QUEUE_BYTES);
      libc.setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, size, 4);
      if (filter) attachFilter(this.#fd, filter);
      // A socket without a port id would miss what the kernel does by itself.
      bindNetlink(this.#fd);
      for (const group of groups) this.#join(group);
      epoll.addSocket(this.#fd, () => this.#read());
    } catch (error) {
      libc.close(this.#fd);
      throw error;
    }
  }

  /** In place of the one before. What it drops is not told; what had been taken is. */
  setFilter(filter: Buffer): void {
    attachFilter(this.#fd, filter);
  }

  close(): void {
    this.#epoll.remove(this.#fd);
    libc.close(this.#fd);
  }

  #join(group: number): void {
    const value = Buffer.alloc(4);
    value.writeUInt32LE(group);
    if (libc.setsockopt(this.#fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, value, 4) < 0) {
      throw lastError('NETLINK_ADD_MEMBERSHIP', `group ${group}`);
    }
  }

  #read(): void {
    for (let count = 0; count < DATAGRAMS_AT_ONCE; count++) {
      const length = this.#receive();
      if (length === 'nothing') break;
      if (length === 'lost') {
        this.#discard();
        this.#listener.onLost();
        break;
      }
      this.#tell(receive.subarray(0, length));
    }
    this.#listener.onRead();
  }

  /** Once it has dropped one, the kernel drops them all until the queue is empty: only then is it known what was missed. */
  #discard(): void {
    for (let count = 0; count < DISCARDED_AT_ONCE && this.#receive() !== 'nothing'; count++);
  }

  #receive(): number | 'nothing' | 'lost' {
    const length = libc.recv(this.#fd, receive, RECEIVE_BYTES, MSG_DONTWAIT | MSG_TRUNC);
    if (length < 0) return errno() === ENOBUFS ? 'lost' : 'nothing';
    // With MSG_TRUNC the length is that of the whole datagram.
    return length > RECEIVE_BYTES ? 'lost' : length;
  }

  #tell(datagram: Buffer): void {
    for (const { type, payload } of readMessages(datagram)) {
      // The port id is the header's last field, right before the payload.
      const portId = datagram.readUInt32LE(payload.byteOffset - datagram.byteOffset - 4);
      this.#listener.onMessage(type, payload, portId);
    }
  }
}
