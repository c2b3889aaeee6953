/** How often the surroundings are read from the kernel: with many VPNs a list of the links is long. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { DEFAULT_HOST_POLICY } from '../../../src/host/host-policy.js';
import { Neighbourhood } from '../../../src/host/neighbourhood.js';

type Parts = ConstructorParameters<typeof Neighbourhood>[0];

const NONE = { vpn: false, rootVpn: false, outsideDns: false };

test('while VPNs are up, one more reads no list of links to judge its name servers', async () => {
  let dumps = 0;
  const netlink = {
    dump: async () => {
      dumps++;
      return [];
    },
    batch: async () => [],
  };
  const parts = {
    netlink,
    firewall: { surround: async () => {} },
    lockdown: { isInForce: false, surround: async () => {} },
    sysctls: { update: () => false },
    outside: async () => ({ outer: new Set<number>(), toGroups: [] }),
  };
  const neighbourhood = new Neighbourhood(parts as unknown as Parts);
  const cost = async (work: () => Promise<unknown>) => {
    const before = dumps;
    await work();
    return dumps - before;
  };
  const survey = () => neighbourhood.survey(DEFAULT_HOST_POLICY);
  assert.ok((await cost(survey)) > 0, 'while nothing stands');
  await neighbourhood.refresh(DEFAULT_HOST_POLICY, { ...NONE, vpn: true });
  assert.equal(await cost(survey), 0, 'while a VPN is up');
  await neighbourhood.refresh(DEFAULT_HOST_POLICY, NONE);
  assert.ok((await cost(survey)) > 0, 'and behind the last');
});
