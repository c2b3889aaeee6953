/** What peer.ts can be told to run. `address` defaults to all addresses of both families. */
export type PeerSpecification = Whoami | Http | Dns | Tunnel;

/**
 * TCP and UDP. TCP: one line `NAME ADDRESS PORT` on accept (the client as the server sees it), then an echo. UDP: every
 * datagram is answered by `NAME ADDRESS PORT ` and the datagram.
 */
export interface Whoami {
  kind: 'whoami';
  name: string;
  port: number;
  address?: string;
}

/** `GET /N` answers N bytes; the header `x-client` is the client's address as the server sees it. */
export interface Http {
  kind: 'http';
  port: number;
  address?: string;
}

/** UDP and TCP. Every A, AAAA and TXT question is answered: `a` (unless it is empty), `aaaa` (when given) and `name`. */
export interface Dns {
  kind: 'dns';
  name: string;
  a: string;
  aaaa?: string;
  /** Instead of an answer: RFC 1035, 4.1.1. */
  rcode?: number;
  port?: number;
  address?: string;
}

/** A UDP socket and a TUN: one datagram, one packet, sent to whoever sent the last datagram. */
export interface Tunnel {
  kind: 'tunnel';
  port: number;
  device: string;
  /** A process in the network namespace that the TUN is to be moved to. */
  moveTo?: number;
}
