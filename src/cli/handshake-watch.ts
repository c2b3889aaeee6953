/**
 * Notices a peer that is sent to and never shakes hands, says so once in the log, and knows why as far as it can be told from
 * here. WireGuard answers nobody that it does not know, so most reasons look alike: nothing comes back. A session lasts 180 s, an
 * initiation is repeated every 5 s. HandshakeWatch is pure; startHandshakeWatch() has the timer.
 */
import type { PeerStatus } from '../tunnel/wireguard/device-config.js';
import { endpointText } from '../tunnel/wireguard/uapi.js';
import type { WireGuardStatus } from '../tunnel/wireguard-tunnel.js';
import type { Note } from './tunnel-log.js';

/** REJECT_AFTER_TIME of WireGuard: no session is older. */
const SESSION_MS = 180_000;
/** Four initiations without an answer. */
const PATIENCE_MS = 20_000;
const UNEASY_INTERVAL_MS = 5_000;
const CALM_INTERVAL_MS = 60_000;

type Traffic = Pick<WireGuardStatus['traffic'], 'datagramsOut' | 'unsent'>;

interface Watched extends Pick<WireGuardStatus, 'peers' | 'counters'> {
  traffic: Traffic;
}

interface Memory {
  sentBytes: number;
  hasSession: boolean;
  /** Something was sent about when the session ended: the next look tells whether in vain. */
  isInDoubt: boolean;
  /** Since when it has been sent to in vain; undefined: it has not. */
  sinceMs: number | undefined;
  problem?: string;
}

const NOTHING: Memory = { sentBytes: 0, hasSession: false, isInDoubt: false, sinceMs: undefined };

export class HandshakeWatch {
  /** By public key in base64. */
  #memories = new Map<string, Memory>();
  #traffic: Traffic = { datagramsOut: 0, unsent: 0 };

  /** Sentences for the log, about what is new. `nowMs`: the wall clock. */
  sample(status: Watched, nowMs: number): string[] {
    const sentences: string[] = [];
    const next = new Map<string, Memory>();
    const { datagramsOut, unsent } = status.traffic;
    const recent = { datagramsOut: datagramsOut - this.#traffic.datagramsOut, unsent: unsent - this.#traffic.unsent };
    for (const peer of status.peers) {
      const key = keyText(peer.publicKey);
      const last: Memory = this.#memories.get(key) ?? NOTHING;
      const { sentBytes } = peer;
      const hasSession = peer.lastHandshakeMs > 0 && nowMs - peer.lastHandshakeMs < SESSION_MS;
      const memory: Memory = { sentBytes, hasSession, isInDoubt: false, sinceMs: undefined };
      next.set(key, memory);
      if (hasSession) {
        if (last.problem !== undefined) sentences.push(`handshake with ${nameOf(peer)}`);
        continue;
      }
      // Of several peers any may be the one that could not be sent to.
      const isUnsent = peer.endpoint !== undefined && recent.unsent > 0 && status.peers.length === 1;
      const isSent = sentBytes > last.sentBytes || isUnsent;
      memory.isInDoubt = isSent && last.hasSession;
      memory.sinceMs = last.sinceMs ?? (isSent && !last.hasSession ? nowMs : undefined);
      if (memory.sinceMs === undefined || nowMs - memory.sinceMs < PATIENCE_MS) continue;
      memory.problem = whyNoHandshake(peer, status.counters, recent);
      if (last.problem === undefined) sentences.push(`no handshake with ${nameOf(peer)}: ${memory.problem}`);
    }
    this.#memories = next;
    this.#traffic = { datagramsOut, unsent };
    return sentences;
  }

  /** What is wrong with a peer; undefined when nothing is known to be. */
  problemOf(publicKey: Uint8Array): string | undefined {
    return this.#memories.get(keyText(publicKey))?.problem;
  }

  /** Whether something may have to be said soon. */
  get isUneasy(): boolean {
    return [...this.#memories.values()].some(({ sinceMs, isInDoubt }) => isInDoubt || sinceMs !== undefined);
  }
}

/**
 * As far as it can be told from this side. The counters are the device's: with several peers they may be another's. `recent`: what
 * the socket has done since the last look.
 */
export function whyNoHandshake(
  peer: Pick<PeerStatus, 'endpoint'>,
  counters: WireGuardStatus['counters'],
  recent: Traffic,
): string {
  if (peer.endpoint === undefined) return 'it has no Endpoint here, and has not come by itself';
  if (recent.datagramsOut === 0 && recent.unsent > 0) {
    return 'this machine cannot send to it: there is no route to its address, or a firewall here forbids it';
  }
  if ((counters.badResponse ?? 0) > 0) {
    return 'it answers, but not with our keys: PresharedKey is another there, or on one side only';
  }
  if ((counters.badMac ?? 0) > 0) {
    return 'what comes in is for another key than ours: the peer has a wrong public key for us, or somebody else sends it';
  }
  return (
    'nothing comes back: its address or port is wrong, it is off, something on the way drops UDP, PublicKey is not its key, ' +
    'it does not know ours, or the clock here was set back'
  );
}

export interface HandshakeWatchOptions {
  status(): Promise<Watched>;
  note: Note;
}

/** Begins; an idle tunnel is looked at once a minute. */
export function startHandshakeWatch({ status, note }: HandshakeWatchOptions): { watch: HandshakeWatch; stop(): void } {
  const watch = new HandshakeWatch();
  let timer: NodeJS.Timeout;
  const look = async () => {
    try {
      for (const sentence of watch.sample(await status(), Date.now())) note(sentence);
    } catch {
      // The tunnel is ending.
    }
    timer = setTimeout(look, watch.isUneasy ? UNEASY_INTERVAL_MS : CALM_INTERVAL_MS).unref();
  };
  // What is sent first is sent soon after the start.
  timer = setTimeout(look, UNEASY_INTERVAL_MS).unref();
  return { watch, stop: () => clearTimeout(timer) };
}

function nameOf({ endpoint }: PeerStatus): string {
  return endpoint === undefined ? 'a peer without Endpoint' : endpointText(endpoint);
}

function keyText(key: Uint8Array): string {
  return Buffer.from(key).toString('base64');
}
