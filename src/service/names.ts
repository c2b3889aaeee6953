/** The passwd and group databases as the policy and the application lists ask them. */
import { nss } from '../kernel/ffi.js';
import type { NameLookup } from './policy.js';

export const names: NameLookup = {
  userByName: (name) => {
    const entry = nss.userByName(name);
    return entry && { uid: entry.pw_uid };
  },
  groupByName: (name) => {
    const entry = nss.groupByName(name);
    return entry && { gid: entry.gr_gid };
  },
};
