/**
 * What became of datagrams and packets. On the data path nothing is logged and nothing thrown: it is counted. Plain number
 * fields, because some are counted up for every packet of a flood.
 */
export class Counters {
  /** No WireGuard message by its first bytes and its length, or a packet too short or too long to be one. */
  malformed = 0;

  // Transport messages that were dropped, and why.
  /** For a receiver index that nobody has. */
  noSession = 0;
  /** For a session older than REJECT_AFTER_TIME. */
  expired = 0;
  replayed = 0;
  unauthentic = 0;
  /** Authentic, but no IP packet. */
  badPacket = 0;
  /** Authentic, but the peer may not send from this address. */
  notAllowed = 0;
  /** Authentic and empty. */
  keepalives = 0;

  // Packets that wait for a session.
  staged = 0;
  /** The oldest of a full queue, or waiting for a handshake that never came about. */
  stagedDropped = 0;

  // Handshake messages.
  initiationsSent = 0;
  responsesSent = 0;
  cookiesSent = 0;
  /** Sessions, as initiator and as responder. */
  handshakes = 0;
  badMac = 0;
  /** With a right mac1, but not from a peer of ours. */
  badInitiation = 0;
  /** With a timestamp that is not later than the peer's last. */
  replayedInitiation = 0;
  /** Less than 20 ms after the peer's last. */
  hastyInitiation = 0;
  badResponse = 0;
  badCookie = 0;
  /** Dropped unread, or without an answer, because there were too many of all or of its source. */
  overload = 0;
}
