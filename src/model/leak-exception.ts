/** A kind of packet that may leave outside the tunnel although covered, as `vpnctl leaks --json` prints it. */
export interface LeakException {
  /** The same word for the same reason, always: 'lan', 'protected', 'dhcp'. */
  kind: string;
  /** Whose VPN allows it, or, with `lockdown`, who is locked down; 0 stands for everyone without a VPN of his own. */
  uid: number;
  lockdown?: true;
  /** What a packet shows. It belongs here when all fields that are given match. */
  family?: 4 | 6;
  protocol?: 'tcp' | 'udp' | 'icmp' | 'icmpv6' | 'igmp' | 'arp';
  icmpTypes?: number[];
  sourcePort?: number;
  destinationPort?: number;
  /** Any but this. */
  exceptDestinationPort?: number;
  /** Prefixes. */
  destinations?: string[];
  /** Names of links. */
  links?: string[];
  hopLimit?: number;
  tcpFlags?: 'rst';
  /** A link whose forwarded traffic it is. */
  from?: string;
  /**
   * What a packet does not show: the socket is protected; it answers what came in from outside; it is a resolver's, asking for
   * somebody else; it is a packet socket, or of a family that is no IP; it was made by somebody else; it belongs to a program with
   * CAP_NET_RAW or CAP_NET_ADMIN, or to one under a uid that the user is lent by /etc/subuid. Or none is: further paths of MPTCP are
   * stopped, also of users without a VPN.
   */
  socket?:
    | 'protected'
    | 'inbound'
    | 'resolver'
    | 'packet'
    | 'vsock'
    | 'handed-over'
    | 'privileged'
    | 'subordinate'
    | 'multipath';
  reason: string;
}
