/** `vpnctl up --wait[=SECONDS]`: begins a handshake with every peer that has an endpoint, and waits for the first that succeeds. */
import { ask, controlSocket } from './control.js';
import type { TunnelStatus } from './tunnel-status.js';

/** sysexits(3), EX_TEMPFAIL: it may work later. The tunnel goes on trying. */
export const EX_TEMPFAIL = 75;
export const DEFAULT_WAIT_S = 30;
const PATIENCE_MS = 10_000;
const INTERVAL_MS = 200;
/** WireGuard gives a handshake up after 90 s. */
const AGAIN_MS = 60_000;

/** Undefined when there is a handshake; else why there is none. Rejects with an Error when the tunnel's process does not answer. */
export async function waitForHandshake(folder: string, link: string, seconds: number): Promise<string | undefined> {
  const path = controlSocket(folder, link);
  const deadline = performance.now() + seconds * 1000;
  let againAt = 0;
  for (;;) {
    if (performance.now() >= againAt) {
      againAt = performance.now() + AGAIN_MS;
      await ask(path, 'begin', PATIENCE_MS);
    }
    const { peers } = await ask(path, 'status', PATIENCE_MS);
    if (peers.some(({ lastHandshake }) => lastHandshake !== undefined)) return undefined;
    if (performance.now() >= deadline) return `no handshake within ${seconds} s${reason(peers)}`;
    await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
  }
}

function reason(peers: TunnelStatus['peers']): string {
  if (peers.every(({ endpoint }) => endpoint === undefined)) return ': no peer has an Endpoint, and none has come';
  const problem = peers.find((peer) => peer.problem !== undefined)?.problem;
  return problem === undefined ? '' : `: ${problem}`;
}
