/** Many bytes from one host to another by TCP, and whether they arrived as they were sent. */
import assert from 'node:assert/strict';
import type { LabHost } from './host.js';
import type { LabProcess } from './process.js';

const SCRIPT = 'dist/test/lab/lib/transfer-process.js';
const PORT = 7000;

/** At an address of the host's own, for as many transfers as wanted. */
export async function receiveTransfers(host: LabHost, address: string): Promise<LabProcess> {
  const server = host.spawnNode(SCRIPT, ['serve', address, String(PORT)]);
  await server.waitFor(/^ready$/m);
  return server;
}

/** Fails when what arrived differs. */
export async function transfer(from: LabHost, address: string, bytes: number, timeoutMs = 240_000): Promise<void> {
  const { stdout } = await from.node(SCRIPT, ['send', address, String(PORT), String(bytes)], { timeoutMs });
  const [sent, arrived] = stdout.trimEnd().split('\n');
  assert.match(sent ?? '', new RegExp(`^${bytes} [0-9a-f]{64}$`));
  assert.equal(arrived, sent, `${bytes} bytes from ${from.name} to ${address}`);
}
