/**
 * Two hosts with a cable between them, and the addresses that tunnels between them have:
 *
 *   here                                          there
 *   eth0 192.0.2.1/24 ─────────────────────────── eth0 192.0.2.2/24
 *        2001:db8:1::1/64                              2001:db8:1::2/64
 */
import type { TestContext } from 'node:test';
import type { LabHost } from './host.js';
import { Lab } from './lab.js';

export const OUTSIDE = {
  IPv4: { here: '192.0.2.1', there: '192.0.2.2' },
  IPv6: { here: '2001:db8:1::1', there: '2001:db8:1::2' },
} as const;
export const INSIDE = {
  IPv4: { here: '10.9.0.1', there: '10.9.0.2' },
  IPv6: { here: 'fd09::1', there: 'fd09::2' },
} as const;

export interface Hosts {
  lab: Lab;
  here: LabHost;
  there: LabHost;
}

/** Taken down with the test. */
export async function twoHosts(t: Pick<TestContext, 'after'>): Promise<Hosts> {
  const lab = await Lab.create();
  t.after(() => lab.close());
  const [here, there] = await Promise.all([lab.host('here'), lab.host('there')]);
  await lab.link(here, 'eth0', ['192.0.2.1/24', '2001:db8:1::1/64'], there, 'eth0', [
    '192.0.2.2/24',
    '2001:db8:1::2/64',
  ]);
  return { lab, here, there };
}
