/** What the data path has done. Plain fields, added to in place. */
export class TunnelCounters {
  /** IP packets from the vNIC, super-packets counted as the packets they stand for. */
  packetsOut = 0;
  bytesOut = 0;
  /** IP packets to the vNIC. */
  packetsIn = 0;
  bytesIn = 0;
  datagramsOut = 0;
  datagramsIn = 0;
  /** System calls that carried them: how well the offloads work. */
  tunReads = 0;
  tunWrites = 0;
  socketReads = 0;
  socketWrites = 0;
  /** Packets that nobody takes, or whose vnet header is none. */
  unroutable = 0;
  /** Datagrams the kernel did not take: no route, no memory. */
  unsent = 0;
  /** Packets the kernel did not take: the vNIC is down, or what came is no IP packet. */
  undelivered = 0;
  /** How often the socket was full, and the vNIC was not read until it had room. */
  waits = 0;
}
